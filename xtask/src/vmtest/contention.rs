//! Owner/waiter tuples: waiter, owner, kind and mode of every contention scenario, by tracepoint and by kprobe.
//!
//! The module's first act is deterministic: named waiters queue behind a named holder, so every tuple is known beforehand.

use super::{GuestRun, Steps, VmTest};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

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

const STOCK: &[&str] = &["6.1", "6.12"];

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "tuples-tracepoint",
        kernels: STOCK,
        group: "contention",
        expects: &[],
        steps: |steps| capture(steps, "tracepoint"),
        check: judge,
    },
    VmTest {
        name: "tuples-kprobe",
        kernels: STOCK,
        group: "contention",
        expects: &[],
        steps: |steps| capture(steps, "kprobe"),
        check: judge,
    },
];

fn capture(steps: &mut Steps, probes: &str) {
    for contention in SLEEPING.iter().chain(SPINNING) {
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

fn judge(run: &GuestRun) -> Result<()> {
    for contention in SLEEPING.iter().chain(SPINNING) {
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
    if SLEEPING.iter().any(|sleeping| sleeping.scenario == contention.scenario) {
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
