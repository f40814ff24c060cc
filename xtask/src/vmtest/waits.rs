//! Waits that are no locks, in a run that has begun before them: they show with their age and with who has to act, and go when over.

use super::truth::Truth;
use super::{GuestRun, VmTest};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;

const FILE: &str = "/out/waits";

/// In a boot that nothing else disturbs.
pub const TESTS: &[VmTest] = &[VmTest {
    name: "other-waits",
    kernels: &["6.1", "6.12"],
    group: "healthy",
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(300));
        steps.start_attached("live", &["record", "-o", FILE, "--json"]);
        // The looks of the start are over, and nothing is left to look at.
        steps.shell("calm", &until("! grep -q '\"dependency\":\"' /tmp/tasks"));
        steps.trigger("other-waits ms=240000");
        steps.established("other-waits");
        // That a worker keeps four tasks waiting for many seconds is worth a warning.
        let all = WAITING
            .iter()
            .map(|(_, comm, _)| format!("grep -q '\"{comm}\"' /tmp/tasks"))
            .chain(["grep -q '\"severity\":\"warning\"' /tmp/r".to_owned()]);
        steps.shell("during", &until(&all.collect::<Vec<_>>().join(" && ")));
        steps.truth("truth");
        steps.end("other-waits");
        steps.done("other-waits");
        steps.shell("after", &until("! grep -q '\"lf_ow_' /tmp/tasks"));
        steps.signal("live", "INT");
        steps.wait("live");
    },
    check,
}];

/// Role, name, and for what it waits.
const WAITING: &[(&str, &str, &str)] = &[
    ("flusher", "lf_ow_flush", "lockfault_other_waits_worker"),
    ("canceller", "lf_ow_cancel", "lockfault_other_waits_worker"),
    ("wq-flusher", "lf_ow_wq", "workqueue"),
    ("drainer", "lf_ow_drain", "workqueue"),
    ("waiter", "lf_ow_wait", "completion"),
    ("reader", "lf_ow_read", "I/O"),
];
/// Roles behind the worker.
const BEHIND: &[&str] = &["flusher", "canceller", "wq-flusher", "drainer"];

/// Prints the report of the recording so far, once this holds of the tasks that it says are waiting (`/tmp/tasks`).
fn until(condition: &str) -> String {
    format!(
        "until holdup report {FILE} --json > /tmp/r 2>/dev/null; sed 's/.*\"locks_left_out\"//' /tmp/r > /tmp/tasks; {condition}
         do sleep 0.3; done; cat /tmp/r"
    )
}

fn check(run: &GuestRun) -> Result<()> {
    let live = run.output("live")?;
    live.exited_with(4)?;
    live.stdout_has("is waited for and waits for wait queue lockfault_slow_queue [lockfault] (")?;
    live.stdout_has("; 4 tasks wait behind it")?;
    live.stdout_has("\"change\":\"closed\"")?;
    let calm = run.output("calm")?;
    calm.exited_with(0).context("it never came to rest")?;
    let calm: Value = serde_json::from_str(&calm.stdout()).context("no report")?;
    let during = run.output("during")?;
    during.exited_with(0).context("not all waits were seen")?;
    let report: Value = serde_json::from_str(&during.stdout()).context("no report")?;
    let truth = run.truth("truth")?;
    // Nobody waited yet when it was calm.
    let time = |report: &Value| report["time_ns"].as_u64().context("no time");
    let between = time(&report)?.saturating_sub(time(&calm)?);
    for waited in all_wait(&report, &truth)? {
        ensure!(
            (1_000_000..between).contains(&waited),
            "somebody has waited {waited} ns, but the waits began less than {between} ns ago"
        );
    }
    run.output("after")?.exited_with(0).context("a wait that is over stays")
}

/// Everybody waits for what the module says, and is behind the worker where that has to act. Gives how long they have waited, ns.
///
/// # Errors
/// Says what differs.
pub(super) fn all_wait(report: &Value, truth: &Truth) -> Result<Vec<u64>> {
    let tasks = report["tasks"].as_array().context("no tasks")?;
    let row = |role: &str| -> Result<(usize, &Value)> {
        let tid = truth.task("other-waits", role)?;
        let place = tasks.iter().position(|task| task["tid"] == tid);
        let place = place.with_context(|| format!("no row for {role} {tid} among {tasks:#?}"))?;
        Ok((place, tasks.get(place).context("no row")?))
    };
    let (worker, _) = row("worker")?;
    let mut waited = Vec::new();
    for (role, comm, on) in WAITING {
        let (_, task) = row(role)?;
        ensure!(task["comm"] == *comm, "{role} is {}", task["comm"]);
        let dependency = task["wait"]["dependency"].as_str().unwrap_or_default();
        ensure!(
            dependency.contains(on),
            "{role} waits for {dependency:?}, not for {on}: {task:#}"
        );
        waited.push(task["wait"]["waited_ns"].as_u64().context("no age")?);
        let behind = BEHIND.contains(role).then_some(worker as u64);
        ensure!(
            task["blocked_by"].as_u64() == behind,
            "{role} is blocked by row {}, and worker is row {worker}",
            task["blocked_by"]
        );
    }
    Ok(waited)
}
