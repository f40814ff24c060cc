//! Owner/waiter tuples: waiter, owner, kind and mode of every contention scenario, by tracepoint and by kprobe.
//!
//! The module's first act is deterministic: named waiters queue behind a named holder, so every tuple is known beforehand.

use super::results::Output;
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A waiter of the first act and what its first tuple must say.
struct Expected {
    role: &'static str,
    mode: &'static str,
    /// `owner_is` of the tuple.
    owner_is: &'static str,
    /// Role of the owner, where the lock records one.
    owner: Option<&'static str>,
}

/// One scenario.
struct Contention {
    scenario: &'static str,
    lock: &'static str,
    kind: &'static str,
    waiters: &'static [Expected],
}

const fn waits(role: &'static str, mode: &'static str, owner: &'static str) -> Expected {
    Expected {
        role,
        mode,
        owner_is: "held by",
        owner: Some(owner),
    }
}

const fn anonymous(role: &'static str, mode: &'static str) -> Expected {
    Expected {
        role,
        mode,
        owner_is: "not recorded",
        owner: None,
    }
}

/// The sleeping locks on kernels without PREEMPT_RT.
const SLEEPING: &[Contention] = &[
    Contention {
        scenario: "contend-mutex",
        lock: "lockfault_contend_mutex_lock",
        kind: "mutex",
        waiters: &[waits("waiter", "exclusive", "holder")],
    },
    Contention {
        scenario: "contend-rwsem",
        lock: "heap.contend.rwsem",
        kind: "rwsem",
        waiters: &[
            waits("reader-waiter", "shared", "writer-holder"),
            waits("writer-waiter", "exclusive", "writer-holder"),
            Expected {
                role: "drain-waiter",
                mode: "exclusive",
                owner_is: "read-held, last reader",
                owner: Some("reader-holder"),
            },
        ],
    },
    Contention {
        scenario: "contend-semaphore",
        lock: "lockfault_contend_sem",
        kind: "semaphore",
        waiters: &[anonymous("waiter", "exclusive")],
    },
    Contention {
        scenario: "contend-rt-mutex",
        lock: "lockfault_contend_rtm",
        kind: "rt-mutex",
        waiters: &[waits("waiter", "exclusive", "holder")],
    },
    Contention {
        scenario: "contend-percpu-rwsem",
        lock: "lockfault_contend_percpu",
        kind: "percpu-rwsem",
        waiters: &[
            anonymous("reader-waiter", "shared"),
            anonymous("writer-waiter", "exclusive"),
        ],
    },
];

/// The spinning locks.
const SPINNING: &[Contention] = &[
    Contention {
        scenario: "contend-spinlock",
        lock: "heap.contend.spinlock",
        kind: "spinlock",
        // With two CPUs at the lock the second sets the pending bit, which neither a tracepoint nor a slowpath's queue shows.
        waiters: &[],
    },
    Contention {
        scenario: "contend-rwlock",
        lock: "lockfault_contend_rwl",
        kind: "rwlock",
        waiters: &[
            anonymous("reader-waiter", "shared"),
            anonymous("writer-waiter", "exclusive"),
        ],
    },
];

/// PREEMPT_RT: all of these are rt_mutexes, and sleep; which of them are spinlocks is told.
const RT: &[Contention] = &[
    Contention {
        scenario: "contend-spinlock",
        lock: "heap.contend.spinlock",
        kind: "rt-spinlock",
        waiters: &[
            waits("pending", "exclusive", "holder"),
            waits("waiter", "exclusive", "holder"),
        ],
    },
    // A writer behind a writer waits for the rt_mutex inside of it, at another address.
    Contention {
        scenario: "contend-rwlock",
        lock: "lockfault_contend_rwl",
        kind: "rt-spinlock",
        waiters: &[
            anonymous("reader-waiter", "shared"),
            anonymous("drain-waiter", "exclusive"),
        ],
    },
    Contention {
        scenario: "contend-mutex",
        lock: "lockfault_contend_mutex_lock",
        kind: "rt-mutex",
        waiters: &[waits("waiter", "exclusive", "holder")],
    },
];

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "tuples",
        kernels: &["6.12-rt"],
        group: "base",
        expects: &[],
        steps: |steps| capture(steps, "tracepoint", RT.iter()),
        check: |run| judge(run, RT.iter()),
    },
    VmTest {
        name: "tuples-tracepoint",
        kernels: WITHOUT_RT,
        group: "contention",
        expects: &[],
        steps: |steps| capture(steps, "tracepoint", both()),
        check: |run| judge(run, both()),
    },
    VmTest {
        name: "tuples-kprobe",
        kernels: WITHOUT_RT,
        group: "contention",
        expects: &[],
        steps: |steps| capture(steps, "kprobe", both()),
        check: |run| judge(run, both()),
    },
    LOSSES,
    RELEASES,
    SPIN_COUNTS,
];

