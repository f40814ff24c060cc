//! What the interactive view costs, and how fast it answers: 1,500 waiting tasks and 50,000 events a second on a real
//! (pseudo-)terminal. `cargo bench --bench view` prints a table; it fails when a limit is exceeded.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

#[path = "../tests/terminal/load.rs"]
mod load;
#[path = "../tests/terminal/pty.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod pty;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use pty::Pty;

const PER_SECOND: u64 = 50_000;
/// Keys pressed.
const KEYS: usize = 60;
/// Most that the view may take of one CPU, in percent.
const MOST_CPU: f64 = 10.0;
/// Longest time from a key to its effect on the screen, for 95 of 100 keys.
const MOST_LATENCY: Duration = Duration::from_millis(100);
/// Pictures a second.
const PICTURES: f64 = 4.0;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--view") {
        load::show(PER_SECOND, None).expect("the view");
        return ExitCode::SUCCESS;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let mut good = true;
    for (rows, columns) in [(24, 80), (50, 160)] {
        let mut pty = Pty::start(command.arg("--view"), rows, columns);
        pty.until_text("1,501 waiting");
        let before = threads(&pty);
        let started = Instant::now();
        let mut latencies: Vec<Duration> = (0..KEYS / 2).flat_map(|n| press(&pty, n)).collect();
        let over = started.elapsed().as_secs_f64();
        let after = threads(&pty);
        latencies.sort();
        let share = |name: &str| (cpu(&after, name) - cpu(&before, name)) / over * 100.0;
        let view = share("holdup-view") + share("holdup-keys");
        let rest: f64 = after.iter().map(|(_, s)| s).sum::<f64>() - before.iter().map(|(_, s)| s).sum::<f64>();
        let reports = report_cost() * PICTURES * 100.0;
        let percentile = |p: usize| {
            latencies
                .get((latencies.len() - 1) * p / 100)
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{columns}x{rows}, {} waiters, {PER_SECOND} events/s: view {view:.1} % + reports {reports:.1} % of a CPU \
             (whole process {:.1} %); key to screen {:.1?} median, {:.1?} p95, {:.1?} longest",
            load::WAITERS,
            rest / over * 100.0,
            percentile(50),
            percentile(95),
            percentile(100),
        );
        good &= view + reports <= MOST_CPU && percentile(95) <= MOST_LATENCY;
        pty.keys("q");
        assert!(pty.ended().success());
        command = Command::new(std::env::current_exe().expect("this program"));
    }
    if good {
        ExitCode::SUCCESS
    } else {
        eprintln!("limits: {MOST_CPU} % of a CPU, {MOST_LATENCY:?} for 95 of 100 keys");
        ExitCode::FAILURE
    }
}

/// Opens the help and closes it again, in varying phase to the pictures.
fn press(pty: &Pty, n: usize) -> [Duration; 2] {
    const HELP: &str = "any other key closes";
    std::thread::sleep(Duration::from_millis(40 + (n as u64 * 37) % 90));
    pty.keys("?");
    let open = pty.until_text(HELP);
    std::thread::sleep(Duration::from_millis(40 + (n as u64 * 53) % 90));
    pty.keys("?");
    let closed = pty.until("the list", |screen| !screen.contents().contains(HELP));
    [open, closed]
}

/// CPU time of each thread so far, in seconds.
fn threads(pty: &Pty) -> Vec<(String, f64)> {
    let tasks = format!("/proc/{}/task", pty.child.id());
    let ticks = 100.0;
    std::fs::read_dir(tasks)
        .expect("its threads")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .map(|stat| {
            let (name, rest) = stat.rsplit_once(") ").expect("stat");
            let fields: Vec<f64> = rest.split(' ').map(|f| f.parse().unwrap_or(0.0)).collect();
            let name = name.split_once('(').map_or("", |(_, name)| name);
            (name.to_owned(), (fields[11] + fields[12]) / ticks)
        })
        .collect()
}

fn cpu(threads: &[(String, f64)], name: &str) -> f64 {
    threads
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, seconds)| seconds)
        .sum()
}

/// Seconds to make one report.
fn report_cost() -> f64 {
    const TIMES: u32 = 20;
    let load = load::Load::new(PER_SECOND, None);
    let started = Instant::now();
    for _ in 0..TIMES {
        std::hint::black_box(tracer::tui::Source::pipeline(&load).report());
    }
    started.elapsed().as_secs_f64() / f64::from(TIMES)
}
