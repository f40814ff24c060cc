//! Spinning CPUs: an interrupt on a lock that the thread below it holds. The whole finding is compared, with holdup there before
//! the fault and with holdup started on the broken machine.

use super::findings::{DEADLOCK, Named, deadlocks};
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use std::time::Duration;

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "before",
        kernels: WITHOUT_RT,
        group: "softirq-timer",
        expects: &[],
        steps: |steps| before(steps, "softirq-aa-timer"),
        check: |run| judge(run, &TIMER),
    },
    VmTest {
        name: "after",
        kernels: WITHOUT_RT,
        group: "softirq-timer",
        expects: &[],
        steps: after,
        check: |run| judge(run, &TIMER),
    },
    VmTest {
        name: "before",
        kernels: WITHOUT_RT,
        group: "softirq-rcu",
        expects: &[],
        steps: |steps| before(steps, "softirq-aa-rcu"),
        check: |run| judge(run, &RCU),
    },
    VmTest {
        name: "after",
        kernels: WITHOUT_RT,
        group: "softirq-rcu",
        expects: &[],
        steps: after,
        check: |run| judge(run, &RCU),
    },
    VmTest {
        name: "before",
        kernels: WITHOUT_RT,
        group: "hardirq",
        expects: &[],
        steps: |steps| before(steps, "hardirq-aa"),
        check: |run| {
            run.output("live")?.stderr_has(PROBES_STAY)?;
            judge(run, &HARDIRQ)
        },
    },
    VmTest {
        name: "after",
        kernels: WITHOUT_RT,
        group: "hardirq",
        expects: &[],
        steps: after,
        check: |run| {
            run.output("live")?.stderr_has(NOTHING_ATTACHED)?;
            judge(run, &HARDIRQ)
        },
    },
];

/// Said when holdup was there before a CPU with interrupts off.
pub const PROBES_STAY: &str = "CPU 1 takes no interrupts, so no probe can be taken off";
/// Said when it was started after.
pub const NOTHING_ATTACHED: &str = "CPU 1 stands still, and attaching could wait for it for ever";

/// What is true of a scenario with an interrupt.
pub struct Truth {
    scenario: &'static str,
    lock: &'static str,
    /// Symbol of a static lock.
    symbol: Option<&'static str>,
    comm: &'static str,
    context: &'static str,
    work: &'static str,
    above: &'static str,
    below: &'static str,
    cure: &'static str,
}

const SOFTIRQ_CURE: &str =
    "softirq: process context (THREAD) must disable softirqs while it holds it, with spin_lock_bh().";
const HARDIRQ_CURE: &str =
    "a hard interrupt: process context (THREAD) must disable interrupts while it holds it, with spin_lock_irqsave().";

pub const TIMER: Truth = Truth {
    scenario: "softirq-aa-timer",
    lock: "heap.softirq_timer.lock",
    symbol: None,
    comm: "lf_tmr_holder",
    context: "softirq",
    work: "a timer",
    above: "lockfault_softirq_touch",
    below: "lockfault_softirq_timer_section",
    cure: SOFTIRQ_CURE,
};

const RCU: Truth = Truth {
    scenario: "softirq-aa-rcu",
    lock: "heap.softirq_rcu.lock",
    symbol: None,
    comm: "lf_rcu_holder",
    context: "softirq",
    work: "an RCU callback",
    above: "lockfault_softirq_touch",
    below: "lockfault_softirq_rcu_prune",
    cure: SOFTIRQ_CURE,
};

const HARDIRQ: Truth = Truth {
    scenario: "hardirq-aa",
    lock: "lockfault_hardirq_lock",
    symbol: Some("lockfault_hardirq_lock [lockfault]"),
    comm: "lf_hrq_holder",
    context: "hardirq",
    work: "a high-resolution timer",
    above: "lockfault_hardirq_fn",
    below: "lockfault_hardirq_section",
    cure: HARDIRQ_CURE,
};

fn before(steps: &mut Steps, scenario: &str) {
    steps.limit(Duration::from_secs(60));
    steps.start_attached("live", &["live", "--json", "--duration", "8"]);
    steps.trigger(scenario);
    steps.established(scenario);
    steps.truth("truth");
    steps.wait("live");
}