/// Two holdups watch the same spins, one by tracepoints and one by kprobes.
const SPIN_COUNTS: VmTest = VmTest {
    name: "spin-counts",
    kernels: WITHOUT_RT,
    group: "contention",
    expects: &[],
    steps: |steps| {
        for probes in ["tracepoint", "kprobe"] {
            steps.start_attached(probes, &["live", "--json", "--probes", probes]);
        }
        for contention in SPINNING {
            let scenario = contention.scenario;
            steps.trigger(&format!("{scenario} ms=1000"));
            steps.done(scenario);
            steps.truth(&format!("{scenario}-truth"));
        }
        for probes in ["tracepoint", "kprobe"] {
            steps.signal(probes, "INT");
            steps.wait(probes);
        }
    },
    check: |run| {
        let (traced, probed) = (counted(run.output("tracepoint")?)?, counted(run.output("kprobe")?)?);
        for Contention { scenario, lock, .. } in SPINNING {
            let address = format!("{:#018x}", run.truth(&format!("{scenario}-truth"))?.lock(lock)?);
            let count = |rows: &BTreeMap<String, u64>| rows.get(&address).copied().unwrap_or_default();
            let (traced, probed) = (count(&traced), count(&probed));
            ensure!(traced > 0, "{scenario}: no wait was seen");
            // KERNEL: kernel/locking/qspinlock.c: who waits on the pending bit is in the slowpath, but fires no tracepoint. A rwlock
            // has no such bit: there each wait is seen by both.
            let agree = match *scenario {
                "contend-spinlock" => probed >= traced,
                _ => probed == traced,
            };
            ensure!(agree, "{scenario}: {traced} waits by tracepoint, {probed} by kprobe");
        }
        Ok(())
    },
};

/// Ended waits by lock, of a run that found nothing above information and lost nothing.
fn counted(output: &Output) -> Result<BTreeMap<String, u64>> {
    output.exited_with(0)?;
    let mut report = Value::Null;
    for line in output.stdout().lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let severity = &value["finding"]["severity"];
        ensure!(severity.is_null() || severity == "info", "above information: {line}");
        if value["type"] == "report" {
            report = value;
        }
    }
    ensure!(
        report["losses"].as_array().is_some_and(Vec::is_empty),
        "losses: {}",
        report["losses"]
    );
    let rows = report["locks"].as_array().context("no report")?;
    let row = |lock: &Value| Some((lock["address"].as_str()?.to_owned(), lock["waits"].as_u64()?));
    Ok(rows.iter().filter_map(row).collect())
}

const RELEASES: VmTest = VmTest {
    name: "releases",
    kernels: WITHOUT_RT,
    group: "contention",
    expects: &[],
    steps: |steps| {
        for (scenario, _, _) in RELEASED {
            steps.start_attached(scenario, &["live", "--json", "--tuples", "--all", "--releases"]);
            steps.trigger(&format!("{scenario} ms=100"));
            steps.done(scenario);
            steps.truth(&format!("{scenario}-truth"));
            steps.signal(scenario, "INT");
            steps.wait(scenario);
        }
    },
    check: |run| {
        RELEASED
            .iter()
            .try_for_each(|row| releases(run, row).with_context(|| row.0))
    },
};

/// Scenario, its lock, and the role of who releases first while somebody waits.
const RELEASED: &[(&str, &str, &str)] = &[
    ("contend-mutex", "lockfault_contend_mutex_lock", "holder"),
    ("contend-rwsem", "heap.contend.rwsem", "writer-holder"),
    ("contend-semaphore", "lockfault_contend_sem", "holder"),
];

