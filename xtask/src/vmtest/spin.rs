//! Spinning CPUs: an interrupt on a lock that the thread below it holds. The whole finding is compared, with holdup there before
//! the fault and with holdup started on the broken machine.

use super::{GuestRun, Steps, VmTest};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

const STOCK: &[&str] = &["6.1", "6.12"];
/// Exit code of a run that found a deadlock.
const DEADLOCK: i32 = 3;
/// Exit code of a run that found something else.
const FINDINGS: i32 = 4;

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "before",
        kernels: STOCK,
        group: "softirq-timer",
        expects: &[],
        steps: |steps| before(steps, "softirq-aa-timer"),
        check: |run| judge(run, &TIMER),
    },
    VmTest {
        name: "after",
        kernels: STOCK,
        group: "softirq-timer",
        expects: &[],
        steps: after,
        check: |run| judge(run, &TIMER),
    },
    VmTest {
        name: "before",
        kernels: STOCK,
        group: "softirq-rcu",
        expects: &[],
        steps: |steps| before(steps, "softirq-aa-rcu"),
        check: |run| judge(run, &RCU),
    },
    VmTest {
        name: "after",
        kernels: STOCK,
        group: "softirq-rcu",
        expects: &[],
        steps: after,
        check: |run| judge(run, &RCU),
    },
    VmTest {
        name: "before",
        kernels: STOCK,
        group: "hardirq",
        expects: &[],
        steps: |steps| before(steps, "hardirq-aa"),
        check: |run| {
            says(run, ATTACHED_BEFORE.stderr)?;
            judge(run, &HARDIRQ)
        },
    },
    VmTest {
        name: "after",
        kernels: STOCK,
        group: "hardirq",
        expects: &[],
        steps: after,
        check: |run| {
            says(run, ATTACHED_AFTER.stderr)?;
            judge(run, &HARDIRQ)
        },
    },
    VmTest {
        name: "before",
        kernels: STOCK,
        group: "dead-lock-word",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(30));
            steps.start_attached("live", &["live", "--json", "--duration", "8"]);
            steps.trigger("dead-lock-word");
            steps.established("dead-lock-word");
            steps.truth("truth");
            steps.wait("live");
        },
        check: |run| dead_word(run, &ATTACHED_BEFORE),
    },
    VmTest {
        name: "after",
        kernels: STOCK,
        group: "dead-lock-word",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(30));
            steps.truth("truth");
            steps.holdup("live", &["live", "--json", "--duration", "8"]);
        },
        check: |run| dead_word(run, &ATTACHED_AFTER),
    },
    VmTest {
        name: "snapshot",
        kernels: STOCK,
        group: "dead-lock-word",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(10));
            steps.holdup("snapshot", &["snapshot", "--json"]);
        },
        // Nobody sleeps: it only has to end, with a CPU dead.
        check: |run| run.output("snapshot")?.exited_with(0),
    },
];

/// What differs with holdup there before the fault: it has seen the wait begin, and has probes that it must leave behind.
struct Attached {
    certainty: &'static str,
    by: &'static str,
    since_begin: bool,
    stderr: &'static str,
}

const ATTACHED_BEFORE: Attached = Attached {
    certainty: "proven",
    by: "tracepoint",
    since_begin: true,
    stderr: "CPU 1 takes no interrupts, so no probe can be taken off",
};

const ATTACHED_AFTER: Attached = Attached {
    certainty: "likely",
    by: "cpu-sample",
    since_begin: false,
    stderr: "CPU 1 stands still, and attaching could wait for it for ever",
};