fn after(steps: &mut Steps) {
    steps.limit(Duration::from_secs(60));
    steps.truth("truth");
    steps.holdup("live", &["live", "--json", "--duration", "6"]);
}

fn judge(run: &GuestRun, is: &Truth) -> Result<()> {
    compare(run, is, false)
}

/// The same of a lock that was watched: who took it was seen.
pub fn judge_watched(run: &GuestRun, is: &Truth) -> Result<()> {
    compare(run, is, true)
}

fn compare(run: &GuestRun, is: &Truth, watched: bool) -> Result<()> {
    let truth = run.truth("truth")?;
    let tid = truth.task(is.scenario, "holder")?;
    let lock = format!("{:#018x}", truth.lock(is.lock)?);
    let output = run.output("live")?;
    output.exited_with(DEADLOCK)?;
    let Truth {
        symbol,
        comm,
        context,
        work,
        above,
        below,
        ..
    } = is;
    let found = deadlocks(&output.stdout())?;
    let [finding] = found.as_slice() else {
        bail!("{} deadlocks instead of one\n{}", found.len(), output.shown());
    };
    let named = Named::of(finding, &lock);
    if let Some(symbol) = symbol {
        ensure!(
            named.name == json!(symbol),
            "{lock} is called {}, not {symbol}",
            named.name
        );
    }
    let spinlock = named.words("spinlock", &lock);
    let thread = format!("{comm} ({tid})");
    let interrupt = format!("{context} on CPU 1 above {thread}");
    let code = if *context == "softirq" { "Softirq" } else { "Hardirq" };
    let cure = is.cure.replace("THREAD", &thread);
    let mut expected = json!({
        "id": format!("context-deadlock:cpu1-{code}:{tid}:spin-{lock}"),
        "kind": "context-deadlock",
        "severity": "critical",
        "certainty": "likely",
        "title": format!("{interrupt} ({work}) spins on {spinlock} at {above}, which {thread} holds, interrupted at {below}: neither \
            can go on"),
        "since_is_lower_bound": true,
        "tasks": [
            {"tid": tid, "tgid": tid, "comm": comm, "context": context, "interrupt_cpu": 1, "state": "unknown", "cpu": null,
             "site": above},
            {"tid": tid, "tgid": tid, "comm": comm, "context": "task", "state": "running", "cpu": 1, "site": below},
        ],
        "locks": [named.lock(&lock, "spinlock")],
        "chain": [{
            "waiter": {"tid": tid, "tgid": tid, "comm": comm, "context": context, "interrupt_cpu": 1},
            "on": named.wanted(&lock, "spinlock", "exclusive"),
            "waited_is_lower_bound": true,
            "holder": {"tid": tid, "tgid": tid, "comm": comm, "context": "task"},
            "holder_evidence": "cpu-sample",
        }],
        "victims": {"count": 0, "cgroups": [], "tasks": []},
        "evidence": [
            {"source": "cpu-sample", "text": format!("{interrupt} has spun on {spinlock} for TIME, seen N times")},
            {"source": "cpu-sample", "text": format!("{thread} was interrupted with a spinlock held, and no other CPU can hold it: \
                each was seen without one since, or with no more than it waits for")},
            {"source": "owner-word", "text": format!("word of {spinlock} is 0x101: held, in N reads over TIME")},
            {"source": "missing", "text": format!("{spinlock} does not record its holder and its acquisition was not seen: the \
                holder is inferred")},
        ],
        "next_steps": [format!("{spinlock} is also taken in {cure}")],
    });
    if watched {
        expected["certainty"] = json!("proven");
        expected["chain"][0]["holder_evidence"] = json!("acquisition");
        expected["title"] = json!(format!(
            "{interrupt} ({work}) spins on {spinlock} at {above}, which {thread} has taken at {below}: neither can go on"
        ));
        expected["evidence"][1] = json!({"source": "acquisition", "text": format!("{thread} was seen to take it at {below} and not to release it")});
        // Nothing is missing.
        expected["evidence"].as_array_mut().map(Vec::pop);
    }
    ensure!(
        *finding == expected,
        "found\n{finding:#}\ninstead of\n{expected:#}\n{}",
        output.shown()
    );
    Ok(())
}