/// The first release of a lock with waiters is by its first holder.
fn releases(run: &GuestRun, (scenario, lock, role): &(&str, &str, &str)) -> Result<()> {
    let truth = run.truth(&format!("{scenario}-truth"))?;
    let output = run.output(scenario)?;
    let tuples = tuples(&output.stdout(), &format!("{:#018x}", truth.lock(lock)?))?;
    let Some(first) = tuples.iter().find(|tuple| tuple["event"] == "release") else {
        bail!("no release: {}", output.shown());
    };
    let holder = truth.task(scenario, role)?;
    ensure!(first["waiter"]["tid"] == holder, "not released by {holder}: {first}");
    // Semaphores have no holder: who takes one and who gives it are two things.
    if *scenario != "contend-semaphore" {
        held(&output.stdout(), truth.lock(lock)?)?;
    }
    Ok(())
}

/// The storm's holds were seen from the end of a wait to the release, none of them longer than the run.
fn held(stdout: &str, lock: u64) -> Result<()> {
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default()).context("no report")?;
    let address = format!("{lock:#018x}");
    let mut rows = report["locks"].as_array().into_iter().flatten();
    let row = rows
        .find(|row| row["address"] == address)
        .context("no row for the lock")?;
    let number = |field: &str| row["held"][field].as_u64().unwrap_or(0);
    let (times, total, max) = (number("times"), number("total_ns"), number("max_ns"));
    ensure!(
        times > 0 && 0 < max && max <= total && max < 5_000_000_000,
        "held {times} times, {total} ns in sum, {max} ns at most: {row}"
    );
    Ok(())
}

const LOSSES: VmTest = VmTest {
    name: "losses",
    kernels: WITHOUT_RT,
    group: "contention",
    expects: &[],
    steps: |steps| {
        let arguments = ["live", "--json", "--tuples", "--all", "--ring-bytes", "4096"];
        steps.start_attached("live", &arguments);
        // A reader that cannot keep up at all.
        steps.signal("live", "STOP");
        steps.trigger("contend-mutex ms=1000");
        steps.done("contend-mutex");
        steps.signal("live", "CONT");
        steps.signal("live", "INT");
        steps.wait("live");
    },
    check: losses,
};

/// With a ring far too small, what arrived and what was counted as lost add up to what happened. What happened is counted
/// independently, in the lock statistics: every wait that ended, once.
fn losses(run: &GuestRun) -> Result<()> {
    const SPINNING: [&str; 2] = ["spinlock", "rwlock"];
    let output = run.output("live")?;
    output.exited_with(0)?;
    let stdout = output.stdout();
    let mut arrived = 0;
    let mut report = Value::Null;
    for line in stdout.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let sleeping = !SPINNING.iter().any(|kind| value["kind"] == *kind);
        // A begin record is one wait line, an end record another with an end line; re-reads come through no ring.
        if value["event"] == "wait" && value["evidence"] == "tracepoint" && sleeping {
            arrived += 1;
        }
        if value["type"] == "report" {
            report = value;
        }
    }
    let locks = report["locks"].as_array().context("no report")?;
    ensure!(report["locks_left_out"] == 0, "the report leaves locks out");
    let ended: u64 = locks
        .iter()
        .filter(|lock| !SPINNING.iter().any(|kind| lock["kind"] == *kind))
        .filter_map(|lock| lock["waits"].as_u64())
        .sum();
    let count = |causes: &[&str]| -> u64 {
        let rows = report["losses"].as_array().into_iter().flatten();
        rows.filter(|row| causes.iter().any(|cause| row["cause"] == *cause))
            .filter_map(|row| row["count"].as_u64())
            .sum()
    };
    let lost = count(&["ring-full", "busy"]);
    // A wait that still goes on has begun only.
    let open = report["totals"]["waits"].as_u64().context("no totals")?;
    let unended = count(&["missed-end", "program-skipped"]) + open;
    ensure!(
        ended > 100 && lost > 0,
        "no storm, or no loss: {ended} ended, {lost} lost"
    );
    ensure!(
        (2 * ended..=2 * ended + unended).contains(&(arrived + lost)),
        "{ended} waits ended: {arrived} records arrived and {lost} were counted as lost, {unended} ends were missed or are to come"
    );
    Ok(())
}

fn both() -> impl Iterator<Item = &'static Contention> {
    SLEEPING.iter().chain(SPINNING)
}

fn capture(steps: &mut Steps, probes: &str, all: impl Iterator<Item = &'static Contention>) {
    for contention in all {
        let scenario = contention.scenario;
        let arguments = [
            "live",
            "--json",
            "--tuples",
            "--all",
            "--interval",
            "50ms",
            "--probes",
            probes,
        ];
        steps.start_attached(scenario, &arguments);
        steps.trigger(&format!("{scenario} ms=100"));
        steps.done(scenario);
        steps.truth(&format!("{scenario}-truth"));
        steps.signal(scenario, "INT");
        steps.wait(scenario);
    }
}

