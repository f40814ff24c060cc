//! Verdicts of `holdup live`, attached before the fault: each hanging scenario, its findings compared in full.

use super::{GuestRun, Steps, VmTest};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What must be open in the end for one scenario.
struct Verdict {
    scenario: &'static str,
    /// `name=value` parameters of the scenario.
    parameters: &'static str,
    /// What ends the run.
    until: &'static str,
    exit: i32,
    findings: &'static [Expected],
}

/// A finding.
pub(super) struct Expected {
    pub(super) kind: &'static str,
    pub(super) certainty: &'static str,
    /// Roles of the tasks it names, as a set.
    pub(super) tasks: &'static [&'static str],
    /// Names of the locks it names in the module's listing, as a set.
    pub(super) locks: &'static [&'static str],
    /// Role of the first waiter of the chain, and its call site.
    pub(super) first: (&'static str, &'static str),
    /// Roles whose tasks are all victims.
    pub(super) victims: &'static [&'static str],
    /// Roles whose tasks may be victims, too: what waits behind a flush shows with the next look at all threads.
    pub(super) later: &'static [&'static str],
    /// Must stand in the title.
    pub(super) title: &'static str,
}

const MUTEX_AA: Verdict = Verdict {
    scenario: "mutex-aa",
    parameters: "",
    until: "deadlock",
    exit: 3,
    findings: &[Expected {
        kind: "self-deadlock",
        certainty: "proven",
        tasks: &["worker"],
        locks: &["lockfault_aa_mutex"],
        first: ("worker", "lockfault_mutex_aa_inner"),
        victims: &[],
        later: &["flusher"],
        title: "that it holds itself; at lockfault_mutex_aa_inner",
    }],
};

const WW_MUTEX_AA: Verdict = Verdict {
    scenario: "ww-mutex-aa",
    parameters: "",
    until: "deadlock",
    exit: 3,
    findings: &[Expected {
        kind: "self-deadlock",
        certainty: "proven",
        tasks: &["worker"],
        locks: &["heap.ww_aa.reservation"],
        first: ("worker", "lockfault_ww_mutex_aa_reserve"),
        victims: &[],
        later: &["flusher"],
        title: "that it holds itself; at lockfault_ww_mutex_aa_reserve",
    }],
};

const MUTEX_ABBA: Verdict = Verdict {
    scenario: "mutex-abba",
    parameters: "",
    until: "deadlock",
    exit: 3,
    findings: &[Expected {
        kind: "cycle",
        certainty: "proven",
        tasks: &["first", "second"],
        locks: &["lockfault_abba_a", "lockfault_abba_b"],
        first: ("first", "lockfault_mutex_abba_first"),
        victims: &[],
        later: &[],
        title: "wait for each other",
    }],
};

const MIXED_CYCLE: Verdict = Verdict {
    scenario: "mixed-cycle",
    parameters: "",
    until: "deadlock",
    exit: 3,
    findings: &[Expected {
        kind: "cycle",
        certainty: "proven",
        tasks: &["mutex-holder", "rwsem-holder", "rtmutex-holder"],
        locks: &["heap.mixed.mutex", "heap.mixed.rwsem", "heap.mixed.rtmutex"],
        first: ("mutex-holder", "lockfault_mixed_mutex_holder"),
        victims: &[],
        later: &[],
        title: "3 tasks wait for each other in a circle",
    }],
};

const HOLDER_ASLEEP: Verdict = Verdict {
    scenario: "holder-asleep",
    parameters: "ms=20000",
    until: "finding",
    exit: 0,
    findings: &[Expected {
        kind: "root-blocker",
        certainty: "proven",
        tasks: &["holder"],
        locks: &["lockfault_asleep_mutex"],
        first: ("waiter", ""),
        victims: &["waiter"],
        later: &[],
        title: "is asleep (uninterruptible); 8 tasks wait behind it",
    }],
};

const HOLDER_RUNNING: Verdict = Verdict {
    scenario: "holder-running",
    parameters: "ms=10000",
    until: "finding",
    exit: 0,
    findings: &[Expected {
        kind: "root-blocker",
        certainty: "proven",
        tasks: &["holder"],
        locks: &["heap.running.lock"],
        first: ("waiter", ""),
        victims: &["waiter"],
        later: &[],
        title: "is running on CPU 1; 2 tasks wait behind it",
    }],
};

