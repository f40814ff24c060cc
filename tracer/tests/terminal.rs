//! The interactive view on a real (pseudo-)terminal: what it draws, and that the terminal is given back on every way out.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "terminal/load.rs"]
mod load;
#[path = "terminal/pty.rs"]
mod pty;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pty::{Pty, SOON};
use rustix::process::{Pid, Signal, kill_process};

/// Tells the process below what to show: `PER_SECOND[,PANIC_AT]`.
const CHILD: &str = "HOLDUP_TEST_VIEW";

/// Not a test by itself: the process that the tests start on their terminals.
#[test]
fn view() {
    let Ok(wanted) = std::env::var(CHILD) else { return };
    let mut numbers = wanted.split(',').map(|n| n.parse().expect("a number"));
    let per_second = numbers.next().expect("a rate");
    load::show(per_second, numbers.next()).expect("the view");
    std::process::exit(0);
}

fn view_command(wanted: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "view", "--nocapture"]).env(CHILD, wanted);
    command
}

fn start(wanted: &str) -> Pty {
    start_command(&mut view_command(wanted))
}

fn start_command(command: &mut Command) -> Pty {
    let pty = Pty::start(command, 24, 80);
    pty.until_text("root-blocker");
    assert!(pty.alternate() && !pty.cooked(), "it has taken the terminal");
    pty
}

fn signal(pty: &Pty, signal: Signal) {
    let pid = Pid::from_child(&pty.child);
    kill_process(pid, signal).expect("the signal");
}

fn given_back(pty: &Pty) {
    assert!(pty.cooked(), "the terminal is not as it was:\n{}", pty.text());
    pty.until("the main screen", |screen| {
        !screen.alternate_screen() && !screen.hide_cursor()
    });
}

#[test]
fn it_draws_answers_resizes_and_leaves() {
    let mut pty = start("1000");
    pty.until_text("1,501 waiting");
    pty.keys("2");
    pty.until_text("1,497 more readers");
    pty.keys("?");
    pty.until_text("any other key closes");
    pty.keys("\x1b");
    pty.resize(40, 120);
    pty.until("more columns", |screen| {
        screen
            .contents()
            .lines()
            .next()
            .is_some_and(|line| line.trim_end().chars().count() > 100)
    });
    pty.keys("q");
    assert!(pty.ended().success());
    given_back(&pty);
}

#[test]
fn a_signal_ends_it_in_good_order() {
    for number in [Signal::TERM, Signal::HUP] {
        let mut pty = start("1000");
        signal(&pty, number);
        assert!(pty.ended().success());
        given_back(&pty);
    }
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    let mut pty = start("1000,8000");
    assert!(!pty.ended().success());
    given_back(&pty);
    pty.until_text("broken on purpose");
}