fn judge(run: &GuestRun, all: impl Iterator<Item = &'static Contention>) -> Result<()> {
    for contention in all {
        compare(run, contention).with_context(|| contention.scenario)?;
    }
    Ok(())
}

fn compare(run: &GuestRun, contention: &Contention) -> Result<()> {
    let truth = run.truth(&format!("{}-truth", contention.scenario))?;
    let output = run.output(contention.scenario)?;
    output.exited_with(0)?;
    let lock = format!("{:#018x}", truth.lock(contention.lock)?);
    let mut tuples = tuples(&output.stdout(), &lock)?;
    if !["spinlock", "rwlock"].contains(&contention.kind) {
        // The spinlock inside a semaphore or rt_mutex is its first member: contended as well, at the same address.
        let inner: BTreeSet<String> = tuples
            .iter()
            .filter(|tuple| tuple["kind"] == "spinlock")
            .map(|tuple| tuple["since"].to_string())
            .collect();
        tuples.retain(|tuple| {
            let since = if tuple["event"] == "end" {
                let began = tuple["time"].as_u64().zip(tuple["waited_ns"].as_u64());
                began.map_or(String::new(), |(time, waited)| (time - waited).to_string())
            } else {
                tuple["since"].to_string()
            };
            !inner.contains(&since)
        });
    }
    ensure!(!tuples.is_empty(), "no tuple for {lock}: {}", output.shown());
    let tasks: BTreeSet<u64> = truth
        .tasks
        .iter()
        .filter(|task| task.scenario == contention.scenario)
        .map(|task| task.pid.into())
        .collect();
    for tuple in tuples.iter().filter(|tuple| tuple["event"] == "wait") {
        let waiter = tuple["waiter"]["tid"].as_u64().context("no waiter")?;
        ensure!(tasks.contains(&waiter), "an unknown waiter: {tuple}");
        ensure!(tuple["kind"] == contention.kind, "not a {}: {tuple}", contention.kind);
    }
    for expected in contention.waiters {
        for pid in truth.tasks(contention.scenario, expected.role) {
            first_wait(
                &tuples,
                pid,
                expected,
                &truth.tasks(contention.scenario, expected.owner.unwrap_or_default()),
            )
            .with_context(|| format!("{} {pid} of {:?}", expected.role, truth.tasks))?;
        }
    }
    Ok(())
}

/// The first wait of a thread must say what is true, and the thread must get the lock once.
fn first_wait(tuples: &[Value], pid: u32, expected: &Expected, owners: &[u32]) -> Result<()> {
    let of_thread: Vec<&Value> = tuples.iter().filter(|tuple| tuple["waiter"]["tid"] == pid).collect();
    let Some(first) = of_thread.iter().find(|tuple| tuple["event"] == "wait") else {
        bail!("it never waited");
    };
    ensure!(first["waiter"]["tgid"] == pid, "wrong process: {first}");
    ensure!(first["mode"] == expected.mode, "not {}: {first}", expected.mode);
    ensure!(
        first["owner_is"] == expected.owner_is,
        "not {:?}: {first}",
        expected.owner_is
    );
    match owners {
        [] => ensure!(first["owner"].is_null(), "an owner where none is recorded: {first}"),
        [owner] => {
            ensure!(first["owner"]["tid"] == *owner, "the owner is not {owner}: {first}");
            let comm = first["owner"]["comm"].as_str().unwrap_or_default();
            ensure!(
                comm.starts_with("lf_") && comm.ends_with("holder"),
                "wrong name: {first}"
            );
        }
        several => bail!("several tasks could own it: {several:?}"),
    }
    let ends: Vec<_> = of_thread.iter().filter(|tuple| tuple["event"] == "end").collect();
    let [end] = ends.as_slice() else {
        bail!("{} ends instead of one: {of_thread:?}", ends.len());
    };
    ensure!(end["result"] == 0, "the wait failed: {end}");
    Ok(())
}

/// The tuples about one lock, in the order they were printed.
fn tuples(stdout: &str, lock: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for line in stdout.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        if value["type"] == "tuple" && value["lock"] == lock {
            found.push(value);
        }
    }
    Ok(found)
}