const HOLDER_STARVED: Verdict = Verdict {
    scenario: "holder-starved",
    parameters: "ms=10000",
    until: "finding",
    exit: 0,
    findings: &[Expected {
        kind: "root-blocker",
        certainty: "proven",
        tasks: &["holder"],
        locks: &["lockfault_starved_mutex"],
        first: ("waiter", ""),
        victims: &["waiter"],
        later: &[],
        title: "is runnable, but has no CPU; 2 tasks wait behind it",
    }],
};

const STOCK: &[&str] = &["6.1", "6.12"];

/// A boot each: a deadlock stays, and the look at the start of `live` would find it again.
macro_rules! tests {
    ($($verdict:ident: $name:literal in $group:literal;)*) => {
        pub const TESTS: &[VmTest] = &[
            $(VmTest {
                name: $name,
                kernels: STOCK,
                group: $group,
                expects: &[],
                steps: |steps| watch(steps, &$verdict),
                check: |run| judge(run, &$verdict),
            },)*
            HEALTHY,
        ];
    };
}

tests! {
    MUTEX_AA: "mutex-aa" in "live-mutex-aa";
    WW_MUTEX_AA: "ww-mutex-aa" in "live-ww-mutex-aa";
    MUTEX_ABBA: "mutex-abba" in "live-mutex-abba";
    MIXED_CYCLE: "mixed-cycle" in "live-mixed-cycle";
    HOLDER_ASLEEP: "holder-asleep" in "live-holder-asleep";
    HOLDER_RUNNING: "holder-running" in "live-holder-running";
    HOLDER_STARVED: "holder-starved" in "live-holder-starved";
}

/// Two minutes of real work: files, processes, mounts, pipes. Nothing hangs, so nothing may be called a deadlock.
const HEALTHY: VmTest = VmTest {
    name: "healthy",
    kernels: STOCK,
    group: "healthy",
    expects: &[],
    steps: |steps| {
        steps.limit(std::time::Duration::from_secs(400));
        steps.start_attached("live", &["live", "--json", "--reinit"]);
        steps.shell("work", WORK);
        steps.signal("live", "INT");
        steps.wait("live");
    },
    check: |run| {
        run.output("work")?.exited_with(0)?;
        let output = run.output("live")?;
        output
            .exited_with(0)
            .context("a finding of severity warning or above on a healthy machine")?;
        let mut report = false;
        for line in output.stdout().lines() {
            let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            report |= value["type"] == "report";
            let kind = value["finding"]["kind"].as_str().unwrap_or_default();
            ensure!(
                ![
                    "self-deadlock",
                    "cycle",
                    "context-deadlock",
                    "dead-lock-word",
                    "reinit-in-use",
                    "orphaned-lock"
                ]
                .contains(&kind),
                "a false {kind}: {line}"
            );
        }
        ensure!(report, "no report at the end");
        Ok(())
    },
};

/// Two minutes (or `WORK_SECONDS`) by the clock of the guest, as the issue is how much is done and not when.
pub(super) const WORK: &str = "end=$(( $(cut -d. -f1 /proc/uptime) + ${WORK_SECONDS:-120} ))
running() { [ $(cut -d. -f1 /proc/uptime) -lt $end ]; }
mkdir -p /tmp/work
for i in 1 2 3 4; do (while running; do mkdir -p /tmp/work/$i/a/b; echo x > /tmp/work/shared; rm -r /tmp/work/$i; done) & done
(while running; do mkdir -p /tmp/mnt; mount -t tmpfs t /tmp/mnt; echo y > /tmp/mnt/f; umount /tmp/mnt; done) &
(while running; do for i in 1 2 3 4 5 6 7 8; do cat /proc/mounts | wc -l > /dev/null & done; wait; done) &
(while running; do dd if=/dev/zero of=/tmp/big bs=64k count=200 2>/dev/null; done) &
wait";

fn watch(steps: &mut Steps, verdict: &Verdict) {
    let scenario = verdict.scenario;
    steps.start_attached(
        scenario,
        &["live", "--json", "--until", verdict.until, "--duration", "60"],
    );
    steps.trigger(format!("{scenario} {}", verdict.parameters).trim());
    steps.wait(scenario);
    steps.truth(&format!("{scenario}-truth"));
}

fn judge(run: &GuestRun, verdict: &Verdict) -> Result<()> {
    compare(run, verdict).with_context(|| verdict.scenario)
}

