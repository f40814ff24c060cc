//! What the kernel's own watchers know of CPUs that neither schedule nor tick, after a CPU has died with its interrupts off and others
//! spin with preemption off: in snapshots, and in what a recording keeps. It shares a boot with the tests of that CPU.

use super::findings::FINDINGS;
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

pub const TESTS: &[VmTest] = &[VmTest {
    name: "stalls",
    kernels: WITHOUT_RT,
    group: "dead-lock-word",
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(120));
        // The kernel itself tells of what it waits for after 21 s. The watchdog runs every few seconds: only after some of them is it late.
        let told = format!(
            "now() {{ cut -d. -f1 /proc/uptime; }}; end=$(($(now) + {TOLD_WITHIN_S}))
             until dmesg | grep -q 'rcu:[[:space:]]*[0-9]*-'; do [ $(now) -lt $end ] || exit 1; sleep 0.3; done
             until holdup snapshot --json > /tmp/stalls.json 2>&1; [ $(grep -o '\"watchdog_silent_ns\":[0-9]' /tmp/stalls.json | wc -l) = 3 ]
             do [ $(now) -lt $end ] || exit 1; sleep 0.3; done"
        );
        steps.shell("told", &told);
        steps.shell("rcu", "dmesg | grep 'rcu:'");
        steps.shell("snapshot", "grep '^{' /tmp/stalls.json");
        let file = "/tmp/stalls.holdup";
        steps.holdup("record", &["record", "-o", file, "--duration", "3", "--json"]);
        steps.holdup("report", &["report", file, "--json"]);
        steps.holdup("text", &["report", file]);
        steps.shell(
            "instants",
            &format!("cat {BEFORE_IT_DIED} {AFTER_IT_DIED} /proc/uptime"),
        );
    },
    check,
}];

/// For everything to be told, on a loaded machine.
const TOLD_WITHIN_S: u32 = 90;
const BEFORE_IT_DIED: &str = "/tmp/before-it-died";
const AFTER_IT_DIED: &str = "/tmp/after-it-died";
/// KERNEL: with the default threshold of 10 s the softlockup watchdog runs every 4 s, by a timer of each CPU (kernel/watchdog.c): no CPU's
/// next timer is later than that.
const WATCHDOG_PERIOD: u64 = 4_000_000_000;
/// Two units of the watchdog's timestamps.
const ROUNDED: u64 = 2 << 30;

/// KERNEL: a grace period that lasts longer is told on the console (CONFIG_RCU_CPU_STALL_TIMEOUT of these kernels): there was none.
const RCU_STALL: u64 = 21_000_000_000;
/// From this age on a grace period is told as held up.
const LATE: u64 = 1_000_000_000;

/// Notes the time just before the CPU dies; to be taken by the test that triggers it.
pub fn before_it_dies(steps: &mut Steps) {
    steps.shell("before-it-died", &format!("cat /proc/uptime > {BEFORE_IT_DIED}"));
}

/// Notes the time when it is dead.
pub fn when_it_is_dead(steps: &mut Steps) {
    steps.shell("after-it-died", &format!("cat /proc/uptime > {AFTER_IT_DIED}"));
}

/// The CPUs that have a sign, in order.
pub fn with(sign: &str, report: &Value) -> Vec<u64> {
    let rows = report["cpus"].as_array().into_iter().flatten();
    rows.filter(|row| !row["stall"][sign].is_null())
        .filter_map(|row| row["cpu"].as_u64())
        .collect()
}

/// The CPUs for which RCU waits, as the kernel has told on the console, once or more often.
fn told_by_rcu(console: &str) -> Vec<u64> {
    let cpu = |line: &str| line.split_once("rcu:")?.1.trim().split_once('-')?.0.parse().ok();
    let cpus: BTreeSet<u64> = console.lines().filter_map(cpu).collect();
    cpus.into_iter().collect()
}

fn check(run: &GuestRun) -> Result<()> {
    let instants = run.output("instants")?.stdout().into_owned();
    let instants: Vec<u64> = instants.lines().filter_map(uptime).collect();
    let &[before, dead, end] = instants.as_slice() else {
        anyhow::bail!("instead of three times: {instants:?}");
    };
    // Each of them may have let pass the grace period that began just before it was lost; what is held up once stays so.
    let snapshot: Value = serde_json::from_str(run.output("snapshot")?.stdout().trim())?;
    let held_up = with("grace_period_ns", &snapshot);
    let rcu = run.output("rcu")?.stdout();
    let known = told_by_rcu(&rcu);
    // KERNEL: a CPU that finds out itself names only itself (`print_cpu_stall`, kernel/rcu/tree_stall.h).
    let only_one = rcu.contains("self-detected stall");
    let agreed = if only_one {
        known.iter().all(|cpu| held_up.contains(cpu))
    } else {
        known == held_up
    };
    ensure!(
        agreed && !known.is_empty() && !held_up.contains(&0),
        "RCU waits for the CPUs {held_up:?}, the kernel says {known:?}\n{rcu}{}",
        run.output("snapshot")?.shown()
    );
    let mut due = Vec::new();
    for label in ["snapshot", "report"] {
        let output = run.output(label)?;
        let report: Value = serde_json::from_str(output.stdout().trim()).with_context(|| output.shown())?;
        // CPU 1 has its interrupts off; CPUs 2 and 3 spin with preemption off.
        for (sign, expected) in [
            ("timer_overdue_ns", vec![1]),
            ("watchdog_silent_ns", vec![1, 2, 3]),
            ("grace_period_ns", held_up.clone()),
        ] {
            let found = with(sign, &report);
            ensure!(
                found == expected,
                "{label}: CPUs with {sign}: {found:?} instead of {expected:?}\n{}",
                output.shown()
            );
        }
        let now = report["time_ns"].as_u64().context("a report without time")?;
        for row in report["cpus"].as_array().into_iter().flatten() {
            let since = |field: &str| row["stall"][field].as_u64().map(|ago| now.saturating_sub(ago));
            let within = |field: &str, from: u64, to: u64| {
                let Some(at) = since(field) else { return Ok(()) };
                ensure!(
                    (from..=to).contains(&at),
                    "{label}: CPU {} has {field} since {at}, which is not within {from} and {to}\n{}",
                    row["cpu"],
                    output.shown()
                );
                Ok(())
            };
            within("timer_overdue_ns", before, dead + WATCHDOG_PERIOD)?;
            // A lower bound of the age: it may have run earlier, up to a period before the CPU died.
            within(
                "watchdog_silent_ns",
                before.saturating_sub(WATCHDOG_PERIOD + ROUNDED),
                end,
            )?;
            // It may have begun before the CPU died, and the clock that tells its age may have stood still.
            within("grace_period_ns", before.saturating_sub(RCU_STALL), end - LATE)?;
            due.extend(since("timer_overdue_ns"));
        }
    }
    ensure!(
        matches!(due.as_slice(), [read, kept] if read == kept),
        "the timer was due at different times: {due:?}"
    );
    let text = run.output("text")?;
    text.exited_with(FINDINGS)?;
    for says in [
        "by the kernel's own watchers CPU 1 has not taken a timer interrupt that has been due for ",
        "by the kernel's own watchers CPU 2 has not run the softlockup watchdog for at least ",
        "; holds up an RCU grace period that began at least ",
    ] {
        text.stdout_has(says)?;
    }
    Ok(())
}

/// Nanoseconds since boot, of a line of `/proc/uptime`.
fn uptime(line: &str) -> Option<u64> {
    let (seconds, hundredths) = line.split_ascii_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + hundredths.parse::<u64>().ok()? * 10_000_000)
}
