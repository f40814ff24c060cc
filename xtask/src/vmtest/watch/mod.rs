//! Watched locks: every acquisition and release under a storm, of all four kinds, compared with what the fault module has counted; and
//! deadlocks that are proven because the acquisition was seen.

mod history;
mod holders;

use self::history::{History, history};
use super::spin::{TIMER, judge_watched};
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use crate::vm::console::Marker::{HardLockup, HungTask, RcuStall, SoftLockup, WorkqueueLockup};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// A storm on one lock.
struct Storm {
    scenario: &'static str,
    kind: &'static str,
    lock: &'static str,
    /// Begin of the names of the module's functions that take it and give it back.
    functions: &'static str,
    /// Whether several can have it for reading.
    shared: bool,
}

const SPINLOCK: Storm = Storm {
    scenario: "contend-spinlock",
    kind: "spinlock",
    lock: "heap.contend.spinlock",
    functions: "lockfault_contend_spinlock_",
    shared: false,
};
const RWLOCK: Storm = Storm {
    scenario: "contend-rwlock",
    kind: "rwlock",
    lock: "lockfault_contend_rwl",
    functions: "lockfault_contend_rwlock_",
    shared: true,
};
const MUTEX: Storm = Storm {
    scenario: "contend-mutex",
    kind: "mutex",
    lock: "lockfault_contend_mutex_lock",
    functions: "lockfault_contend_mutex_",
    shared: false,
};
const RWSEM: Storm = Storm {
    scenario: "contend-rwsem",
    kind: "rwsem",
    lock: "heap.contend.rwsem",
    functions: "lockfault_contend_rwsem_",
    shared: true,
};

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "storm",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[],
        steps: |steps| SPINLOCK.steps(steps),
        check: |run| SPINLOCK.judge(run),
    },
    VmTest {
        name: "storm-rwlock",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[],
        steps: |steps| RWLOCK.steps(steps),
        check: |run| RWLOCK.judge(run),
    },
    VmTest {
        name: "storm-mutex",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[],
        steps: |steps| MUTEX.steps(steps),
        check: |run| MUTEX.judge(run),
    },
    VmTest {
        name: "storm-rwsem",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[],
        steps: |steps| RWSEM.steps(steps),
        check: |run| RWSEM.judge(run),
    },
    VmTest {
        name: "holders",
        kernels: WITHOUT_RT,
        group: "watch",
        expects: &[],
        steps: holders::steps,
        check: holders::judge,
    },
    // Where spinlocks sleep: what would see nothing is said or refused.
    VmTest {
        name: "watch",
        kernels: &["6.12-rt"],
        group: "base",
        expects: &[HungTask],
        steps: |steps| {
            for kind in ["spinlock", "rwlock"] {
                let lock = format!("{kind}:0xffffffff81000000");
                steps.holdup(kind, &["live", "--text", "--duration", "1", "--watch", &lock]);
            }
        },
        check: |run| {
            let raw = run.output("spinlock")?;
            raw.stderr_has("on PREEMPT_RT only a raw_spinlock_t can be watched as a spinlock")?;
            raw.stderr_has("holdup: watching costs ")?;
            let refused = run.output("rwlock")?;
            refused.exited_with(1)?;
            refused.stderr_has("no function of the watched locks could be traced")
        },
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

/// Records a storm on one lock, of which nothing but its address is known before.
const STORM: &str = "lock=$(awk '$2 == \"LOCK\" {print $3}' /proc/lockfault)
rm -f /tmp/said
holdup record --watch KIND:$lock -o /out/KIND 2> /tmp/said &
until grep -qs '^holdup: attached' /tmp/said; do sleep 0.1; kill -0 $! || { cat /tmp/said >&2; exit 1; }; done
echo 'SCENARIO rounds=300 otherwise=1' > /proc/lockfault
until grep -qE 'state SCENARIO (done|failed)' /proc/lockfault; do sleep 0.1; done
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

impl Storm {
    fn steps(&self, steps: &mut Steps) {
        let Self {
            scenario, kind, lock, ..
        } = self;
        steps.limit(Duration::from_secs(180));
        let filled = STORM.replace("LOCK", lock).replace("KIND", kind);
        steps.shell("storm", &filled.replace("SCENARIO", scenario));
        steps.truth("truth");
        let events = "grep -E '\"(Watch|WaitEnd|Stack|Symbol)\"'";
        steps.shell(
            "events",
            &format!("holdup export /out/{kind} --format jsonl | {events}"),
        );
        steps.holdup("report", &["report", &format!("/out/{kind}"), "--json"]);
    }

    fn judge(&self, run: &GuestRun) -> Result<()> {
        run.output("storm")?.exited_with(0)?;
        cost_is_told(&run.output("storm")?.stderr())?;
        let truth = run.truth("truth")?;
        ensure!(truth.state(self.scenario)? == "done", "the storm did not end well");
        let lock = format!("{:#x}", truth.lock(self.lock)?);
        let events = run.output("events")?;
        events.exited_with(0)?;
        let history = history(&events.stdout(), &lock)?;
        let counted: BTreeMap<u64, (u64, u64)> = truth
            .took(self.scenario)
            .map(|took| (u64::from(took.pid), (took.shared, took.exclusive)))
            .collect();
        let storms = truth.tasks(self.scenario, "storm");
        ensure!(
            storms.len() == 4 && storms.iter().all(|tid| counted.contains_key(&u64::from(*tid))),
            "not every one of {storms:?} took part: {counted:?}"
        );
        ensure!(
            history.counts() == counted,
            "seen\n{:?}\ninstead of what the tasks have counted themselves (shared, exclusive)\n{counted:?}",
            history.counts()
        );
        history.consistent()?;
        ensure!(
            history.waits.len() < history.holds.len(),
            "{} waits and {} holds: nothing was had without a wait",
            history.waits.len(),
            history.holds.len()
        );
        ensure!(
            history.shared_by_several() == self.shared,
            "several readers at once: {}",
            history.shared_by_several()
        );
        let otherwise = format!("{}otherwise", self.functions);
        ensure!(
            history.sites.contains_key(&otherwise),
            "{otherwise} did not take it: {:?}",
            history.sites
        );
        let strange = history.sites.keys().find(|site| !site.starts_with(self.functions));
        ensure!(strange.is_none(), "taken or given back at {:?}", history.sites);
        let report: Value = serde_json::from_str(&run.output("report")?.stdout()).context("no report")?;
        self.judge_report(&report, &history)
    }

    fn judge_report(&self, report: &Value, history: &History) -> Result<()> {
        // An interrupt may come while a program handles another lock, and the kernel skips what it takes then; and a thread that was
        // looked at may be gone before its stack is taken. Of this lock nothing can be missing: the history is whole, with stacks.
        let lost = report["losses"].as_array().context("no losses in the report")?;
        let elsewhere = |loss: &Value| loss["cause"] == "program-skipped" || loss["cause"] == "stack-lost";
        ensure!(lost.iter().all(elsewhere), "losses: {}", report["losses"]);
        let [row] = report["watched"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            bail!("not one watched lock: {}", report["watched"]);
        };
        let holds = &history.holds;
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
        ensure!(row["kind"] == self.kind, "it is called a {}", row["kind"]);
        ensure!(
            row["holders"] == serde_json::json!([]),
            "still held: {}",
            row["holders"]
        );
        ensure!(
            row["longest"]["held_ns"].as_u64() == longest,
            "{} is not the longest hold",
            row["longest"]
        );
        let site = row["longest"]["site"].as_str().unwrap_or_default();
        ensure!(
            site.starts_with(self.functions),
            "the longest holder took it at {site:?}"
        );
        Ok(())
    }
}

fn cost_is_told(said: &str) -> Result<()> {
    let cost = said
        .lines()
        .find_map(|line| line.strip_prefix("holdup: watching costs "))
        .with_context(|| format!("what it costs is not told: {said}"))?;
    let number = |text: &str| text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    ensure!(number(cost) > 0, "no cost: {cost}");
    let measured = cost.split_once('(').map_or(0, |(_, rest)| number(rest));
    ensure!(measured > 0, "nothing was measured: {cost}");
    Ok(())
}
