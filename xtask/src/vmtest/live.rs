//! Verdicts of `holdup live`: attached before the faults, the findings compared in full; and a healthy machine.
//!
//! The scenarios of a boot do not disturb each other, and what one test has broken stays broken: the next one starts on a broken
//! machine, must tell of that as well, and of nothing else.

use super::findings::DEADLOCK;
use super::verdict::{
    DEADLOCKS, HOLDERS, INVERSIONS, ORPHAN, READER_IO, RWSEM_AA, Verdict, WAITING_HOLDERS, judge, report, says, start,
};
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// For everything to be told, on a loaded machine.
const TOLD_WITHIN_S: u32 = 180;

/// Deadlocks, an orphan, a reader in I/O, and orders that only might deadlock.
fn lasting() -> Vec<&'static Verdict> {
    let singles = [&RWSEM_AA, &ORPHAN, &READER_IO];
    DEADLOCKS.iter().chain(singles).collect()
}

/// Holders that let go in a while.
fn holders() -> Vec<&'static Verdict> {
    HOLDERS.iter().chain(WAITING_HOLDERS).collect()
}

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "lasting",
        kernels: WITHOUT_RT,
        group: "live",
        expects: &[],
        steps: |steps| {
            let all = [INVERSIONS.iter().collect(), lasting()].concat();
            watch(steps, "lasting", &all, |steps| {
                for verdict in INVERSIONS {
                    steps.trigger(&format!("{} {}", verdict.scenario, verdict.parameters));
                    steps.done(verdict.scenario);
                }
                lasting().into_iter().for_each(|verdict| start(steps, verdict));
            });
        },
        check: |run| {
            let all = [INVERSIONS.iter().collect(), lasting()].concat();
            compare(run, "lasting", &all)
        },
    },
    VmTest {
        name: "holders",
        kernels: WITHOUT_RT,
        group: "live",
        expects: &[],
        steps: |steps| {
            let all = [holders(), lasting()].concat();
            watch(steps, "holders", &all, |steps| {
                holders().into_iter().for_each(|verdict| start(steps, verdict));
            });
        },
        check: |run| compare(run, "holders", &[holders(), lasting()].concat()),
    },
    HEALTHY,
    EXITED,
];

/// Runs `holdup live` while `break_it` happens, until all of `verdicts` have been told.
fn watch(steps: &mut Steps, label: &str, verdicts: &[&Verdict], break_it: impl FnOnce(&mut Steps)) {
    steps.limit(Duration::from_secs(600));
    let file = format!("/tmp/{label}.json");
    steps.start_attached_shell(&format!("{label}-live"), &format!("exec holdup live --json > {file}"));
    break_it(steps);
    let told = says(verdicts, &file);
    // When time is up the run ends all the same, and the comparison says what is missing.
    let wait = format!(
        "now() {{ cut -d. -f1 /proc/uptime; }}; end=$(($(now) + {TOLD_WITHIN_S})); \
         until {told}; do [ $(now) -lt $end ] || exit 1; sleep 0.5; done"
    );
    steps.shell(&format!("{label}-told"), &wait);
    steps.truth(&format!("{label}-truth"));
    steps.signal(&format!("{label}-live"), "INT");
    steps.wait(&format!("{label}-live"));
    steps.shell(label, &format!("cat {file}"));
}

fn compare(run: &GuestRun, label: &str, verdicts: &[&Verdict]) -> Result<()> {
    let truth = run.truth(&format!("{label}-truth"))?;
    judge(&report(run, label)?, &truth, verdicts, "warning")?;
    run.output(&format!("{label}-told"))?.exited_with(0)?;
    run.output(&format!("{label}-live"))?.exited_with(DEADLOCK)
}

/// Two minutes of real work: files, processes, mounts, pipes. Nothing hangs, so nothing may be called a deadlock.
const HEALTHY: VmTest = VmTest {
    name: "healthy",
    kernels: WITHOUT_RT,
    group: "healthy",
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(400));
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

/// Threads that have exited have no stack any more, so none of theirs is lost.
const EXITED: VmTest = VmTest {
    name: "exited",
    kernels: WITHOUT_RT,
    group: "healthy",
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(120));
        // What a shell has started is left to what takes its place, which does not wait for it. Without a path `true` is the shell's.
        let leave = "for i in 1 2 3 4 5 6 7 8; do /bin/true & done; exec sleep 100";
        steps.start_shell("parent", leave);
        let zombies = "zombies() { cat /proc/[0-9]*/stat 2>/dev/null | grep -c '^[0-9]* (true) Z'; }";
        steps.shell(
            "before",
            &format!("{zombies}; until [ $(zombies) -eq 8 ]; do sleep 0.1; done"),
        );
        steps.holdup("live", &["live", "--json", "--duration", "2"]);
        steps.shell("after", &format!("{zombies}; [ $(zombies) -eq 8 ]"));
        steps.signal("parent", "KILL");
        steps.wait("parent");
    },
    check: |run| {
        run.output("before")?.exited_with(0).context("nothing had exited")?;
        run.output("after")?.exited_with(0).context("they did not stay")?;
        let output = run.output("live")?;
        output.exited_with(0)?;
        let stdout = output.stdout();
        let last = stdout.lines().last().context("nothing was told")?;
        let report: Value = serde_json::from_str(last)?;
        let losses = report["losses"].as_array().context("no report at the end")?;
        ensure!(
            losses.iter().all(|loss| loss["cause"] != "stack-lost"),
            "stacks of exited threads are counted as lost: {losses:?}"
        );
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
