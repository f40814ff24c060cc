//! Every pane of every scene at two sizes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ratatui::crossterm::event::KeyCode;
use tracer::ids::Timestamp;
use tracer::tui::input::Pane;
use tracer::tui::{Picture, Playback};

use super::fixtures::FIXTURES;
use super::scene::{Shown, picture, pile_up, recorded};

const SIZES: [(u16, u16); 2] = [(80, 24), (160, 50)];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

/// The picture at the end of a scenario of the diagnosis, or of a scene of ours.
pub fn scenario(name: &str) -> Picture {
    let ours = folder().join(format!("tui/scenes/{name}.scn"));
    let path = if ours.exists() {
        ours
    } else {
        folder().join(format!("scenarios/{name}.scn"))
    };
    picture(&fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Compares every pane, after `prepare`, with the file of this scene.
fn check(scene: &str, picture: &Picture, prepare: impl Fn(&mut Shown)) {
    for size in SIZES {
        let mut actual = String::new();
        for pane in Pane::ALL {
            let mut shown = Shown::new(picture.clone(), size);
            shown.keys(&(pane.index() + 1).to_string());
            prepare(&mut shown);
            let _ = write!(actual, "==== {}\n{}", pane.title(), shown.text());
            if size == SIZES[0] {
                let _ = write!(actual, "---- styles\n{}", shown.styles());
            }
        }
        let path = folder().join(format!("tui/screens/{scene}.{}x{}.txt", size.0, size.1));
        if std::env::var_os("UPDATE_SCREENS").is_some() {
            fs::write(&path, &actual).expect("writing the screens");
            continue;
        }
        let expected = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            expected == actual,
            "{}:\n{}",
            path.display(),
            difference(&expected, &actual)
        );
    }
}

/// The lines that differ.
fn difference(expected: &str, actual: &str) -> String {
    let mut text = String::new();
    let (mut old, mut new) = (expected.lines(), actual.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let _ = writeln!(
                    text,
                    "{number}: -{}\n{number}: +{}",
                    old.unwrap_or(""),
                    new.unwrap_or("")
                );
            }
        }
    }
    text
}

#[test]
fn nothing_wrong() {
    check(
        "nothing-wrong",
        &picture("at 10s\nround pending begin 1\nround pending end 1"),
        |_| {},
    );
}

#[test]
fn self_deadlock() {
    check("self-deadlock", &scenario("self-deadlock-mutex"), |_| {});
}

#[test]
fn three_way_cycle() {
    check("cycle", &scenario("cycle-three-kinds"), |_| {});
}

#[test]
fn pile_up_of_1500() {
    check("pile-up", &picture(&pile_up()), |_| {});
}

#[test]
fn cpu_wait_chain() {
    check("cpu-chain", &scenario("cpu-chain"), |_| {});
}

#[test]
fn losses() {
    check("losses", &scenario("hot"), |_| {});
}

#[test]
fn closed_findings() {
    check("closed", &scenario("root-blocker-mutex"), |_| {});
}

#[test]
fn paused() {
    let later = scenario("self-deadlock-mutex");
    check("paused", &scenario("cycle-three-kinds"), |shown| {
        shown.key(KeyCode::Char(' '));
        // What comes now is counted, and not shown.
        let mut later = later.clone();
        later.vitals.now = Timestamp(25_700_000_000);
        shown.ui.show(later);
        shown.draw();
    });
}

#[test]
fn filtered() {
    check("filtered", &picture(&pile_up()), |shown| {
        shown.keys("/task:ps-14");
        shown.key(KeyCode::Enter);
    });
}

#[test]
fn filter_hides_all() {
    check("filter-hides-all", &scenario("cycle-three-kinds"), |shown| {
        shown.keys("/nothing has this name");
    });
}

#[test]
fn help() {
    check("help", &scenario("cycle-three-kinds"), |shown| shown.keys("?"));
}

#[test]
fn opened() {
    check("opened", &scenario("hot"), |shown| {
        shown.key(KeyCode::Enter);
    });
}

