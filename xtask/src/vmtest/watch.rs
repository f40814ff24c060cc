//! Watched locks: every acquisition and release of a spinlock under a storm, and a deadlock that is proven because the acquisition
//! was seen.

use super::spin::{TIMER, judge_watched};
use super::{GuestRun, VmTest, WITHOUT_RT};
use crate::vm::console::Marker::{HardLockup, HungTask, RcuStall, SoftLockup, WorkqueueLockup};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "storm",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(180));
            steps.shell("storm", STORM);
            steps.truth("truth");
            steps.shell(
                "events",
                "holdup export /out/storm --format jsonl | grep -E '\"(Watch|WaitEnd)\"'",
            );
            steps.holdup("report", &["report", "/out/storm", "--json"]);
        },
        check: storm,
    },
    // The last one: its CPU stays stuck.
    VmTest {
        name: "proven",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[SoftLockup, WorkqueueLockup, HardLockup, RcuStall, HungTask],
        steps: |steps| {
            steps.limit(Duration::from_secs(120));
            steps.shell("live", DEADLOCK);
            steps.established("softirq-aa-timer");
            steps.truth("truth");
        },
        check: |run| judge_watched(run, &TIMER),
    },
];

/// Records a storm on one spinlock, of which nothing but its address is known before.
const STORM: &str = "lock=$(awk '$2 == \"heap.contend.spinlock\" {print $3}' /proc/lockfault)
holdup record --watch spinlock:$lock -o /out/storm 2> /tmp/said &
until grep -qs '^holdup: attached' /tmp/said; do sleep 0.1; kill -0 $! || { cat /tmp/said >&2; exit 1; }; done
echo 'contend-spinlock ms=300' > /proc/lockfault
until grep -q 'state contend-spinlock done' /proc/lockfault; do sleep 0.1; done
kill -TERM $!
wait $!
code=$?
cat /tmp/said >&2
exit $code";

const DEADLOCK: &str = "lock=$(awk '$2 == \"heap.softirq_timer.lock\" {print $3}' /proc/lockfault)
rm -f /tmp/said
holdup live --json --duration 10 --watch spinlock:$lock 2> /tmp/said &
until grep -qs '^holdup: attached' /tmp/said; do sleep 0.1; kill -0 $! || { cat /tmp/said >&2; exit 1; }; done
echo softirq-aa-timer > /proc/lockfault
wait $!
code=$?
cat /tmp/said >&2
exit $code";

/// One hold: who, from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    tid: u64,
    from: u64,
    to: u64,
}

fn storm(run: &GuestRun) -> Result<()> {
    run.output("storm")?.exited_with(0)?;
    let said = run.output("storm")?.stderr().into_owned();
    let cost = said
        .lines()
        .find_map(|line| line.strip_prefix("holdup: watching costs "))
        .with_context(|| format!("what it costs is not told: {said}"))?;
    let number = |text: &str| text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    ensure!(number(cost) > 0, "no cost: {cost}");
    let measured = cost.split_once('(').map_or(0, |(_, rest)| number(rest));
    ensure!(measured > 0, "nothing was measured: {cost}");
    let truth = run.truth("truth")?;
    let lock = format!("{:#x}", truth.lock("heap.contend.spinlock")?);
    let storms = truth.tasks("contend-spinlock", "storm");
    let events = run.output("events")?;
    events.exited_with(0)?;
    let (holds, waits) = history(&events.stdout(), &lock)?;
    ensure!(holds.len() > 100, "a storm of {} holds", holds.len());
    for tid in &storms {
        ensure!(
            holds.iter().any(|hold| hold.tid == u64::from(*tid)),
            "{tid} took part and never held it"
        );
    }
    for role in ["holder", "pending", "waiter"] {
        for tid in truth.tasks("contend-spinlock", role) {
            let own = holds.iter().filter(|hold| hold.tid == u64::from(tid)).count();
            ensure!(own == 1, "{role} {tid} held it {own} times, not once");
        }
    }
    consistent(&holds, &waits)?;
    let report: Value = serde_json::from_str(&run.output("report")?.stdout()).context("no report")?;
    // An interrupt may come while a program handles another lock, and the kernel skips what it takes then. Of this lock nothing can
    // be missing: the history is whole.
    let lost = report["losses"].as_array().context("no losses in the report")?;
    ensure!(
        lost.iter().all(|loss| loss["cause"] == "program-skipped"),
        "losses: {}",
        report["losses"]
    );
    let [row] = report["watched"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        bail!("not one watched lock: {}", report["watched"]);
    };
    let total: u64 = holds.iter().map(|hold| hold.to - hold.from).sum();
    let longest = holds.iter().map(|hold| hold.to - hold.from).max();
    for (field, expected) in [
        ("acquisitions", holds.len() as u64),
        ("holds", holds.len() as u64),
        ("unmatched", 0),
        ("held_total_ns", total),
    ] {
        ensure!(row[field] == expected, "{field} is {}, not {expected}", row[field]);
    }
    ensure!(
        row["longest"]["held_ns"].as_u64() == longest,
        "{} is not the longest hold",
        row["longest"]
    );
    let site = row["longest"]["site"].as_str().unwrap_or_default();
    ensure!(site.starts_with("lockfault_"), "the longest holder took it at {site:?}");
    Ok(())
}

