//! Names of the locks that threads themselves have: the spinlocks of their `task_struct`, the one of the signals of their process, and what
//! lies on their stack.
//!
//! Part of the recording of [`super::names`]: the fault module makes the real locks of a thread of ours contended, and those that a thread
//! of its own has on its stack, and tells where they are.

use super::names::{CAPTURE, wanted_in};
use super::{GuestRun, Steps};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A lock of the listing of the module.
struct Row {
    scenario: &'static str,
    lock: &'static str,
    kind: &'static str,
    /// `{...}` are numbers that the guest tells.
    name: &'static str,
    class: &'static str,
    source: &'static str,
    /// Function that wants it; short spins have no stack.
    site: Option<&'static str>,
}

const TASK: &str = "contend-task-locks";
const STACK: &str = "stack-locks";

const ROWS: &[Row] = &[
    Row {
        scenario: TASK,
        lock: "heap.task.siglock",
        kind: "spinlock",
        name: "sighand_struct.siglock of work-idle ({pid})",
        class: "sighand_struct.siglock",
        source: "object of the slab cache sighand_cache",
        site: None,
    },
    Row {
        scenario: TASK,
        lock: "heap.task.alloc_lock",
        kind: "spinlock",
        name: "task_struct.alloc_lock of idle-thread ({tid})",
        class: "task_struct.alloc_lock",
        source: "object of the slab cache task_struct",
        site: None,
    },
    Row {
        scenario: TASK,
        lock: "heap.task.pi_lock",
        kind: "spinlock",
        name: "task_struct.pi_lock of idle-thread ({tid})",
        class: "task_struct.pi_lock",
        source: "object of the slab cache task_struct",
        site: None,
    },
    Row {
        scenario: STACK,
        lock: "stack.mutex",
        kind: "mutex",
        name: "wanted at lockfault_stack_waiter [lockfault], on the stack of lf_stk_owner ({owner})",
        class: "wanted at lockfault_stack_waiter [lockfault]",
        source: "call site of a waiter; address of a kernel stack",
        site: Some("lockfault_stack_waiter"),
    },
];

/// Runs until the recording has the names: what they belong to is there as long.
pub fn steps(steps: &mut Steps) {
    steps.shell("idle", IDLE);
    steps.done(TASK);
    steps.truth(TASK);
    steps.shell(
        "named",
        &until(&[
            "siglock of work-idle",
            "alloc_lock of idle-thread",
            "pi_lock of idle-thread",
        ]),
    );
    steps.shell("idle-end", "kill $(cat /tmp/idle.pid)");
    steps.trigger(&format!("{STACK} ms=80000"));
    steps.established(STACK);
    steps.truth(STACK);
    let names = [
        "waiter [lockfault], on the stack of lf_stk_owner",
        "completion wanted at lockfault_stack_owner",
    ];
    // Nothing is told of a completion any more once the wait is over.
    steps.shell("on-stack", &format!("{}; cat /tmp/named.json", until(&names)));
    steps.shell("stack-end", "echo 'end stack-locks' > /proc/lockfault");
    steps.done(STACK);
}

/// Starts the process whose locks they are, and the contention. What it leaves running has no output that the step would wait for.
const IDLE: &str = "
    /init work idle > /tmp/idle 2>&1 & echo $! > /tmp/idle.pid
    until grep tid /tmp/idle; do kill -0 $! || { cat /tmp/idle; exit 1; }; sleep 0.1; done
    echo contend-task-locks pid=$(cut -d' ' -f4 /tmp/idle) > /proc/lockfault
";

/// Until all of these names are in the recording.
fn until(names: &[&str]) -> String {
    let wanted: Vec<String> = names
        .iter()
        .map(|name| format!("grep -qF '{name}' /tmp/named.json"))
        .collect();
    format!(
        "until holdup report {CAPTURE} --json > /tmp/named.json; {}; do sleep 0.2; done",
        wanted.join(" && ")
    )
}

/// What is not as it must be.
pub fn check(run: &GuestRun, rows: &[Value], folded: &str) -> Vec<String> {
    let wrong = |row: &Row| {
        let error = judge(run, row, rows, folded).err()?;
        Some(format!("{}: {error:#}", row.lock))
    };
    let completion = completion(run)
        .err()
        .map(|error| format!("stack.completion: {error:#}"));
    ROWS.iter().filter_map(wrong).chain(completion).collect()
}

/// The completion on the owner's stack, by the owner's wait for it.
fn completion(run: &GuestRun) -> Result<()> {
    let truth = run.truth(STACK)?;
    let (owner, address) = (truth.task(STACK, "owner")?, truth.lock("stack.completion")?);
    let report = run.output("on-stack")?.stdout();
    let report: Value = serde_json::from_str(&report).with_context(|| format!("no report: {report}"))?;
    let mut tasks = report["tasks"].as_array().into_iter().flatten();
    let task = tasks
        .find(|task| task["tid"] == owner)
        .context("nothing is told of its owner")?;
    let wait = format!(
        "completion wanted at lockfault_stack_owner [lockfault], on the stack of lf_stk_owner ({owner}) ({address:#018x})"
    );
    ensure!(task["wait"]["dependency"] == wait, "not {wait:?}: {task:#}");
    Ok(())
}

fn judge(run: &GuestRun, wanted: &Row, rows: &[Value], folded: &str) -> Result<()> {
    for label in ["idle", "named", "on-stack"] {
        run.output(label)?.exited_with(0)?;
    }
    let truth = run.truth(wanted.scenario)?;
    let mut name = wanted.name.to_owned();
    let idle = run.output("idle")?.stdout();
    let mut words = idle.split_whitespace();
    while let (Some(key), Some(number)) = (words.next(), words.next()) {
        name = name.replace(&format!("{{{key}}}"), number);
    }
    if wanted.scenario == STACK {
        name = name.replace("{owner}", &truth.task(STACK, "owner")?.to_string());
    }
    let address = format!("{:#018x}", truth.lock(wanted.lock)?);
    let row = rows
        .iter()
        .find(|row| row["address"] == address && row["kind"] == wanted.kind)
        .with_context(|| format!("no contended {} at {address}", wanted.kind))?;
    for (field, expected) in [
        ("name", name.as_str()),
        ("class", wanted.class),
        ("name_source", wanted.source),
    ] {
        ensure!(row[field] == expected, "not of {field} {expected:?}: {row}");
    }
    wanted.site.map_or(Ok(()), |site| wanted_in(&name, &[site], folded))
}
