//! How far a snapshot reaches: waits that are no locks, interruptible sleepers, a machine whose `/proc/PID` cannot be read.

use super::check::whole;
use super::{holders, until};
use crate::vmtest::verdict::judge;
use crate::vmtest::waits::all_wait;
use crate::vmtest::{VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Hides what is below `/proc/PID` of every process, takes a snapshot, and shows it again. 99: not everything was hidden.
const BLIND: &str = r#"
    mkdir -p /tmp/none
    for process in /proc/[0-9]*; do mount --bind /tmp/none $process 2> /dev/null && echo $process; done > /tmp/hidden
    seen=0
    for process in $(cat /tmp/hidden); do if [ -e $process/stat ]; then seen=1; fi; done
    holdup snapshot --json > /tmp/blind 2> /tmp/blind.err
    code=$?
    for process in $(cat /tmp/hidden); do umount $process; done
    if [ $seen = 1 ] || ! grep -qx /proc/1 /tmp/hidden; then exit 99; fi
    cat /tmp/blind; cat /tmp/blind.err >&2
    exit $code
"#;

/// Two readers of one descriptor: `devkmsg_read` waits for messages with a mutex, and whoever comes next waits for that. Both sleep
/// interruptibly, as is their nature.
const READERS: &str =
    "exec 3< /dev/kmsg; for reader in 1 2; do cat <&3 > /dev/null 2>&1 & echo $!; done | tee /tmp/readers";

pub const OTHER_WAITS: VmTest = VmTest {
    name: "other-waits",
    kernels: WITHOUT_RT,
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.trigger("other-waits ms=600000");
        steps.established("other-waits");
        steps.truth("other-truth");
        until(steps, "other", |file| {
            format!("grep -qF '; 4 tasks wait behind it' {file}")
        });
    },
    check: |run| {
        let (report, truth) = (whole(run, "other")?, run.truth("other-truth")?);
        all_wait(&report, &truth)?;
        // Nobody knows who completes a completion: it counts as not explained, with its stack.
        let waiter = truth.task("other-waits", "waiter")?;
        let coverage = &report["coverage"];
        let mut groups = coverage["groups"].as_array().into_iter().flatten();
        let group = groups
            .find(|group| group["tasks"][0]["tid"] == waiter)
            .with_context(|| format!("{coverage:#}"))?;
        ensure!(
            group["count"] == 1 && group["site"] == "lockfault_other_waits_waiter",
            "{group:#}"
        );
        let stack = group["stack"].as_str().context("no stack")?;
        ensure!(report["stacks"][stack].is_array(), "its stack is not told");
        let count = |field: &str| coverage[field].as_u64().context("no number");
        let grouped = coverage["groups"].as_array().into_iter().flatten();
        let grouped: u64 = grouped.filter_map(|group| group["count"].as_u64()).sum();
        ensure!(
            count("waiting")? == count("explained")? + grouped,
            "not everybody is in a group: {coverage:#}"
        );
        Ok(())
    },
};

pub const BLIND_TO_PROC: VmTest = VmTest {
    name: "proc-unreadable",
    kernels: WITHOUT_RT,
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.shell("blind", BLIND);
        steps.truth("blind-truth");
    },
    check: |run| {
        run.output("blind")?.exited_with(4)?;
        let truth = run.truth("blind-truth")?;
        judge(&whole(run, "blind")?, &truth, &holders(), "critical")
    },
};

pub const ALL: VmTest = VmTest {
    name: "interruptible",
    kernels: WITHOUT_RT,
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.shell("readers", READERS);
        steps.shell(
            "all",
            "until holdup snapshot --all --json > /tmp/all; sed 's/\"id\":/\\n&/g' /tmp/all | \
             grep 'cat ([0-9]*) holds mutex' | grep -qF '; 1 task waits behind it'; do sleep 0.5; done; cat /tmp/all",
        );
        steps.holdup("without-all", &["snapshot", "--json"]);
        steps.shell("readers-end", "kill $(cat /tmp/readers)");
    },
    check: |run| {
        let readers: Vec<u64> = run
            .output("readers")?
            .stdout()
            .lines()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let all = whole(run, "all")?;
        let waiting = lock_waits(&all, &readers);
        let [(waiter, row)] = waiting.as_slice() else {
            anyhow::bail!("{} of {readers:?} wait for a lock", waiting.len());
        };
        let blocker = row["blocked_by"].as_u64().context("nobody is in its way")?;
        let blocker = &all["tasks"][usize::try_from(blocker)?];
        let other = readers.iter().find(|reader| *reader != waiter);
        ensure!(
            row["state"] == "interruptible" && row["wait"]["lock"]["kind"] == "mutex",
            "{row:#}"
        );
        ensure!(other.is_some_and(|&other| blocker["tid"] == other), "{blocker:#}");
        let shown = lock_waits(&whole(run, "without-all")?, &readers).len();
        ensure!(
            shown == 0,
            "an interruptible sleeper that holds nobody up is shown without --all"
        );
        Ok(())
    },
};

/// The rows of those threads that wait for a lock.
fn lock_waits(report: &Value, tids: &[u64]) -> Vec<(u64, Value)> {
    let rows = report["tasks"].as_array().into_iter().flatten();
    rows.filter(|row| row["wait"]["lock"].is_object())
        .filter_map(|row| Some((row["tid"].as_u64()?, row.clone())))
        .filter(|(tid, _)| tids.contains(tid))
        .collect()
}
