//! Locks that are initialised again while others hold them or wait for them, seen by probes that were there before.

use super::findings::{FINDINGS, Named, deadlocks};
use super::truth::Truth;
use super::{GuestRun, VmTest};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub const TESTS: &[VmTest] = &[VmTest {
    name: "armed",
    kernels: &["6.1", "6.12"],
    group: "reinit",
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(120));
        steps.start_attached("live", &["live", "--json", "--reinit"]);
        for scenario in SCENARIOS {
            steps.trigger(scenario);
            steps.established(scenario);
        }
        // The waiters that were lost must still be there some rounds later.
        steps.shell("later", "sleep 4");
        steps.signal("live", "INT");
        steps.wait("live");
        steps.truth("truth");
    },
    check,
}];

const SCENARIOS: [&str; 3] = ["reinit-completion", "reinit-mutex", "reinit-rwsem"];

fn check(run: &GuestRun) -> Result<()> {
    let truth = run.truth("truth")?;
    let output = run.output("live")?;
    output.exited_with(FINDINGS)?;
    let mut found = deadlocks(&output.stdout())?;
    found.sort_by_key(|finding| finding["title"].to_string());
    let [of_completion, of_mutex, of_rwsem] = found.as_slice() else {
        bail!("{} findings instead of three\n{}", found.len(), output.shown());
    };
    let expected = [
        completion(&truth, of_completion)?,
        lock(
            &truth,
            of_mutex,
            &Lock {
                scenario: "reinit-mutex",
                name: "heap.reinit.mutex",
                kind: "mutex",
                words: "mutex",
                mode: "exclusive",
                short: "rem",
            },
        )?,
        lock(
            &truth,
            of_rwsem,
            &Lock {
                scenario: "reinit-rwsem",
                name: "heap.reinit.rwsem",
                kind: "rwsem",
                words: "rw_semaphore",
                mode: "shared",
                short: "rer",
            },
        )?,
    ];
    for (found, expected) in found.iter().zip(&expected) {
        ensure!(
            found == expected,
            "found\n{found:#}\ninstead of\n{expected:#}\n{}",
            output.shown()
        );
    }
    Ok(())
}

/// Where the fault module runs the thread that initialises again.
const REINIT_CPU: u32 = 1;

struct Lock {
    scenario: &'static str,
    name: &'static str,
    kind: &'static str,
    words: &'static str,
    mode: &'static str,
    /// Part of the tasks' names.
    short: &'static str,
}

fn lock(truth: &Truth, found: &Value, is: &Lock) -> Result<Value> {
    let task = |role| truth.task(is.scenario, role);
    let (holder, waiter, by) = (task("holder")?, task("waiter")?, task("reinit")?);
    let address = format!("{:#018x}", truth.lock(is.name)?);
    let Lock {
        kind,
        words,
        mode,
        short,
        ..
    } = is;
    let named = Named::of(found, &address);
    let words = named.words(words, &address);
    let who = format!("lf_{short}_reinit ({by})");
    let used = format!("lf_{short}_holder ({holder}) held it and 1 task waited for it");
    Ok(finding(
        found,
        by,
        short,
        &address,
        json!({
            "certainty": "proven",
            "title": format!("{who} initialised {words} again while {used}; at lockfault_{}_again", is.scenario.replace('-', "_")),
            "locks": [named.lock(&address, kind)],
            "chain": [],
            "victims": {
                "count": 1,
                "cgroups": [1],
                "tasks": [{
                    "waiter": {"tid": waiter, "tgid": waiter, "comm": format!("lf_{short}_waiter"), "context": "task"},
                    "on": named.wanted(&address, kind, mode),
                    "waited_is_lower_bound": false,
                    "holder": null,
                    "holder_evidence": null,
                    "site": format!("lockfault_{}_waiter", is.scenario.replace('-', "_")),
                }],
            },
            "evidence": [
                {"source": "kprobe", "text": format!("{who} initialised {words} at INSTANT; {used}")},
                {"source": "reread", "text": "1 wait for it pending at that time by other evidence"},
            ],
        }),
    ))
}

fn completion(truth: &Truth, found: &Value) -> Result<Value> {
    let task = |role| truth.task("reinit-completion", role);
    let (waiter, by) = (task("waiter")?, task("reinit")?);
    let address = format!("{:#018x}", truth.lock("heap.reinit.completion")?);
    let who = format!("lf_rec_reinit ({by})");
    let what = format!("the completion or wait queue {address}");
    // Its name has tests of its own.
    let text = found["chain"][0]["on"]["text"].as_str().unwrap_or_default();
    ensure!(
        text.starts_with("completion ") && text.contains(&address),
        "the waiter waits for {text:?}"
    );
    Ok(finding(
        found,
        by,
        "rec",
        &address,
        json!({
            // Waits for completions have no probe: that somebody waited is known from the memory alone.
            "certainty": "likely",
            "title": format!("{who} initialised {what} again while 1 task waited for it; at lockfault_reinit_completion_again"),
            "locks": [],
            "chain": [{
                "waiter": {"tid": waiter, "tgid": waiter, "comm": "lf_rec_waiter", "context": "task"},
                "on": {"type": "dependency", "dependency": "completion", "text": text},
                "waited_is_lower_bound": true,
                "holder": null,
                "holder_evidence": null,
            }],
            "victims": {"count": 0, "cgroups": [], "tasks": []},
            "evidence": [
                {"source": "kprobe", "text": format!("{who} initialised {what} at INSTANT; 1 task waited for it")},
                {"source": "missing", "text": "no wait for it was known by other evidence"},
            ],
        }),
    ))
}

/// What every such finding has, with the rest.
fn finding(found: &Value, by: u32, short: &str, address: &str, rest: Value) -> Value {
    // It lives for a moment on the CPU that the module binds it to: a sample may hit it or not.
    let cpu = match &found["tasks"][0]["cpu"] {
        Value::Null => Value::Null,
        _ => json!(REINIT_CPU),
    };
    let mut finding = json!({
        "id": format!("reinit-in-use:{by}:{address}"),
        "kind": "reinit-in-use",
        "severity": "critical",
        "since_is_lower_bound": false,
        "tasks": [{"tid": by, "tgid": by, "comm": format!("lf_{short}_reinit"), "context": "task", "state": "unknown", "cpu": cpu,
            "site": null}],
        "next_steps": ["Find out why it is initialised a second time: a reused object, or an initialisation after its first use."],
    });
    if let (Value::Object(finding), Value::Object(rest)) = (&mut finding, rest) {
        finding.extend(rest);
    }
    finding
}
