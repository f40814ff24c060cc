//! A CPU that spins with interrupts off on a lock whose word was overwritten, and what waits behind it. The whole finding is compared.

use super::findings::{FINDINGS, Named, deadlocks, snapshot};
use super::spin::{NOTHING_ATTACHED, PROBES_STAY};
use super::{GuestRun, VmTest, WITHOUT_RT};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "before",
        kernels: WITHOUT_RT,
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
        kernels: WITHOUT_RT,
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
        kernels: WITHOUT_RT,
        group: "dead-lock-word",
        expects: &[],
        steps: |steps| {
            steps.truth("truth");
            steps.limit(Duration::from_secs(10));
            steps.holdup("live", &["snapshot", "--json"]);
        },
        check: |run| dead_word(run, &SNAPSHOT),
    },
];

/// What differs with holdup there before the fault: it has seen the wait begin, and has probes that it must leave behind.
struct Attached {
    certainty: &'static str,
    by: &'static str,
    since_begin: bool,
    findings: fn(&str) -> Result<Vec<Value>>,
    stderr: &'static str,
}

const ATTACHED_BEFORE: Attached = Attached {
    certainty: "proven",
    by: "tracepoint",
    since_begin: true,
    findings: deadlocks,
    stderr: PROBES_STAY,
};

const ATTACHED_AFTER: Attached = Attached {
    certainty: "likely",
    by: "cpu-sample",
    since_begin: false,
    findings: deadlocks,
    stderr: NOTHING_ATTACHED,
};

/// Attaches nothing that could stay.
const SNAPSHOT: Attached = Attached {
    findings: snapshot,
    stderr: "holdup: looked at",
    ..ATTACHED_AFTER
};

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
    let found: Vec<Value> = (attached.findings)(&output.stdout())?;
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
    output.stderr_has(attached.stderr)
}
