//! The report of one hang: its text in full, and the tree, locks and CPUs that the TUI shows.
//!
//! `UPDATE_SCENARIOS=1 cargo test -p tracer --test report` writes the text anew; read the difference before committing it.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use tracer::diagnosis::Engine;
use tracer::ids::Nanos;
use tracer::model::{Model, Settings};
use tracer::report::{OwnerRow, Report, TreeRoot};
use tracer::source::script::Script;
use tracer::view::text;

fn hang() -> Report {
    report(include_str!("hang.scn"))
}

fn report(script: &str) -> Report {
    let script = Script::parse(script).expect("the scenario parses");
    let mut model = Model::new(Settings::default());
    script.events().for_each(|event| model.apply(event));
    let mut engine = Engine::new();
    engine.update(&model);
    Report::build(&model, &engine)
}

#[test]
fn the_text_of_a_hang() {
    let mut out = Vec::new();
    text::report(&mut out, &hang()).expect("writing to memory");
    let actual = String::from_utf8(out).expect("text is UTF-8");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report/hang.txt");
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        fs::write(&path, &actual).expect("writing the text");
    }
    let expected = fs::read_to_string(&path).expect("the expected text");
    assert_eq!(actual, expected);
}

#[test]
fn trees_start_at_cycles_then_at_roots_with_most_victims() {
    let report = hang();
    let name = |row: usize| report.tasks[row].name.to_string();
    let roots: Vec<String> = report
        .roots
        .iter()
        .map(|root| match root {
            TreeRoot::Cycle { rows, victims } => {
                format!(
                    "cycle {} +{victims}",
                    rows.iter().map(|&r| name(r)).collect::<Vec<_>>().join(" -> ")
                )
            }
            TreeRoot::Task { row, victims } => format!("{} +{victims}", name(*row)),
            TreeRoot::Lock { lock, waiters, victims } => {
                format!(
                    "{lock} {} +{victims}",
                    waiters.iter().map(|&r| name(r)).collect::<Vec<_>>().join(", ")
                )
            }
        })
        .collect();
    assert_eq!(
        roots,
        [
            "cycle lf_ab/0 (100) -> lf_ab/1 (101) +1",
            "holder (110) +2",
            "semaphore lf_sem (0xffff888000001300) sem_waiter (120) +1",
            "spinlock lf_spin (0xffff888000001400) softirq on CPU 3 above below (140) +1",
        ]
    );
    for (row, task) in report.tasks.iter().enumerate() {
        if let Some(by) = task.blocked_by {
            assert!(
                report.tasks[by].blocks.contains(&row),
                "{} is not among those its blocker blocks",
                task.name
            );
        }
        for &blocked in &task.blocks {
            assert_eq!(report.tasks[blocked].blocked_by, Some(row));
        }
    }
}

#[test]
fn locks_cpus_and_coverage() {
    let report = hang();
    let lock = |name: &str| {
        report
            .locks
            .iter()
            .find(|l| l.lock.name.as_deref() == Some(name))
            .expect("the lock is listed")
    };
    let hold = lock("lf_hold");
    assert_eq!((hold.lock.waiters, hold.readers_waiting, hold.waits), (2, 1, 500));
    assert_eq!(
        (hold.total, hold.p50, hold.p99),
        (Nanos::from_millis(500), Some(Nanos(1_000_000)), Some(Nanos(1_000_000)))
    );
    assert!(matches!(&hold.owner, OwnerRow::Task { name } if &*name.comm == "holder"));
    assert!(
        matches!(&lock("lf_sem").owner, OwnerRow::Unrecorded { readers: None, candidates } if candidates.is_empty())
    );
    let cpus: Vec<String> = report
        .cpus
        .iter()
        .map(|c| {
            let spins: Vec<String> = c
                .spins
                .iter()
                .map(|s| format!(", {} spins on {}", s.who, s.lock))
                .collect();
            format!(
                "{}: {}{}",
                c.cpu,
                c.task.as_ref().map_or_else(String::new, ToString::to_string),
                spins.concat()
            )
        })
        .collect();
    assert_eq!(
        cpus,
        [
            "2: holder (110)",
            "3: , softirq on CPU 3 above below (140) spins on spinlock lf_spin (0xffff888000001400)"
        ]
    );
    let coverage = &report.coverage;
    assert_eq!(
        (coverage.waiting, coverage.explained, coverage.unexplained()),
        (9, 7, 2)
    );
    assert_eq!(
        coverage
            .groups
            .iter()
            .map(|g| (g.count, g.site.as_deref()))
            .collect::<Vec<_>>(),
        [(2, Some("odd_fn"))]
    );
}

#[test]
fn who_is_not_among_the_sleepers_of_a_walk_any_more_does_not_wait() {
    let asleep =
        "task a 1 a\nat 10s\nround all-tasks begin 1\nstate a uninterruptible switches=1\nround all-tasks end 1\n";
    let waiting = |script: &str| report(script).coverage.waiting;
    assert_eq!(waiting(asleep), 1);
    let begun = format!("{asleep}at 10.5s\nround all-tasks begin 2\n");
    assert_eq!(waiting(&begun), 1, "not yet known");
    assert_eq!(waiting(&format!("{begun}round all-tasks end 2\n")), 0);
}