/// A wait that ended: who, and when.
type Ended = (u64, u64);

/// The holds of a lock, from first to last, and the waits for it that ended.
fn history(events: &str, lock: &str) -> Result<(Vec<Hold>, Vec<Ended>)> {
    let mut acts: Vec<(u64, u64, String, u64)> = Vec::new();
    let mut waits = Vec::new();
    for (number, line) in events.lines().enumerate() {
        let event: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let time = event["time"].as_u64().context("an event without a time")?;
        let watched = &event["body"]["Watch"];
        if watched["lock"] == lock {
            let tid = watched["by"]["Task"]["tid"]
                .as_u64()
                .with_context(|| format!("not by a thread: {line}"))?;
            let act = watched["act"].as_str().unwrap_or_default().to_owned();
            acts.push((time, number as u64, act, tid));
        }
        let end = &event["body"]["WaitEnd"];
        if end["lock"] == lock {
            let tid = end["waiter"]["Task"]["tid"]
                .as_u64()
                .with_context(|| format!("not by a thread: {line}"))?;
            waits.push((tid, time));
        }
    }
    acts.sort();
    let mut holds = Vec::new();
    let mut held: Option<(u64, u64)> = None;
    for (time, _, act, tid) in acts {
        held = match (act.as_str(), held) {
            ("acquired", None) => Some((tid, time)),
            ("released", Some((holder, from))) if holder == tid => {
                holds.push(Hold { tid, from, to: time });
                None
            }
            (act, held) => bail!("{tid} has {act} it at {time}, when {held:?} held it"),
        };
    }
    ensure!(held.is_none(), "{held:?} never released it");
    Ok((holds, waits))
}

/// Whether every wait fits the holds: it ended while nobody else had the lock, and who waited then held it.
fn consistent(holds: &[Hold], waits: &[Ended]) -> Result<()> {
    ensure!(!waits.is_empty(), "a storm without a wait");
    let by_begin: BTreeMap<u64, Hold> = holds.iter().map(|&hold| (hold.from, hold)).collect();
    for &(tid, end) in waits {
        if let Some((_, before)) = by_begin.range(..end).next_back() {
            ensure!(before.to <= end, "{tid} got it at {end}, in the middle of {before:?}");
        }
        let after = by_begin.range(end..).next();
        ensure!(
            after.is_some_and(|(_, hold)| hold.tid == tid),
            "{tid} got it at {end}, and the next to hold it is {after:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: u64, body: &str) -> String {
        format!("{{\"time\":{time},\"body\":{body}}}\n")
    }

    fn act(time: u64, act: &str, tid: u32) -> String {
        line(
            time,
            &format!("{{\"Watch\":{{\"lock\":\"0x10\",\"act\":\"{act}\",\"by\":{{\"Task\":{{\"tid\":{tid}}}}}}}}}"),
        )
    }

    #[test]
    fn a_history_that_contradicts_itself_is_refused() {
        let whole =
            act(10, "acquired", 1) + &act(20, "released", 1) + &act(30, "acquired", 2) + &act(40, "released", 2);
        let (holds, _) = history(&whole, "0x10").unwrap();
        assert_eq!(holds.len(), 2);
        assert!(history(&whole, "0x20").unwrap().0.is_empty());
        let twice = act(10, "acquired", 1) + &act(20, "acquired", 2);
        assert!(history(&twice, "0x10").is_err());
        let another = act(10, "acquired", 1) + &act(20, "released", 2);
        assert!(history(&another, "0x10").is_err());
        assert!(history(&act(10, "acquired", 1), "0x10").is_err());
        assert!(consistent(&holds, &[(2, 25)]).is_ok());
        assert!(consistent(&holds, &[(2, 15)]).is_err(), "in the middle of a hold");
        assert!(consistent(&holds, &[(1, 25)]).is_err(), "another one holds it next");
        assert!(consistent(&holds, &[]).is_err());
    }
}