/// How many events the view's source had sent when it last told.
fn told(tally: &Path) -> u64 {
    let bytes = std::fs::read(tally).expect("the tally");
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// The figure on the page about the run, once that is shown.
fn events_taken_in(page: &str) -> Option<u64> {
    let line = page.lines().find(|l| l.contains("events taken in"))?;
    let figure = line.trim_start().split(' ').next()?;
    figure.replace(',', "").parse().ok()
}

#[test]
fn a_terminal_that_takes_no_bytes_costs_pictures_and_no_events_and_no_exit() {
    let directory = tempfile::tempdir().expect("a directory");
    let tally = directory.path().join("tally");
    let mut pty = start_command(view_command("20000").env(load::TALLY, &tally));
    pty.stall(true);
    let (before, stalled) = (told(&tally), Instant::now());
    // Enough changes of screen to fill the terminal's buffer several times over, and events all the while.
    let mut pictures = 0;
    while pictures < 150 || told(&tally) < before + 50_000 {
        assert!(
            stalled.elapsed() < 3 * SOON,
            "{} events while the terminal was stuck",
            told(&tally) - before
        );
        pty.keys("2x1x");
        pictures += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = told(&tally);
    pty.stall(false);
    pty.keys("i");
    // The first picture may be one that was drawn for the stuck terminal.
    pty.until("all that were sent", |screen| {
        events_taken_in(&screen.contents()).is_some_and(|seen| seen >= sent)
    });
    pty.stall(true);
    for _ in 0..50 {
        pty.keys("2x1x");
    }
    let asked = Instant::now();
    signal(&pty, Signal::TERM);
    assert!(pty.ended().success());
    assert!(asked.elapsed() < SOON / 2);
    assert!(pty.cooked(), "the terminal's modes are given back even so");
}

#[test]
fn a_line_that_does_not_tell_its_size_is_taken_for_80x24() {
    let mut command = view_command("1000");
    let mut pty = Pty::start(&mut command, 0, 0);
    pty.until_text("1,501 waiting");
    pty.keys("q");
    assert!(pty.ended().success());
    given_back(&pty);
}

#[test]
fn being_stopped_and_continued_draws_everything_anew() {
    let mut pty = start("1000");
    signal(&pty, Signal::STOP);
    signal(&pty, Signal::CONT);
    // A shell that ran in between would have left the terminal like this.
    pty.keys("3");
    pty.until_text("mmap_lock");
    // The key may have been answered just before the terminal was taken over again.
    pty.until("the view's own modes", |screen| {
        screen.alternate_screen() && !pty.cooked()
    });
    pty.keys("q");
    assert!(pty.ended().success());
    given_back(&pty);
}

/// A shell with job control on the terminal, as somebody types it.
#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again() {
    let mut shell = Command::new("setsid");
    shell
        .args(["--ctty", "--wait", "bash", "--norc", "--noprofile", "--noediting", "-i"])
        .env("PS1", "shell> ")
        .env(CHILD, "1000");
    let mut pty = Pty::start(&mut shell, 24, 80);
    let prompt = |pty: &Pty| {
        pty.until("the shell", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor() && screen.contents().trim_end().ends_with("shell>")
        });
    };
    prompt(&pty);
    let program = std::env::current_exe().expect("this program");
    pty.keys(&format!("{} --exact view --nocapture\r", program.display()));
    for _ in 0..2 {
        pty.until("the view", |screen| {
            screen.alternate_screen() && screen.contents().contains("root-blocker")
        });
        assert!(!pty.cooked());
        pty.keys("\x1a");
        prompt(&pty);
        pty.until_text("Stopped");
        given_back(&pty);
        // What the shell prints is not drawn over.
        pty.keys("echo be\"\"tween\r");
        pty.until_text("between");
        prompt(&pty);
        pty.keys("clear; fg\r");
    }
    pty.until("the view", |screen| {
        screen.alternate_screen() && screen.contents().contains("root-blocker")
    });
    pty.keys("q");
    prompt(&pty);
    given_back(&pty);
    pty.keys("exit\r");
    assert!(pty.ended().success());
}

#[test]
fn a_capture_is_played_stopped_searched_and_rewound_by_keys() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/mutex-abba-6.1.holdup");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdup"));
    let mut pty = Pty::start(command.arg("replay").arg(capture), 24, 100);
    pty.until_text("holdup · replay");
    let line = |text: &str, what: &str| text.lines().next().is_some_and(|line| line.contains(what));
    let header = |pty: &Pty, what: &str| pty.until(what, |screen| line(&screen.contents(), what));
    // From the beginning to the finding: it stands still there.
    pty.keys("0n");
    header(&pty, "PAUSED");
    pty.until_text("critical proven");
    pty.keys("\r");
    pty.until_text("wait for each other");
    pty.keys("\x1b");
    // Before it, there is no finding.
    pty.keys("0");
    header(&pty, "PAUSED 0.0 s /");
    pty.until_text("1 Findings 0");
    pty.keys("<<<<");
    header(&pty, "PAUSED x0.06 0.0 s /");
    pty.keys(" ");
    header(&pty, "PLAYING x0.06");
    pty.keys(">>>>>");
    header(&pty, "x2.00");
    // Beyond the end is the end.
    pty.keys("]");
    header(&pty, "PAUSED x2.00");
    pty.until_text("1 Findings 1");
    pty.keys("[[[");
    header(&pty, "PAUSED x2.00 0.0 s /");
    pty.until_text("1 Findings 0");
    pty.keys("q");
    assert!(pty.ended().success());
    given_back(&pty);
}
