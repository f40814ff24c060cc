//! A CPU that spins with interrupts off on a lock whose word was overwritten, and what waits behind it. The whole finding is compared.

use super::armed::gone_within;
use super::findings::{FINDINGS, Named, deadlocks, snapshot};
use super::spin::{NOTHING_ATTACHED, PROBES_STAY};
use super::{GuestRun, Steps, VmTest, WITHOUT_RT, stalls};
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
            steps.limit(Duration::from_secs(120));
            steps.start_attached_shell("live", LIVE_TO_FILE);
            stalls::before_it_dies(steps);
            steps.trigger("dead-lock-word");
            steps.established("dead-lock-word");
            stalls::when_it_is_dead(steps);
            steps.truth("truth");
            told_and_ended(steps);
        },
        check: |run| dead_word(run, &ATTACHED_BEFORE),
    },
    VmTest {
        name: "after",
        kernels: WITHOUT_RT,
        group: "dead-lock-word",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(120));
            steps.truth("truth");
            steps.start_attached_shell("live", LIVE_TO_FILE);
            told_and_ended(steps);
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

/// For everything to be told, on a loaded machine.
const TOLD_WITHIN_S: u32 = 60;
const LIVE_TO_FILE: &str = "exec holdup live --json > /tmp/live.json";

/// What the whole finding about the dead CPU says: who waits, for what, and from where.
const DEAD_WORD_SAYS: [&str; 4] = [
    "has not answered lf_dlw_ipi",
    "lf_dlw_spin3",
    "lockfault_tlb_lock \\[lockfault\\]",
    "the words on the stack of lf_dlw_stuck",
];

/// Waits until all has been told, ends holdup, and looks whether it is gone within ten seconds although a CPU is dead.
fn told_and_ended(steps: &mut Steps) {
    let says = DEAD_WORD_SAYS.map(|text| format!("echo \"$last\" | grep -q '{text}'"));
    // When time is up the run ends all the same, and the comparison says what is missing.
    let told = format!(
        "now() {{ cut -d. -f1 /proc/uptime; }}; end=$(($(now) + {TOLD_WITHIN_S}))
         until last=$(grep '\"kind\":\"dead-lock-word\"' /tmp/live.json | tail -n 1); {}
         do [ $(now) -lt $end ] || exit 1; sleep 0.3; done",
        says.join(" && ")
    );
    steps.shell("told", &told);
    steps.signal("live", "INT");
    steps.shell("ended", &gone_within("live --json"));
    steps.wait("live");
    steps.shell("found", "cat /tmp/live.json");
}

/// What differs with holdup there before the fault: it has seen the wait begin, and has probes that it must leave behind.
struct Attached {
    certainty: &'static str,
    by: &'static str,
    since_begin: bool,
    told: fn(&GuestRun) -> Result<String>,
    findings: fn(&str) -> Result<Vec<Value>>,
    stderr: &'static str,
}

const ATTACHED_BEFORE: Attached = Attached {
    certainty: "proven",
    by: "tracepoint",
    since_begin: true,
    told: live_told,
    findings: deadlocks,
    stderr: PROBES_STAY,
};

const ATTACHED_AFTER: Attached = Attached {
    certainty: "likely",
    by: "cpu-sample",
    since_begin: false,
    told: live_told,
    findings: deadlocks,
    stderr: NOTHING_ATTACHED,
};

/// Attaches nothing that could stay.
const SNAPSHOT: Attached = Attached {
    told: |run| Ok(run.output("live")?.stdout().into_owned()),
    findings: snapshot,
    stderr: "holdup: looked at",
    ..ATTACHED_AFTER
};

/// What live has told in [`LIVE_TO_FILE`], once it is known to be gone.
fn live_told(run: &GuestRun) -> Result<String> {
    ensure!(
        run.output("ended")?.stdout().trim() == "gone",
        "it has not ended within 10 s of a dead CPU: {}",
        run.output("live")?.shown()
    );
    let told = run.output("found")?.stdout().into_owned();
    // The watchdog may not be late by then; that CPU 1 does not tick is known at once, as is that the others do.
    let report = told
        .lines()
        .last()
        .and_then(|line| serde_json::from_str::<Value>(line).ok());
    let overdue = stalls::with("timer_overdue_ns", &report.unwrap_or_default());
    ensure!(overdue == [1], "CPUs with an overdue timer: {overdue:?}\n{told}");
    Ok(told)
}

/// Where the stuck thread spins. KERNEL: `wait_for_completion_timeout` ends in a jump to `__wait_for_common`
/// (kernel/sched/completion.c); since 6.6 a thread begins in two functions (arch/x86/entry/entry_64.S).
fn stuck_at(release: &str) -> String {
    let begin = if release.starts_with("6.1.") {
        ""
    } else {
        " <- ret_from_fork_asm"
    };
    format!("_raw_spin_lock_irq <- __wait_for_common <- lockfault_dead_word_stuck <- kthread <- ret_from_fork{begin}")
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
    let told = (attached.told)(run)?;
    // Critical, but no deadlock: nobody holds the lock.
    output.exited_with(FINDINGS)?;
    let name = |tid: u32, comm: &str| json!({"tid": tid, "tgid": tid, "comm": comm, "context": "task"});
    let found: Vec<Value> = (attached.findings)(&told)?;
    let [finding] = found.as_slice() else {
        bail!("{} findings instead of one\n{}\n{told}", found.len(), output.shown());
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
    let stuck_at = stuck_at(&run.release);
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
                "CPU 1: {who} spins on {spinlock}, whose word says that nobody holds it; likely at \
                 lockfault_dead_word_stuck: it was overwritten while in use"
            )),
        ),
        (
            "evidence",
            json!([
                {"source": attached.by, "text": format!("{who} has spun on {spinlock} for TIME")},
                {"source": "owner-word", "text": format!("word of {spinlock} is 0x80100: no holder in N reads over TIME")},
                {"source": "stack-frames", "text": format!("the words on the stack of {who}, which cannot be sampled there, read as \
                    return addresses of calls: {stuck_at}")},
                {"source": "cpu-sample", "text": format!("CPU 1 has not answered lf_dlw_ipi ({ipi}) for TIME: its interrupts are off")},
            ]),
        ),
    ];
    for (field, value) in &wanted {
        ensure!(
            finding[field] == *value,
            "{field} is\n{:#}\ninstead of\n{value:#}\n{}\n{told}",
            finding[field],
            output.shown()
        );
    }
    let site = &finding["tasks"][0]["site"];
    ensure!(*site == "lockfault_dead_word_stuck", "it spins at {site}");
    let victims = &finding["victims"];
    ensure!(victims["count"] == 2, "victims: {victims:#}");
    output.stderr_has(attached.stderr)
}