/// What is true of a scenario with an interrupt.
struct Truth {
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

const TIMER: Truth = Truth {
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
    let expected = json!({
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
    ensure!(
        *finding == expected,
        "found\n{finding:#}\ninstead of\n{expected:#}\n{}",
        output.shown()
    );
    Ok(())
}

/// A CPU that answers nobody: holdup names it, the word, and everybody behind it, and ends in time although it cannot take its
/// probes off.
fn dead_word(run: &GuestRun, attached: &Attached) -> Result<()> {
    let truth = run.truth("truth")?;
    let task = |role| truth.task("dead-lock-word", role);
    let (stuck, ipi, spinner) = (task("stuck")?, task("ipi")?, task("spinner")?);
    let lock = format!("{:#018x}", truth.lock("heap.dead_word.done.wait.lock")?);
    let tlb = format!("{:#018x}", truth.lock("lockfault_tlb_lock")?);
    let output = run.output("live")?;
    // Critical, but no deadlock: nobody holds the lock.
    output.exited_with(FINDINGS)?;
    let name = |tid: u32, comm: &str| json!({"tid": tid, "tgid": tid, "comm": comm, "context": "task"});
    let found: Vec<Value> = deadlocks(&output.stdout())?;
    let [finding] = found.as_slice() else {
        bail!("{} findings instead of one\n{}", found.len(), output.shown());
    };
    let of_lock = |lock: &str| Named::of(finding, lock).wanted(lock, "spinlock", "exclusive");
    let spinlock = Named::of(finding, &lock).words("spinlock", &lock);
    ensure!(
        Named::of(finding, &tlb).name == json!("lockfault_tlb_lock [lockfault]"),
        "a variable without its name: {finding:#}"
    );
    let behind_tlb = json!({
        "waiter": name(spinner, "lf_dlw_spin3"),
        "on": of_lock(&tlb),
        "waited_is_lower_bound": true,
        "holder": name(ipi, "lf_dlw_ipi"),
        "holder_evidence": "cpu-sample",
    });
    let behind_ipi = json!({
        "waiter": name(ipi, "lf_dlw_ipi"),
        "on": {"type": "dependency", "dependency": "ipi", "text": "CPU 1 to answer an interrupt"},
        "waited_is_lower_bound": true,
        "holder": name(stuck, "lf_dlw_stuck"),
        "holder_evidence": "cpu-sample",
    });
    let root = json!({
        "waiter": name(stuck, "lf_dlw_stuck"),
        "on": of_lock(&lock),
        "waited_is_lower_bound": !attached.since_begin,
        "holder": null,
        "holder_evidence": null,
    });
    let who = format!("lf_dlw_stuck ({stuck})");
    let wanted = [
        ("id", json!(format!("dead-lock-word:spin-{lock}"))),
        ("kind", json!("dead-lock-word")),
        ("severity", json!("critical")),
        ("certainty", json!(attached.certainty)),
        ("since_is_lower_bound", json!(!attached.since_begin)),
        ("chain", json!([behind_tlb, behind_ipi, root])),
        (
            "title",
            json!(format!(
                "CPU 1: {who} spins on {spinlock}, whose word says that nobody holds it: it was overwritten \
            while in use"
            )),
        ),
        (
            "evidence",
            json!([
                {"source": attached.by, "text": format!("{who} has spun on {spinlock} for TIME")},
                {"source": "owner-word", "text": format!("word of {spinlock} is 0x80100: no holder in N reads over TIME")},
                {"source": "cpu-sample", "text": format!("CPU 1 has not answered lf_dlw_ipi ({ipi}) for TIME: its interrupts are off")},
            ]),
        ),
    ];
    for (field, value) in &wanted {
        ensure!(
            finding[field] == *value,
            "{field} is\n{:#}\ninstead of\n{value:#}\n{}",
            finding[field],
            output.shown()
        );
    }
    let victims = &finding["victims"];
    ensure!(victims["count"] == 2, "victims: {victims:#}");
    says(run, attached.stderr)
}

/// What a finding calls a lock. Names have tests of their own; here they must be the same wherever the lock is spoken of.
pub struct Named {
    pub name: Value,
    source: Value,
    class: Value,
}

impl Named {
    pub fn of(finding: &Value, address: &str) -> Self {
        let links = finding["chain"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|link| &link["on"]);
        let locks = finding["locks"].as_array().into_iter().flatten();
        let lock = locks.chain(links).find(|lock| lock["address"] == address);
        let field = |name: &str| lock.map_or(Value::Null, |lock| lock[name].clone());
        Self {
            name: field("name"),
            source: field("name_source"),
            class: field("class"),
        }
    }

    /// `spinlock NAME (ADDRESS)`.
    pub fn words(&self, kind: &str, address: &str) -> String {
        match self.name.as_str() {
            Some(name) => format!("{kind} {name} ({address})"),
            None => format!("{kind} {address}"),
        }
    }

    /// With one waiter.
    pub fn lock(&self, address: &str, kind: &str) -> Value {
        let Self { name, source, class } = self;
        json!({"address": address, "kind": kind, "name": name, "name_source": source, "class": class, "waiters": 1})
    }

    pub fn wanted(&self, address: &str, kind: &str, mode: &str) -> Value {
        let mut lock = self.lock(address, kind);
        (lock["type"], lock["mode"]) = (json!("lock"), json!(mode));
        lock
    }
}

/// What it leaves behind, or does not do, on a machine with a dead CPU.
fn says(run: &GuestRun, text: &str) -> Result<()> {
    let output = run.output("live")?;
    ensure!(output.stderr().contains(text), "no \"{text}\": {}", output.shown());
    Ok(())
}

/// The deadlocks that were opened, each as it was told last, without what differs from run to run.
pub fn deadlocks(stdout: &str) -> Result<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    for line in stdout.lines() {
        let mut value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let deadlock = matches!(
            value["finding"]["kind"].as_str(),
            Some("context-deadlock" | "self-deadlock" | "cycle" | "dead-lock-word" | "reinit-in-use")
        );
        if !deadlock {
            continue;
        }
        let opened = value["change"] == "opened";
        let finding = steady(value["finding"].take());
        match found.iter_mut().find(|known| known["id"] == finding["id"]) {
            Some(known) if !opened => *known = finding,
            _ => found.push(finding),
        }
    }
    Ok(found)
}

/// Fields that differ from run to run.
const VOLATILE: &[&str] = &[
    "since_ns",
    "opened_ns",
    "start_ns",
    "stack",
    "waited_ns",
    "cgroup",
    "cgroup_path",
    "container",
    "doing",
    "total_wait_ns",
    "longest_wait_ns",
];

fn steady(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| !VOLATILE.contains(&name.as_str()))
            .map(|(name, value)| (name, steady(value)))
            .collect(),
        Value::Array(values) => values.into_iter().map(steady).collect(),
        Value::String(text) => Value::String(timeless(&text)),
        other => other,
    }
}

