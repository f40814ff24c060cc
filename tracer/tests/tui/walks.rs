//! From a finding to the stack behind it and back, by keys and by mouse.

use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;
use tracer::ids::Timestamp;
use tracer::tui::feed::Request;
use tracer::tui::state::Effect;
use tracer::tui::{Control, Playback};

use super::scene::{READERS, Shown, picture, pile_up};
use super::screens::scenario;

const SMALL: (u16, u16) = (80, 24);

fn has(shown: &Shown, text: &str) {
    assert!(
        shown.text().contains(text),
        "{text:?} is not on the screen:\n{}",
        shown.text()
    );
}

#[test]
fn from_the_finding_to_the_stack_and_back() {
    let mut shown = Shown::new(scenario("self-deadlock-mutex"), SMALL);
    let start = (shown.text(), shown.styles());
    shown.key(KeyCode::Enter);
    // The first link of the finding is the chain's first waiter.
    while !shown.selected().contains("waits 600 ms for mutex lf_aa <-") {
        let before = shown.selected();
        shown.key(KeyCode::Down);
        assert_ne!(shown.selected(), before, "the link was not found");
    }
    let finding = (shown.text(), shown.styles());
    shown.key(KeyCode::Enter);
    has(&shown, "── kworker/1:2 (215) ──");
    has(&shown, "lf_aa_inner+0x10");
    has(&shown, "4 Tasks");
    shown.key(KeyCode::Esc);
    assert_eq!((shown.text(), shown.styles()), finding);
    shown.key(KeyCode::Esc);
    assert_eq!((shown.text(), shown.styles()), start);
}

#[test]
fn onward_along_the_chain_and_back() {
    let mut shown = Shown::new(scenario("root-blocker-behind"), SMALL);
    let mut screens = Vec::new();
    for title in [
        "── victim (52) ──",
        "── rw_semaphore",
        "── waiter (51) ──",
        "── mutex lf_hold",
        "── holder (50) ──",
    ] {
        if screens.is_empty() {
            shown.keys("4G");
            assert!(shown.selected().contains("victim"), "{}", shown.text());
            shown.key(KeyCode::Enter);
        } else {
            shown.keys("o");
        }
        has(&shown, title);
        screens.push(shown.text());
    }
    shown.keys("o");
    has(&shown, "the chain ends here");
    // The message goes with the next key.
    screens.pop();
    while let Some(screen) = screens.pop() {
        shown.key(KeyCode::Backspace);
        assert_eq!(shown.text(), screen);
    }
}

#[test]
fn keys_typed_faster_than_the_screen_is_drawn_do_the_same() {
    let keys = [
        KeyCode::Enter,
        KeyCode::Down,
        KeyCode::Down,
        KeyCode::Down,
        KeyCode::Enter,
    ];
    let mut slow = Shown::new(scenario("self-deadlock-mutex"), SMALL);
    let mut fast = Shown::new(scenario("self-deadlock-mutex"), SMALL);
    for key in keys {
        slow.key(key);
        fast.ui.input(&Event::Key(KeyEvent::new(key, KeyModifiers::NONE)));
    }
    fast.draw();
    assert_eq!(slow.text(), fast.text());
}

#[test]
fn esc_and_a_key_that_arrive_together_are_both_taken() {
    let mut apart = Shown::new(scenario("self-deadlock-mutex"), SMALL);
    let mut together = Shown::new(scenario("self-deadlock-mutex"), SMALL);
    for shown in [&mut apart, &mut together] {
        shown.key(KeyCode::Enter);
        has(shown, "what to do next");
    }
    apart.key(KeyCode::Esc);
    apart.keys("4");
    together.input(&Event::Key(KeyEvent::new(KeyCode::Char('4'), KeyModifiers::ALT)));
    assert_eq!(together.text(), apart.text());
    let quit = together.input(&Event::Key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT)));
    assert_eq!(quit, Effect::Quit);
}

#[test]
fn folded_readers_unfold_and_fold() {
    let mut shown = Shown::new(picture(&pile_up()), SMALL);
    shown.keys("2");
    has(
        &shown,
        "more (1,497 readers)".replace("(1,497 readers)", "readers").as_str(),
    );
    let folded = shown.text();
    shown.keys("x");
    shown.keys("G");
    has(&shown, &format!("ps-{} (", READERS - 1));
    shown.keys("g");
    shown.keys("x");
    assert_eq!(shown.text(), folded);
}

#[test]
fn the_selection_stays_on_its_task_when_rows_come_and_go() {
    let mut shown = Shown::new(picture(&pile_up()), SMALL);
    shown.keys("4jjjjj");
    let before = shown.selected();
    shown.ui.show(picture(&pile_up().replace("wait r0 S", "wait r1 S")));
    shown.draw();
    let who = |row: &str| row.split(')').next().map(str::to_owned);
    assert_eq!(who(&shown.selected()), who(&before));
}

