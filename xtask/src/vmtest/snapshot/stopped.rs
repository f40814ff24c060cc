//! Holders that somebody has stopped: a signal, a tracer, a freezer. The processes and what stops them are the kernel's own.

use super::check::whole;
use crate::vm::console::Marker::HungTask;
use crate::vmtest::{Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

const SCENARIO: &str = "holder-in-user";
/// A process with a mutex, in user space.
const HOLD: &str =
    "( echo holder-in-user > /proc/lockfault; exec sleep 100000 ) > /dev/null 2>&1 & echo $! > /tmp/user.pid";
const STOP: &str = "pid=$(cat /tmp/user.pid); kill -STOP $pid; until grep -q '^State:.T (stopped)' /proc/$pid/status; do sleep 0.1; done";
const TRACE: &str = "pid=$(cat /tmp/user.pid); kill -CONT $pid; /init work trace $pid > /tmp/tracer 2>&1 & \
    until grep -q stopped /tmp/tracer; do kill -0 $! || exit 1; sleep 0.1; done; cut -d' ' -f2 /tmp/tracer";
const FREEZE: &str = "pid=$(cat /tmp/user.pid); tracer=$(cut -d' ' -f2 /tmp/tracer); kill -9 $tracer; \
    until ! grep -q 'tracing stop' /proc/$pid/status; do sleep 0.1; done; \
    mkdir -p /tmp/v2 && mount -t cgroup2 none /tmp/v2 && mkdir /tmp/v2/frozen && echo $pid > /tmp/v2/frozen/cgroup.procs && \
    echo 1 > /tmp/v2/frozen/cgroup.freeze && until grep -q 'frozen 1' /tmp/v2/frozen/cgroup.events; do sleep 0.1; done";
const FREEZE_V1: &str = "pid=$(cat /tmp/user.pid); echo 0 > /tmp/v2/frozen/cgroup.freeze && umount /tmp/v2 && \
    mkdir -p /tmp/v1 && mount -t cgroup -o freezer none /tmp/v1 && mkdir /tmp/v1/frozen && echo $pid > /tmp/v1/frozen/cgroup.procs && \
    echo FROZEN > /tmp/v1/frozen/freezer.state && until grep -q FROZEN /tmp/v1/frozen/freezer.state; do sleep 0.1; done";
const THAW: &str = "echo THAWED > /tmp/v1/frozen/freezer.state && umount /tmp/v1";

/// Label, what stops the holder, and what is then said of it.
const STOPS: &[(&str, &str, &str)] = &[
    ("stop", STOP, "and is stopped; 2 tasks wait behind it"),
    ("trace", TRACE, "stopped as its tracer, which holds mutex"),
    ("freeze", FREEZE, "and is frozen; 2 tasks wait behind it"),
    ("freeze-v1", FREEZE_V1, "and is frozen; 2 tasks wait behind it"),
];

pub const HOLDERS: VmTest = VmTest {
    name: "stopped-holders",
    kernels: WITHOUT_RT,
    group: "snapshot",
    expects: &[HungTask],
    steps: |steps| {
        steps.shell("hold", HOLD);
        steps.established(SCENARIO);
        steps.truth("user-truth");
        for (label, script, says) in STOPS {
            steps.shell(label, script);
            until_proven(steps, &format!("{label}-snapshot"), says);
        }
        steps.shell("thaw", THAW);
    },
    check: |run| {
        let truth = run.truth("user-truth")?;
        let holder = u64::from(truth.task(SCENARIO, "holder")?);
        let waiters: BTreeSet<u64> = truth.tasks(SCENARIO, "waiter").into_iter().map(u64::from).collect();
        let address = format!("{:#018x}", truth.lock("lockfault_in_user_mutex")?);
        let holds = format!("holds mutex lockfault_in_user_mutex [lockfault] ({address})");
        for (label, ..) in STOPS {
            run.output(label)?.exited_with(0)?;
            run.output(&format!("{label}-snapshot"))?.exited_with(4)?;
            let (tasks, title, victims);
            if *label == "trace" {
                tasks = run.output(label)?.stdout().trim().parse::<u64>()?;
                title = format!(
                    "work-trace ({tasks}) keeps sleep ({holder}) stopped as its tracer, which {holds}, \
                     and is asleep (interruptible); 3 tasks wait behind it"
                );
                victims = waiters.iter().copied().chain([holder]).collect();
            } else {
                let how = if *label == "stop" { "stopped" } else { "frozen" };
                tasks = holder;
                title = format!("sleep ({holder}) {holds} and is {how}; 2 tasks wait behind it");
                victims = waiters.clone();
            }
            let report = whole(run, &format!("{label}-snapshot"))?;
            let finding = only_about(&report, |finding| finding["locks"][0]["address"] == address)?;
            same(finding, "proven", tasks, &title, &victims).with_context(|| format!("{label}: {finding:#}"))?;
        }
        run.output("thaw")?.exited_with(0)
    },
};

/// A parent in vfork waits for its child, and that for its tracer. No lock is in it.
pub const VFORK: VmTest = VmTest {
    name: "vfork",
    kernels: WITHOUT_RT,
    group: "snapshot",
    expects: &[HungTask],
    steps: |steps| {
        steps.shell(
            "vfork",
            "/init work trace-vfork > /tmp/vfork 2>&1 & \
             until grep -q child /tmp/vfork; do kill -0 $! || exit 1; sleep 0.1; done; cat /tmp/vfork",
        );
        until(steps, "vfork-snapshot", "stopped as its tracer and is asleep", "likely");
        steps.shell(
            "vfork-goes-on",
            "set -- $(cat /tmp/vfork); kill -9 $2; until ! grep -q 'tracing stop' /proc/$6/status; do sleep 0.1; done",
        );
    },
    check: |run| {
        run.output("vfork")?.exited_with(0)?;
        run.output("vfork-snapshot")?.exited_with(4)?;
        let line = run.output("vfork")?.stdout().into_owned();
        let pids: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [tracer, parent, child] = pids.as_slice() else {
            anyhow::bail!("not three processes: {line}");
        };
        let report = whole(run, "vfork-snapshot")?;
        let finding = only_about(&report, |finding| finding["tasks"][0]["tid"] == *tracer)?;
        let title = format!(
            "work-trace-vfor ({tracer}) keeps work-spawn ({child}) stopped as its tracer and is asleep (interruptible); \
             2 tasks wait behind it"
        );
        let victims = BTreeSet::from([*parent, *child]);
        same(finding, "likely", *tracer, &title, &victims).with_context(|| format!("{finding:#}"))?;
        run.output("vfork-goes-on")?.exited_with(0)
    },
};

fn until_proven(steps: &mut Steps, label: &str, says: &str) {
    until(steps, label, says, "proven");
}

/// Takes snapshots until one has a finding that says this with a warning.
fn until(steps: &mut Steps, label: &str, says: &str, certainty: &str) {
    super::until(steps, label, |file| {
        format!(
            "sed 's/\"id\":/\\n&/g' {file} | grep -F '{says}' | grep -F '\"severity\":\"warning\"' | \
             grep -qF '\"certainty\":\"{certainty}\"'"
        )
    });
}

fn only_about(report: &Value, is_about: impl Fn(&Value) -> bool) -> Result<&Value> {
    let mut all = report["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|f| is_about(f));
    let finding = all.next().with_context(|| format!("no finding: {report:#}"))?;
    ensure!(all.next().is_none(), "more findings than are true");
    Ok(finding)
}

/// Compares a finding about one task.
fn same(finding: &Value, certainty: &str, task: u64, title: &str, victims: &BTreeSet<u64>) -> Result<()> {
    ensure!(
        finding["kind"] == "root-blocker" && finding["severity"] == "warning",
        "of another kind"
    );
    ensure!(finding["certainty"] == certainty, "not {certainty}");
    let tids = |list: &Value, of: fn(&Value) -> &Value| -> BTreeSet<u64> {
        let items = list.as_array().into_iter().flatten();
        items.filter_map(|item| of(item)["tid"].as_u64()).collect()
    };
    ensure!(
        tids(&finding["tasks"], |task| task) == BTreeSet::from([task]),
        "other tasks than {task}"
    );
    ensure!(finding["title"] == title, "the title is not {title:?}");
    ensure!(
        tids(&finding["victims"]["tasks"], |victim| &victim["waiter"]) == *victims
            && finding["victims"]["count"] == victims.len(),
        "other victims than {victims:?}"
    );
    Ok(())
}
