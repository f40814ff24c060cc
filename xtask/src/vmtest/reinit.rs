//! Locks that are initialised again while others hold them or wait for them, seen by probes that were there before.

use super::findings::{FINDINGS, Named, deadlocks};
use super::truth::Truth;
use super::{GuestRun, VmTest};
use anyhow::{Context as _, Result, ensure};
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

const SCENARIOS: [&str; 6] = [
    "reinit-completion",
    "reinit-mutex",
    "reinit-rwsem",
    "reinit-wait-queue",
    "reinit-rt-mutex",
    "reinit-percpu-rwsem",
];

const LOCKS: &[Lock] = &[
    Lock {
        scenario: "reinit-mutex",
        name: "heap.reinit.mutex",
        kind: "mutex",
        words: "mutex",
        mode: "exclusive",
        short: "rem",
        owner: true,
    },
    Lock {
        scenario: "reinit-rwsem",
        name: "heap.reinit.rwsem",
        kind: "rwsem",
        words: "rw_semaphore",
        mode: "shared",
        short: "rer",
        owner: true,
    },
    Lock {
        scenario: "reinit-rt-mutex",
        name: "heap.reinit.rt_mutex",
        kind: "rt-mutex",
        words: "rt_mutex",
        mode: "exclusive",
        short: "ret",
        owner: true,
    },
    Lock {
        scenario: "reinit-percpu-rwsem",
        name: "heap.reinit.percpu_rwsem",
        kind: "percpu-rwsem",
        words: "percpu_rw_semaphore",
        mode: "shared",
        short: "rep",
        owner: false,
    },
];

const AWAITED: &[Awaited] = &[
    Awaited {
        scenario: "reinit-completion",
        name: "heap.reinit.completion",
        dependency: "completion",
        words: "completion ",
        short: "rec",
    },
    Awaited {
        scenario: "reinit-wait-queue",
        name: "heap.reinit.wait_queue",
        dependency: "wait-queue",
        words: "wait queue ",
        short: "req",
    },
];

fn check(run: &GuestRun) -> Result<()> {
    let truth = run.truth("truth")?;
    let output = run.output("live")?;
    output.exited_with(FINDINGS)?;
    let found = deadlocks(&output.stdout())?;
    ensure!(
        found.len() == SCENARIOS.len(),
        "{} findings instead of {}\n{}",
        found.len(),
        SCENARIOS.len(),
        output.shown()
    );
    let of = |address: &str| {
        let end = format!(":{address}");
        let is_it = |f: &&Value| f["id"].as_str().is_some_and(|id| id.ends_with(&end));
        let finding = found.iter().find(is_it);
        finding.with_context(|| format!("nothing about {address}\n{}", output.shown()))
    };
    let compare = |found: &Value, expected: &Value| {
        ensure!(
            found == expected,
            "found\n{found:#}\ninstead of\n{expected:#}\n{}",
            output.shown()
        );
        Ok(())
    };
    for is in LOCKS {
        let address = format!("{:#018x}", truth.lock(is.name)?);
        let found = of(&address)?;
        let mut expected = lock(&truth, found, &address, is)?;
        if !is.owner && run.release.starts_with("6.1.") {
            // KERNEL: there `percpu_down_write` tells of every writer, so that its acquisition was seen; later only of one that waits.
            let holder = truth.task(is.scenario, "holder")?;
            let victim = &mut expected["victims"]["tasks"][0];
            victim["holder"] =
                json!({"tid": holder, "tgid": holder, "comm": format!("lf_{}_holder", is.short), "context": "task"});
            victim["holder_evidence"] = json!("tracepoint");
        }
        compare(found, &expected)?;
    }
    for is in AWAITED {
        let address = format!("{:#018x}", truth.lock(is.name)?);
        let found = of(&address)?;
        compare(found, &awaited(&truth, found, &address, is)?)?;
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
    /// It records who holds it.
    owner: bool,
}

/// What somebody waits for that is no lock.
struct Awaited {
    scenario: &'static str,
    name: &'static str,
    dependency: &'static str,
    words: &'static str,
    short: &'static str,
}

fn lock(truth: &Truth, found: &Value, address: &str, is: &Lock) -> Result<Value> {
    let task = |role| truth.task(is.scenario, role);
    let (holder, waiter, by) = (task("holder")?, task("waiter")?, task("reinit")?);
    let Lock {
        kind,
        words,
        mode,
        short,
        ..
    } = is;
    let named = Named::of(found, address);
    let words = named.words(words, address);
    let who = format!("lf_{short}_reinit ({by})");
    let waited = "1 task waited for it";
    let used = if is.owner {
        format!("lf_{short}_holder ({holder}) held it and {waited}")
    } else {
        waited.to_owned()
    };
    Ok(finding(
        found,
        by,
        short,
        address,
        json!({
            "certainty": "proven",
            "title": format!("{who} initialised {words} again while {used}; at lockfault_{}_again", is.scenario.replace('-', "_")),
            "locks": [named.lock(address, kind)],
            "chain": [],
            "victims": {
                "count": 1,
                "cgroups": [1],
                "tasks": [{
                    "waiter": {"tid": waiter, "tgid": waiter, "comm": format!("lf_{short}_waiter"), "context": "task"},
                    "on": named.wanted(address, kind, mode),
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

fn awaited(truth: &Truth, found: &Value, address: &str, is: &Awaited) -> Result<Value> {
    let task = |role| truth.task(is.scenario, role);
    let (waiter, by) = (task("waiter")?, task("reinit")?);
    let Awaited {
        dependency,
        words,
        short,
        ..
    } = is;
    let who = format!("lf_{short}_reinit ({by})");
    // Its name has tests of its own.
    let text = found["chain"][0]["on"]["text"].as_str().unwrap_or_default();
    ensure!(
        text.starts_with(words) && text.contains(address),
        "the waiter waits for {text:?}"
    );
    Ok(finding(
        found,
        by,
        short,
        address,
        json!({
            // Such waits have no probe: that somebody waited is known from the memory alone.
            "certainty": "likely",
            "title": format!("{who} initialised {text} again while 1 task waited for it; at lockfault_{}_again", is.scenario.replace('-', "_")),
            "locks": [],
            "chain": [{
                "waiter": {"tid": waiter, "tgid": waiter, "comm": format!("lf_{short}_waiter"), "context": "task"},
                "on": {"type": "dependency", "dependency": dependency, "text": text},
                "waited_is_lower_bound": true,
                "holder": null,
                "holder_evidence": null,
            }],
            "victims": {"count": 0, "cgroups": [], "tasks": []},
            "evidence": [
                {"source": "kprobe", "text": format!("{who} initialised {text} at INSTANT; 1 task waited for it")},
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
