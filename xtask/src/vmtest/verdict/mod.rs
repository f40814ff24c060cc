//! Findings compared with what is true: the same table for whoever looks, before the fault or after it.

mod table;

use super::{GuestRun, Steps, truth::Truth};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

pub use table::{DEADLOCKS, HOLDERS, INVERSIONS, ORPHAN, READER_IO, RWSEM_AA, WAITING_HOLDERS};

/// A scenario, and everything that has to be said of it.
#[derive(Debug)]
pub struct Verdict {
    pub scenario: &'static str,
    /// `name=value` parameters of the scenario.
    pub parameters: &'static str,
    pub findings: &'static [Expected],
}

/// A finding.
#[derive(Debug)]
pub struct Expected {
    pub kind: &'static str,
    pub severity: &'static str,
    pub certainty: &'static str,
    /// Roles of the tasks it names, with their call sites; the set is complete. An empty site is not compared.
    pub tasks: &'static [(&'static str, &'static str)],
    /// Names of the locks it names in the module's listing; the set is complete.
    pub locks: &'static [&'static str],
    /// Role of the first waiter of the chain; empty when it has no chain.
    pub first: &'static str,
    /// Roles of its victims; the set is complete.
    pub victims: &'static [&'static str],
    /// Must stand in the title.
    pub title: &'static str,
}

/// The report that `holdup snapshot --json` prints, or the last line of `holdup live --json`.
///
/// # Errors
/// There is none.
pub fn report(run: &GuestRun, label: &str) -> Result<Value> {
    let output = run.output(label)?;
    let stdout = output.stdout();
    let last = stdout
        .lines()
        .last()
        .with_context(|| format!("{label} printed nothing: {}", output.shown()))?;
    let report: Value = serde_json::from_str(last).with_context(|| output.shown())?;
    ensure!(report["type"] == "report", "no report at the end: {}", output.shown());
    Ok(report)
}

/// Starts a scenario and waits until it is in place.
pub fn start(steps: &mut Steps, verdict: &Verdict) {
    let scenario = verdict.scenario;
    steps.trigger(format!("{scenario} {}", verdict.parameters).trim());
    steps.established(scenario);
}

/// A shell condition: `file`, JSON lines or a report, says what is expected of all these scenarios.
pub fn says(verdicts: &[&Verdict], file: &str) -> String {
    let mut condition = "true".to_owned();
    for expected in verdicts.iter().flat_map(|verdict| verdict.findings) {
        // One finding a line.
        let _ = write!(condition, " && sed 's/\"id\":/\\n&/g' {file}");
        let Expected {
            kind,
            severity,
            certainty,
            title,
            ..
        } = expected;
        let fields = [
            format!("\"kind\":\"{kind}\""),
            format!("\"severity\":\"{severity}\""),
            format!("\"certainty\":\"{certainty}\""),
            (*title).to_owned(),
        ];
        for field in fields {
            let _ = write!(condition, " | grep -F '{field}'");
        }
        if !expected.victims.is_empty() {
            // Who waits behind a flush shows with the next look at all threads.
            condition.push_str(" | grep -vF '\"victims\":{\"count\":0'");
        }
        condition.push_str(" > /dev/null");
    }
    condition
}