#[test]
fn sorting_goes_through_the_columns_and_back() {
    let mut shown = Shown::new(scenario("hot"), (160, 50));
    shown.keys("3");
    let order = |shown: &Shown| -> Vec<usize> {
        let text = shown.text();
        let lines: Vec<&str> = text.lines().collect();
        ["hot_mutex  ", "inode.i_rwsem  ", "tasklist_lock  "]
            .map(|name| lines.iter().position(|l| l.starts_with(name)).expect("a row"))
            .to_vec()
    };
    let as_reported = order(&shown);
    assert_eq!(as_reported, [4, 5, 6]);
    // By name, then backwards.
    shown.keys("s");
    has(&shown, "lock▼");
    assert_eq!(order(&shown), [4, 5, 6]);
    shown.keys("r");
    has(&shown, "lock▲");
    assert_eq!(order(&shown), [6, 5, 4]);
    for _ in 0..10 {
        shown.keys("s");
    }
    shown.keys("s");
    assert_eq!(order(&shown), as_reported);
}

#[test]
fn pause_freezes_the_picture_and_tells_the_data_side() {
    let mut shown = Shown::new(scenario("cycle-three-kinds"), SMALL);
    assert_eq!(shown.key(KeyCode::Char(' ')), Effect::Ask(Request::Freeze(true)));
    has(&shown, "PAUSED at 10.200");
    shown.ui.show(scenario("self-deadlock-mutex"));
    shown.draw();
    has(&shown, "cycle");
    assert_eq!(shown.key(KeyCode::Char('p')), Effect::Ask(Request::Freeze(false)));
    has(&shown, "self-deadlock");
    assert!(!shown.text().contains("cycle"), "{}", shown.text());
}

#[test]
fn a_recording_is_asked_to_move_and_a_running_kernel_is_not() {
    let mut picture = scenario("self-deadlock-mutex");
    let mut shown = Shown::new(picture.clone(), SMALL);
    assert_eq!(shown.key(KeyCode::Char('n')), Effect::Redraw);
    has(&shown, "the running kernel cannot be moved");
    picture.vitals.playback = Some(Playback {
        paused: false,
        percent: 100,
        start: Timestamp(0),
        position: Timestamp(5),
        end: Timestamp(9),
    });
    shown.ui.show(picture);
    for (key, control) in [
        ('n', Control::StepToFinding),
        (' ', Control::TogglePause),
        (']', Control::SeekBy(10)),
        ('[', Control::SeekBy(-10)),
        ('>', Control::Faster),
        ('<', Control::Slower),
        ('0', Control::Rewind),
    ] {
        assert_eq!(shown.key(KeyCode::Char(key)), Effect::Ask(Request::Control(control)));
    }
}

#[test]
fn a_filter_can_be_typed_corrected_and_given_up() {
    let mut shown = Shown::new(picture(&pile_up()), SMALL);
    shown.keys("4/ps-77x");
    shown.key(KeyCode::Backspace);
    has(&shown, "ps-77 (5077)");
    has(&shown, "filter: ps-77");
    shown.key(KeyCode::Enter);
    has(&shown, "(11 of 1,501)");
    // Esc gives the change up, not the filter.
    shown.keys("/0");
    shown.key(KeyCode::Esc);
    has(&shown, "(11 of 1,501)");
    // In the list, it takes the filter away.
    shown.key(KeyCode::Esc);
    assert!(!shown.text().contains("filter: "), "{}", shown.text());
}

#[test]
fn a_followed_finding_stays_in_sight_until_it_is_over() {
    let mut shown = Shown::new(scenario("self-deadlock-mutex"), SMALL);
    shown.keys("f3");
    has(&shown, "◆ self-deadlock 600 ms");
    shown
        .ui
        .show(picture("at 20s\nround pending begin 1\nround pending end 1"));
    shown.draw();
    has(&shown, "◆ gone");
    shown.keys("1f");
    assert!(!shown.text().contains('◆'), "{}", shown.text());
}

#[test]
fn the_report_is_saved_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["report.txt", "report.json"] {
        let path = folder.path().join(name);
        let mut shown = Shown::new(scenario("self-deadlock-mutex"), (160, 50));
        for wanted in ["saved to", "is there already"] {
            shown.keys("w");
            has(&shown, "save as (.json or text): holdup-web17-10.txt");
            let clear = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
            shown.input(&Event::Key(clear));
            shown.keys(path.to_str().expect("a path in UTF-8"));
            shown.key(KeyCode::Enter);
            has(&shown, wanted);
        }
        let saved = std::fs::read_to_string(&path).expect("the file");
        if name.ends_with(".json") {
            let json: serde_json::Value = serde_json::from_str(&saved).expect("JSON");
            assert_eq!(json["findings"][0]["kind"], "self-deadlock");
        } else {
            assert!(saved.contains("kworker/1:2 (215) waits for mutex lf_aa"), "{saved}");
        }
    }
}