/// The detail of the first row of each pane, on the whole screen.
#[test]
fn opened_everywhere() {
    for (scene, picture) in [
        ("opened-self-deadlock", scenario("self-deadlock-mutex")),
        ("opened-cycle", scenario("cycle-three-kinds")),
        ("opened-pile-up", picture(&pile_up())),
        ("opened-cpu-chain", scenario("cpu-chain")),
    ] {
        check(scene, &picture, |shown| {
            shown.key(KeyCode::Enter);
        });
    }
}

#[test]
fn this_run() {
    check("this-run", &scenario("hot"), |shown| shown.keys("i"));
}

#[test]
fn replaying() {
    let mut picture = scenario("self-deadlock-mutex");
    picture.vitals.playback = Some(Playback {
        paused: true,
        percent: 400,
        start: Timestamp(2_000_000_000),
        position: Timestamp(10_400_000_000),
        end: Timestamp(62_000_000_000),
    });
    check("replaying", &picture, |_| {});
}

/// What real kernels did, in every pane: the kernel and every open finding are on the screen, at the size of a serial line, too.
#[test]
fn captures_of_real_kernels() {
    for fixture in FIXTURES {
        let picture = recorded(fixture.name);
        for size in SIZES {
            for pane in Pane::ALL {
                let mut shown = Shown::new(picture.clone(), size);
                shown.keys(&(pane.index() + 1).to_string());
                let text = shown.text();
                assert!(text.contains("-amd64") && text.contains(pane.title()), "{text}");
                for (kind, certainty) in fixture.open.iter().filter(|_| pane == Pane::Findings) {
                    let (kind, certainty) = (kind.to_string(), certainty.to_string());
                    // On a narrow screen the kind is left to the detail below.
                    let wide = size.0 > 100;
                    let row = |line: &str| (!wide || line.contains(&kind)) && line.contains(&certainty);
                    assert!(text.lines().any(row), "{}: {kind}\n{text}", fixture.name);
                }
                shown.key(KeyCode::Enter);
                assert!(!shown.text().is_empty());
            }
        }
    }
}

#[test]
fn ascii_without_colour() {
    let vars = [("NO_COLOR", "1")];
    for name in ["self-deadlock-mutex", "cycle-three-kinds", "hot", "cpu-chain"] {
        for pane in 1..=5 {
            let mut shown = Shown::themed(scenario(name), (100, 30), &vars);
            shown.keys(&pane.to_string());
            assert!(shown.text().is_ascii(), "{}", shown.text());
            let coloured = shown
                .buffer
                .content
                .iter()
                .any(|c| c.fg != ratatui::style::Color::Reset);
            assert!(!coloured);
        }
    }
}

/// The palettes differ in colours only, and only in those that can be read on their background.
#[test]
fn light_and_dark() {
    let palette = |name: &str, colorfgbg: &str, pane: usize| {
        let vars = [("LANG", "C.UTF-8"), ("COLORFGBG", colorfgbg)];
        let mut shown = Shown::themed(scenario(name), (160, 50), &vars);
        shown.keys(&pane.to_string());
        let colours: BTreeSet<String> = shown.buffer.content.iter().map(|c| format!("{:?}", c.fg)).collect();
        (shown.text(), colours)
    };
    let (mut on_dark, mut on_light) = (BTreeSet::new(), BTreeSet::new());
    for name in ["self-deadlock-mutex", "cycle-three-kinds", "hot", "cpu-chain"] {
        for pane in 1..=5 {
            let (dark, light) = (palette(name, "15;0", pane), palette(name, "0;15", pane));
            assert_eq!(dark.0, light.0);
            on_dark.extend(dark.1);
            on_light.extend(light.1);
        }
    }
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(on_dark, set(&["Cyan", "Green", "LightRed", "Reset", "Yellow"]));
    assert_eq!(on_light, set(&["Blue", "Green", "Magenta", "Red", "Reset"]));
}

#[test]
fn a_name_that_is_not_ascii_cannot_reach_an_ascii_terminal() {
    let text = "task a 1 sch\u{f6}n\u{1b}[2J\nlock M mutex\nat 1s\nwait a M owner=a\n";
    let mut shown = Shown::themed(picture(text), (100, 30), &[]);
    shown.keys("4");
    assert!(shown.text().contains("sch?n"), "{}", shown.text());
    assert!(!shown.text().contains('\u{1b}'));
}