/// Compares the findings of a report with what is true of these scenarios: each of them in full, none missing, and none else that
/// touches their locks or is `worst` or worse.
///
/// # Errors
/// Says what differs.
pub fn judge(report: &Value, truth: &Truth, verdicts: &[&Verdict], worst: &str) -> Result<()> {
    let locks: BTreeMap<&str, String> = truth
        .locks
        .iter()
        .map(|(name, address)| (name.as_str(), format!("{address:#018x}")))
        .collect();
    let ours: BTreeSet<&str> = verdicts
        .iter()
        .flat_map(|verdict| verdict.findings)
        .flat_map(|finding| finding.locks)
        .filter_map(|name| locks.get(name))
        .map(String::as_str)
        .collect();
    let mut open: Vec<&Value> = items(&report["findings"]).collect();
    let is_bad = |severity: &Value| severity == "critical" || severity == worst;
    open.retain(|finding| {
        let mut named = items(&finding["locks"]).filter_map(|lock| lock["address"].as_str());
        is_bad(&finding["severity"]) || named.any(|address| ours.contains(address))
    });
    for verdict in verdicts {
        let scenario = verdict.scenario;
        for expected in verdict.findings {
            let wanted = addresses(expected.locks, &locks)?;
            let is_it = |finding: &&Value| {
                finding["kind"] == expected.kind && named(&finding["locks"], "address").is_superset(&wanted)
            };
            let at = open.iter().position(is_it);
            let at = at.with_context(|| format!("{scenario}: no {} among {open:#?}", expected.kind))?;
            let finding = open.swap_remove(at);
            let pids = |roles: &[&str]| -> BTreeSet<u64> {
                let tasks = roles.iter().flat_map(|role| truth.tasks(scenario, role));
                tasks.map(u64::from).collect()
            };
            same(finding, expected, &wanted, pids)
                .with_context(|| format!("{scenario}: {finding:#}\n{:?}", truth.tasks))?;
        }
    }
    ensure!(open.is_empty(), "more findings than are true: {open:#?}");
    Ok(())
}

/// Compares one finding as a whole. `pids` gives the tasks of some roles.
fn same(
    finding: &Value,
    expected: &Expected,
    locks: &BTreeSet<String>,
    pids: impl Fn(&[&str]) -> BTreeSet<u64>,
) -> Result<()> {
    for (field, value) in [("certainty", expected.certainty), ("severity", expected.severity)] {
        ensure!(finding[field] == value, "the {field} is not {value}");
    }
    let title = finding["title"].as_str().unwrap_or_default();
    ensure!(title.contains(expected.title), "the title lacks {:?}", expected.title);
    let roles: Vec<&str> = expected.tasks.iter().map(|(role, _)| *role).collect();
    ensure!(
        tids(items(&finding["tasks"])) == pids(&roles),
        "other tasks than {roles:?}"
    );
    for (role, site) in expected.tasks.iter().filter(|(_, site)| !site.is_empty()) {
        let of_role = pids(&[role]);
        let mut tasks =
            items(&finding["tasks"]).filter(|task| task["tid"].as_u64().is_some_and(|tid| of_role.contains(&tid)));
        ensure!(
            tasks.all(|task| task["site"] == **site),
            "the call site of {role} is not {site}"
        );
    }
    ensure!(
        named(&finding["locks"], "address") == *locks,
        "other locks than {:?}",
        expected.locks
    );
    let first = finding["chain"][0]["waiter"]["tid"].as_u64();
    match (expected.first, first) {
        ("", first) => ensure!(first.is_none(), "it has a chain"),
        (role, first) => ensure!(
            first.is_some_and(|first| pids(&[role]).contains(&first)),
            "the chain does not begin with {role}"
        ),
    }
    // At most so many are listed by name; all are counted.
    let listed = tids(items(&finding["victims"]["tasks"]).map(|victim| &victim["waiter"]));
    let victims = pids(expected.victims);
    ensure!(
        finding["victims"]["count"] == victims.len(),
        "{} victims instead of {}",
        finding["victims"]["count"],
        victims.len()
    );
    ensure!(
        listed.is_subset(&victims) && (listed == victims || listed.len() >= 16),
        "other victims than {:?}",
        expected.victims
    );
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn tids<'v>(tasks: impl Iterator<Item = &'v Value>) -> BTreeSet<u64> {
    tasks.filter_map(|task| task["tid"].as_u64()).collect()
}

fn named(list: &Value, field: &str) -> BTreeSet<String> {
    items(list)
        .filter_map(|item| item[field].as_str())
        .map(str::to_owned)
        .collect()
}

fn addresses(names: &[&str], locks: &BTreeMap<&str, String>) -> Result<BTreeSet<String>> {
    names
        .iter()
        .map(|name| {
            let address = locks.get(name);
            address
                .cloned()
                .with_context(|| format!("the module does not list {name}"))
        })
        .collect()
}