/// `for 1.25 s, seen 5 times` becomes `for TIME, seen N times`.
fn timeless(text: &str) -> String {
    const UNITS: [&str; 6] = ["ns", "us", "ms", "s", "min", "h"];
    const COUNTED: [&str; 4] = ["times", "reads", "read", "samples"];
    let words: Vec<&str> = text.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(&word) = words.get(at) {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let (unit, end) = next.split_at(next.trim_end_matches([',', ':', ';', '.']).len());
        if word.parse::<f64>().is_ok() && UNITS.contains(&unit) {
            out.push(format!("TIME{end}"));
            at += 2;
        } else if word.parse::<u64>().is_ok() && COUNTED.contains(&unit) {
            out.push("N".to_owned());
            at += 1;
        } else if word == "at" && next.trim_end_matches(';').parse::<f64>().is_ok() {
            out.push("at INSTANT;".to_owned());
            at += 2;
        } else {
            out.push(word.to_owned());
            at += 1;
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_are_taken_out_and_nothing_else() {
        assert_eq!(
            timeless("a (119) has spun on 0x101 for 1.25 s, seen 5 times at CPU 1: 3 reads over 994 ms"),
            "a (119) has spun on 0x101 for TIME, seen N times at CPU 1: N reads over TIME"
        );
        assert_eq!(timeless("x at 15.181; at once"), "x at INSTANT; at once");
    }
}
