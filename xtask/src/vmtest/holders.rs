//! `--holders`: where those who hold others up spend their time, as the scheduler tells.

use super::truth::Spent;
use super::{GuestRun, VmTest};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Scenario with its parameters, and which shares of the time its holder does what, at least.
const HOLDERS: &[(&str, &[(&str, f64)])] = &[
    ("holder-running ms=6000", &[("running", 0.8)]),
    ("holder-starved ms=6000", &[("runnable without a CPU", 0.8)]),
    ("rwsem-reader-io ms=6000 readers=5", &[("asleep in I/O", 0.8)]),
    // Sleeps and runs by turns, as long as it slept; on an emulated machine it waits for its CPU now and then.
    ("holder-asleep ms=8000 busy=50", &[("asleep", 0.25), ("running", 0.25)]),
];

/// In a boot that nothing else disturbs.
pub const TESTS: &[VmTest] = &[VmTest {
    name: "holders",
    kernels: &["6.1", "6.12"],
    group: "healthy",
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(240));
        steps.shell("count", "echo 1 > /proc/sys/kernel/bpf_stats_enabled");
        steps.start_attached("live", &["live", "--json", "--holders"]);
        for (scenario, _) in HOLDERS {
            steps.trigger(scenario);
            steps.done(scenario);
        }
        steps.truth("truth");
        steps.signal("live", "INT");
        steps.wait("live");
    },
    check,
}];

fn check(run: &GuestRun) -> Result<()> {
    let truth = run.truth("truth")?;
    let live = run.output("live")?;
    let mut closed: Vec<Value> = Vec::new();
    let mut report = Value::Null;
    for line in live.stdout().lines() {
        let mut value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        if value["change"] == "closed" {
            closed.push(value["finding"].take());
        } else if value["type"] == "report" {
            report = value;
        }
    }
    for (scenario, shares) in HOLDERS {
        let name = scenario.split(' ').next().unwrap_or_default();
        let tid = truth.task(name, "holder")?;
        let finding = closed
            .iter()
            .find(|f| f["kind"] == "root-blocker" && f["tasks"][0]["tid"] == tid);
        let finding = finding.with_context(|| format!("no closed finding about {tid} of {name}: {}", live.shown()))?;
        let told = spent(finding, shares).with_context(|| format!("{name}: {finding:#}"))?;
        agrees(&told, truth.spent(tid)?).with_context(|| format!("{name}: {finding:#}"))?;
    }
    // What the programs cost, for threads that nobody waits for: nearly all of their runs.
    let programs = report["source"]["programs"].as_array().context("no report")?;
    for name in ["tp_sched_switch", "tp_sched_wakeup"] {
        let program = programs.iter().find(|p| p["program"] == name).context(name)?;
        let (runs, time) = (program["runs"].as_u64(), program["run_time_ns"].as_u64());
        ensure!(
            runs.is_some_and(|n| n > 1000) && time.is_some_and(|t| t > 0),
            "{name} did not run: {program}"
        );
    }
    Ok(())
}

/// The shares are those of the scheduler's own account, up to what happened before the thread was followed.
fn agrees(told: &BTreeMap<String, f64>, truth: &Spent) -> Result<()> {
    const APART: f64 = 0.15;
    let lasted = truth.lasted.as_secs_f64();
    for (what, true_time) in [("running", truth.ran), ("runnable without a CPU", truth.starved)] {
        let (told, really) = (told.get(what).copied().unwrap_or(0.0), true_time.as_secs_f64() / lasted);
        ensure!(
            (told - really).abs() < APART,
            "{what} is told to be {told:.3} of the time and was {really:.3}"
        );
    }
    Ok(())
}

/// The thread was followed for seconds, all of which are known, and did these things for at least these shares of it.
/// Gives the shares.
fn spent(finding: &Value, least: &[(&str, f64)]) -> Result<BTreeMap<String, f64>> {
    let mut lines = finding["evidence"].as_array().into_iter().flatten();
    let line = lines.find_map(|line| {
        line["text"]
            .as_str()
            .filter(|text| text.contains("was followed through"))
    });
    let (head, told) = line.and_then(|l| l.split_once(": ")).context("it was not followed")?;
    let (_, watched) = head.rsplit_once(" for ").context("no time")?;
    let watched = seconds(watched)?;
    ensure!(watched > 2.0, "it was followed for {watched} s only");
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for share in told.split(", ") {
        let at = share.match_indices(' ').nth(1).context("no share")?.0;
        let (time, what) = share.split_at(at);
        shares.insert(what.trim().to_owned(), seconds(time)? / watched);
    }
    ensure!(
        !shares.contains_key("unknown"),
        "a part of the time is not known: {shares:?}"
    );
    for (what, least) in least {
        ensure!(
            shares.get(*what).is_some_and(|share| share >= least),
            "not {least} of the time {what}: {shares:?}"
        );
    }
    let sum: f64 = shares.values().sum();
    ensure!((0.95..1.05).contains(&sum), "the shares are not the whole: {shares:?}");
    Ok(shares)
}

/// `1.5 s`, `20.0 ms`.
fn seconds(text: &str) -> Result<f64> {
    let (number, unit) = text.split_once(' ').context("no unit")?;
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "ns" => 1e-9,
        _ => bail!("unit of {text}"),
    };
    Ok(number.parse::<f64>()? * scale)
}