#[test]
fn a_snapshot_is_asked_for_and_a_recording_has_none() {
    let mut picture = scenario("self-deadlock-mutex");
    let mut shown = Shown::new(picture.clone(), (160, 50));
    shown.keys("W");
    has(&shown, "snapshot as (.json or text): holdup-snapshot-web17-10.txt");
    let effect = shown.key(KeyCode::Enter);
    assert_eq!(
        effect,
        Effect::Ask(Request::Snapshot("holdup-snapshot-web17-10.txt".to_owned()))
    );
    has(&shown, "looking at every thread");
    shown.ui.told(Ok("snapshot saved to x".to_owned()));
    shown.draw();
    has(&shown, "snapshot saved to x");
    shown.ui.told(Err("no snapshot: x is there already".to_owned()));
    shown.draw();
    has(&shown, "no snapshot: x is there already");
    picture.vitals.playback = Some(Playback {
        paused: true,
        percent: 100,
        start: Timestamp(0),
        position: Timestamp(5),
        end: Timestamp(9),
    });
    shown.ui.show(picture);
    assert_eq!(shown.key(KeyCode::Char('W')), Effect::Redraw);
    has(&shown, "a recording has no machine that could be looked at");
}

fn mouse(kind: MouseEventKind, column: u16, row: u16) -> Event {
    Event::Mouse(MouseEvent {
        kind,
        column,
        row,
        modifiers: KeyModifiers::NONE,
    })
}

#[test]
fn the_mouse_chooses_panes_and_rows_opens_and_scrolls() {
    let click = |x, y| mouse(MouseEventKind::Down(MouseButton::Left), x, y);
    let mut shown = Shown::new(scenario("cycle-three-kinds"), SMALL);
    let tasks = shown
        .text()
        .lines()
        .nth(2)
        .and_then(|l| l.find("4 Tasks"))
        .expect("the tab");
    shown.input(&click(u16::try_from(tasks).expect("a column"), 2));
    has(&shown, "waits for");
    shown.input(&click(5, 5));
    assert!(shown.selected().starts_with("lf/1 (101)"), "{}", shown.text());
    shown.input(&click(5, 5));
    has(&shown, "── lf/1 (101) ──");
    assert_eq!(shown.input(&click(0, 23)), Effect::Nothing);
    let top = shown.text();
    shown.input(&mouse(MouseEventKind::ScrollDown, 10, 10));
    shown.input(&mouse(MouseEventKind::ScrollUp, 10, 10));
    assert_eq!(shown.text(), top);
}

#[test]
fn leaving_and_suspending_are_told_and_done_elsewhere() {
    let mut shown = Shown::new(scenario("cycle-three-kinds"), SMALL);
    let ctrl = |c| Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    assert_eq!(shown.input(&ctrl('z')), Effect::Suspend);
    assert_eq!(shown.input(&ctrl('l')), Effect::Repaint);
    assert_eq!(shown.key(KeyCode::Char('q')), Effect::Quit);
    assert_eq!(shown.input(&ctrl('c')), Effect::Quit);
    // In a prompt, letters are letters.
    shown.keys("/");
    assert_ne!(shown.key(KeyCode::Char('q')), Effect::Quit);
    // In the help, q only closes it.
    shown.key(KeyCode::Esc);
    shown.keys("?");
    assert_eq!(shown.key(KeyCode::Char('q')), Effect::Redraw);
    assert!(!shown.text().contains("any other key closes"));
}

fn any_key() -> impl Strategy<Value = KeyCode> {
    prop_oneof![
        8 => proptest::char::range(' ', '~').prop_map(KeyCode::Char),
        2 => prop_oneof![Just(KeyCode::Enter), Just(KeyCode::Esc), Just(KeyCode::Tab), Just(KeyCode::BackTab)],
        2 => prop_oneof![Just(KeyCode::Down), Just(KeyCode::Up), Just(KeyCode::PageDown), Just(KeyCode::End)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is typed, at whatever size, with whatever appearing and vanishing in between.
    #[test]
    fn no_key_at_no_size_breaks_it(
        steps in proptest::collection::vec((any_key(), 0_u16..120, 0_u16..40, 0_usize..4, any::<(u8, u8)>()), 1..60)
    ) {
        let names = ["self-deadlock-mutex", "cycle-three-kinds", "hot", "cpu-chain"];
        let pictures = names.map(scenario);
        let mut shown = Shown::new(pictures[0].clone(), SMALL);
        for (key, width, height, which, (x, y)) in steps {
            // Saving is the one thing that reaches outside.
            if key != KeyCode::Char('w') {
                shown.key(key);
            }
            shown.ui.show(pictures[which].clone());
            shown.input(&mouse(MouseEventKind::Down(MouseButton::Left), x.into(), y.into()));
            shown.buffer = Buffer::empty(Rect::new(0, 0, width, height));
            shown.draw();
        }
    }
}
