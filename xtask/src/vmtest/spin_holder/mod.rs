//! A spinning lock whose holder is on another CPU and does not let go: who is taken for it and why, and in which order the others queue. The
//! whole finding is compared, with holdup there before the fault, started after it, and as a snapshot.

use super::findings::{FINDINGS, Named, snapshot, told};
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

mod rwlock;

const SCENARIO: &str = "spin-holder";

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "rwlock-written",
        kernels: WITHOUT_RT,
        group: SCENARIO,
        expects: &[],
        steps: |steps| rwlock::steps(steps, "spin-holder rwlock=1 ms=300000"),
        check: |run| rwlock::judge(run, &rwlock::WRITTEN),
    },
    VmTest {
        name: "rwlock-read",
        kernels: WITHOUT_RT,
        group: SCENARIO,
        expects: &[],
        steps: |steps| rwlock::steps(steps, "spin-holder rwlock=2 ms=300000"),
        check: |run| rwlock::judge(run, &rwlock::READ),
    },
    VmTest {
        name: "before",
        kernels: WITHOUT_RT,
        group: SCENARIO,
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(60));
            steps.start_attached("holdup", &["live", "--json", "--duration", "12"]);
            steps.trigger(SCENARIO);
            steps.established(SCENARIO);
            steps.truth("truth");
            steps.wait("holdup");
        },
        check: |run| judge(run, &BEFORE, &live(run)?),
    },
    VmTest {
        name: "after",
        kernels: WITHOUT_RT,
        group: SCENARIO,
        expects: &[],
        steps: |steps| after(steps, &["live", "--json", "--duration", "10"]),
        check: |run| judge(run, &AFTER, &live(run)?),
    },
    VmTest {
        name: "snapshot",
        kernels: WITHOUT_RT,
        group: SCENARIO,
        expects: &[],
        steps: |steps| after(steps, &["snapshot", "--json"]),
        check: |run| judge(run, &AFTER, &snapshot(&run.output("holdup")?.stdout())?),
    },
];

/// What differs with the time at which holdup came.
struct Came {
    seen_begin: bool,
}

const BEFORE: Came = Came { seen_begin: true };
const AFTER: Came = Came { seen_begin: false };

/// The CPUs are still lost to the first test.
fn after(steps: &mut Steps, arguments: &[&str]) {
    steps.limit(Duration::from_secs(60));
    steps.truth("truth");
    steps.holdup("holdup", arguments);
}

/// Every finding of a live run about spinning.
fn live(run: &GuestRun) -> Result<Vec<Value>> {
    told(&run.output("holdup")?.stdout(), |_| true)
}

fn judge(run: &GuestRun, came: &Came, found: &[Value]) -> Result<()> {
    let truth = run.truth("truth")?;
    let task = |role| truth.task(SCENARIO, role);
    let (holder, pending, waiter) = (task("holder")?, task("pending")?, task("waiter")?);
    let lock = format!("{:#018x}", truth.lock("heap.spin_holder.lock")?);
    let output = run.output("holdup")?;
    output.exited_with(FINDINGS)?;
    // The CPUs are lost to kernel threads that wait for them, too: what is found about those is another matter.
    let about = |f: &&Value| {
        let id = f["id"].as_str().unwrap_or_default();
        id.contains("spin-") || id == format!("root-blocker:{holder}")
    };
    let found: Vec<&Value> = found.iter().filter(about).collect();
    let [finding] = found.as_slice() else {
        bail!("{} findings instead of one\n{}", found.len(), output.shown());
    };
    let mut finding = (*finding).clone();
    let named = Named::of(&finding, &lock);
    let spinlock = named.words("spinlock", &lock);
    let mut lock_ref = named.lock(&lock, "spinlock");
    lock_ref["waiters"] = json!(2);
    let mut on = named.wanted(&lock, "spinlock", "exclusive");
    on["waiters"] = json!(2);
    let name = |tid: u32, comm: &str| json!({"tid": tid, "tgid": tid, "comm": comm, "context": "task"});
    let who = format!("lf_shd_holder ({holder})");
    // Of these two the one that spins in the queue was seen to begin, the other one by samples only.
    let wait = |tid: u32, comm: &str, seen: bool| {
        json!({
            "waiter": name(tid, comm), "on": on, "waited_is_lower_bound": !seen,
            "holder": name(holder, "lf_shd_holder"), "holder_evidence": "cpu-sample",
        })
    };
    let waits = [
        wait(pending, "lf_shd_pending", false),
        wait(waiter, "lf_shd_waiter", came.seen_begin),
    ];
    // Which of them is thought to have waited longer depends on when each was seen first.
    let chain = finding["chain"].take();
    ensure!(
        waits.iter().any(|wait| chain == json!([wait])),
        "the chain is\n{chain:#}\n{}",
        output.shown()
    );
    let mut victims = finding["victims"].take();
    let longest = victims["tasks"][0]["waited_is_lower_bound"].clone();
    let listed = victims["tasks"].as_array_mut().context("no victims")?;
    listed.sort_by_key(|victim| victim["waiter"]["tid"].as_u64());
    for victim in &mut *listed {
        // Nothing shows the stack of who was seen by its place in the queue only.
        victim.as_object_mut().map(|victim| victim.remove("site"));
    }
    ensure!(
        victims == json!({"count": 2, "cgroups": victims["cgroups"], "tasks": waits}),
        "the victims are\n{victims:#}\n{}",
        output.shown()
    );
    let lower_bound = finding["since_is_lower_bound"].take();
    ensure!(
        lower_bound == longest,
        "since when is not that of who has waited longest: {}",
        output.shown()
    );
    let may_hold = format!("{who} may hold {spinlock}: ");
    let expected = json!({
        "id": format!("root-blocker:{holder}"),
        "kind": "root-blocker",
        "severity": "warning",
        "certainty": "likely",
        "title": format!("{who} holds {spinlock} and is running on CPU 1; 2 tasks wait behind it"),
        "since_is_lower_bound": null,
        "tasks": [{"tid": holder, "tgid": holder, "comm": "lf_shd_holder", "context": "task", "state": "running", "cpu": 1,
            "site": "lockfault_device_poll"}],
        "locks": [lock_ref],
        "chain": null,
        "victims": null,
        "evidence": [
            {"source": "cpu-sample", "text": format!("{may_hold}no other CPU can: each was seen without a spinlock since, or with no \
                more than it waits for itself")},
            {"source": "register-word", "text": format!("{may_hold}its CPU's registers hold the lock's address")},
            {"source": "missing", "text": format!("{spinlock} does not record who holds it: the holder is inferred")},
            {"source": "cpu-sample", "text": format!("first in the queue of {spinlock}: lf_shd_pending ({pending}), for TIME; 2 in all")},
            {"source": "owner-word", "text": format!("its word and the CPUs' queue nodes give the order of those who wait: \
                1. lf_shd_pending ({pending}) on CPU 2, 2. lf_shd_waiter ({waiter}) on CPU 3")},
            {"source": "task-samples", "text": format!("{who} is running on CPU 1; at lockfault_device_poll")},
        ],
        "next_steps": [format!("Find out why {who} does not get on: it is running on CPU 1. What waits behind it goes on when it does.")],
    });
    ensure!(
        finding == expected,
        "found\n{finding:#}\ninstead of\n{expected:#}\n{}",
        output.shown()
    );
    Ok(())
}
