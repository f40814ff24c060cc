//! Findings as the tests compare them: without what differs from run to run, and with whatever name their locks have.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Exit code of a run that found a deadlock.
pub const DEADLOCK: i32 = 3;
/// Exit code of a run that found something, but no deadlock.
pub const FINDINGS: i32 = 4;

/// The deadlocks that were opened, each as it was told last, without what differs from run to run.
pub fn deadlocks(stdout: &str) -> Result<Vec<Value>> {
    told(stdout, |kind| {
        matches!(
            kind,
            "context-deadlock" | "self-deadlock" | "cycle" | "dead-lock-word" | "reinit-in-use"
        )
    })
}

/// The findings of a snapshot, without what differs from run to run.
pub fn snapshot(stdout: &str) -> Result<Vec<Value>> {
    let mut report: Value = serde_json::from_str(stdout).with_context(|| format!("no JSON: {stdout}"))?;
    let findings = report["findings"].as_array_mut().map(std::mem::take);
    Ok(findings.unwrap_or_default().into_iter().map(steady).collect())
}

/// The findings of these kinds that were opened, each as it was told last before it was closed, without what differs from run to
/// run.
pub fn told(stdout: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    for line in stdout.lines() {
        let mut value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        if !value["finding"]["kind"].as_str().is_some_and(&wanted) {
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