fn compare(run: &GuestRun, verdict: &Verdict) -> Result<()> {
    let truth = run.truth(&format!("{}-truth", verdict.scenario))?;
    let output = run.output(verdict.scenario)?;
    output.exited_with(verdict.exit)?;
    let locks: BTreeMap<&str, String> = truth
        .locks
        .iter()
        .map(|(name, address)| (name.as_str(), format!("{address:#018x}")))
        .collect();
    // Every finding that touches a lock of the scenario, and every one of severity warning or above; what is left is the machine's
    // own contention.
    let ours: BTreeSet<&String> = verdict
        .findings
        .iter()
        .flat_map(|finding| finding.locks)
        .filter_map(|name| locks.get(name))
        .collect();
    let mut open = still_open(&output.stdout())?;
    open.retain(|finding| {
        let mut named = finding["locks"].as_array().into_iter().flatten();
        finding["severity"] != "info" || named.any(|lock| ours.iter().any(|address| lock["address"] == ***address))
    });
    for expected in verdict.findings {
        let Some(at) = open.iter().position(|finding| finding["kind"] == expected.kind) else {
            bail!("no {} among {open:?}: {}", expected.kind, output.shown());
        };
        let finding = open.swap_remove(at);
        let pids = |roles: &[&str]| -> BTreeSet<u64> {
            let tasks = roles.iter().flat_map(|role| truth.tasks(verdict.scenario, role));
            tasks.map(u64::from).collect()
        };
        same_finding(&finding, expected, &locks, pids).with_context(|| format!("{finding:#}\n{:?}", truth.tasks))?;
    }
    ensure!(open.is_empty(), "more findings than are true: {open:?}");
    Ok(())
}

/// Compares one finding as a whole. `pids` gives the tasks of some roles.
pub(super) fn same_finding(
    finding: &Value,
    expected: &Expected,
    locks: &BTreeMap<&str, String>,
    pids: impl Fn(&[&str]) -> BTreeSet<u64>,
) -> Result<()> {
    ensure!(finding["certainty"] == expected.certainty, "not {}", expected.certainty);
    let title = finding["title"].as_str().unwrap_or_default();
    ensure!(title.contains(expected.title), "the title lacks {:?}", expected.title);
    let numbers = |list: &Value| -> BTreeSet<u64> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["tid"].as_u64())
            .collect()
    };
    ensure!(
        numbers(&finding["tasks"]) == pids(expected.tasks),
        "other tasks than {:?}",
        expected.tasks
    );
    let named: BTreeSet<&str> = finding["locks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|lock| lock["address"].as_str())
        .collect();
    let wanted: BTreeSet<&str> = expected
        .locks
        .iter()
        .filter_map(|name| locks.get(name))
        .map(String::as_str)
        .collect();
    ensure!(
        wanted.len() == expected.locks.len(),
        "the module does not list {:?}",
        expected.locks
    );
    ensure!(named == wanted, "other locks than {:?}", expected.locks);
    let victims: BTreeSet<u64> = finding["victims"]["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|victim| victim["waiter"]["tid"].as_u64())
        .collect();
    ensure!(
        victims.is_superset(&pids(expected.victims)),
        "not all of {:?} are victims",
        expected.victims
    );
    let allowed = &pids(expected.victims) | &pids(expected.later);
    ensure!(
        victims.is_subset(&allowed),
        "other victims than {:?} and {:?}",
        expected.victims,
        expected.later
    );
    let (role, site) = expected.first;
    let first = finding["chain"][0]["waiter"]["tid"].as_u64().context("no chain")?;
    ensure!(pids(&[role]).contains(&first), "the chain does not begin with {role}");
    let party = finding["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|task| task["tid"] == first);
    ensure!(
        site.is_empty() || party.is_some_and(|task| task["site"] == site),
        "the call site is not {site}"
    );
    Ok(())
}

/// Findings that were opened and not closed, as they were last told.
fn still_open(stdout: &str) -> Result<Vec<Value>> {
    let mut open = BTreeMap::new();
    for line in stdout.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        if value["type"] != "finding" {
            continue;
        }
        let finding = &value["finding"];
        let id = finding["id"].to_string();
        if value["change"] == "closed" {
            open.remove(&id);
        } else {
            open.insert(id, finding.clone());
        }
    }
    Ok(open.into_values().collect())
}
