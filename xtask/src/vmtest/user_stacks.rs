//! Where threads came from in user space, while the address space of one of them is stuck and the others wait for it.
//!
//! In the boot of the snapshots, behind them. The program is the guest's own PID 1, whose functions have known names.

use super::snapshot::check::whole;
use super::{GuestRun, VmTest};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The process whose address space is stuck (a reader of its `mmap_lock` sleeps in I/O, a writer is queued) begins to wait for that
/// lock itself; another one reads its command line.
const STUCK: &str = r#"
    own=$(cat /tmp/stuck.pid)
    touch /tmp/map-now
    until grep -q ') D ' /proc/$own/stat; do sleep 0.1; done
    echo own $own
    /init work read /proc/$own/cmdline > /dev/null &
    until grep -q ') D ' /proc/$!/stat; do sleep 0.1; done
    echo reader $!
"#;

/// Functions on the stack of each, innermost first.
const FUNCTIONS: [(&str, &[&str]); 2] = [
    (
        "own",
        &[
            "system::map_directly",
            "stuck::stuck_mapping_inner",
            "stuck::stuck_mapping_outer",
        ],
    ),
    ("reader", &["stuck::stuck_reading_inner", "stuck::stuck_reading_outer"]),
];

pub const TESTS: &[VmTest] = &[VmTest {
    name: "user-stacks",
    kernels: &["6.1", "6.12"],
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.shell("user-who", STUCK);
        steps.holdup("user-snapshot", &["snapshot", "--user-stacks", "--json"]);
        steps.holdup("user-text", &["snapshot", "--user-stacks", "--stacks"]);
        steps.holdup("user-off", &["snapshot", "--json"]);
        let record = ["record", "--user-stacks", "-o", "/tmp/user.holdup", "--duration", "5"];
        steps.holdup("user-record", &record);
        steps.holdup("user-report", &["report", "/tmp/user.holdup", "--json"]);
        steps.holdup("user-folded", &["export", "/tmp/user.holdup", "--format", "folded"]);
    },
    check: |run| {
        let snapshot = whole(run, "user-snapshot")?;
        // What it took.
        run.output("user-snapshot")?.stderr_has("holdup: read ")?;
        let replayed = run.output("user-report")?;
        let replayed: Value = serde_json::from_slice(&replayed.stdout).with_context(|| replayed.shown())?;
        let folded = run.output("user-folded")?.stdout();
        let text = run.output("user-text")?;
        for (who, functions) in FUNCTIONS {
            let tid = tid(run, who)?;
            for (report, what) in [(&snapshot, "snapshot"), (&replayed, "replay of a recording")] {
                functions_of(report, tid, functions).with_context(|| format!("{what}: {who}"))?;
            }
            for function in functions {
                text.stdout_has(&format!("xtask_guest::work::{function}+0x"))?;
            }
            // In a folded stack the outermost function comes first, and those of the kernel follow.
            let outward: Vec<String> = functions
                .iter()
                .rev()
                .map(|name| format!("xtask_guest::work::{name}"))
                .collect();
            let line = folded.lines().find(|line| contains_in_order(line, &outward));
            let line = line.with_context(|| format!("{who}: {folded}"))?;
            let last = outward.last().map_or(0, |name| line.find(name.as_str()).unwrap_or(0));
            ensure!(
                line[last..].contains(";entry_SYSCALL_64_after_hwframe;do_syscall_64;"),
                "{line}"
            );
        }
        let off = whole(run, "user-off")?;
        let rows = off["tasks"].as_array().context("no tasks")?;
        ensure!(
            rows.iter().all(|row| row["user_stack"].is_null()),
            "not asked for: {off:#}"
        );
        Ok(())
    },
}];

fn contains_in_order(line: &str, names: &[String]) -> bool {
    let mut rest = line;
    names.iter().all(|name| match rest.find(name.as_str()) {
        Some(at) => {
            rest = &rest[at + name.len()..];
            true
        }
        None => false,
    })
}

fn tid(run: &GuestRun, who: &str) -> Result<u64> {
    let said = run.output("user-who")?.stdout();
    let mut lines = said.lines().filter_map(|line| line.split_once(' '));
    match lines.find(|(name, _)| *name == who) {
        Some((_, tid)) => Ok(tid.trim().parse()?),
        None => bail!("no {who}: {said}"),
    }
}

/// The functions of `work` on the stack are these and no others, in this order, in the file `/init`; and its outermost frames are
/// there, too.
fn functions_of(report: &Value, tid: u64, expected: &[&str]) -> Result<()> {
    let mut rows = report["tasks"].as_array().into_iter().flatten();
    let row = rows
        .find(|row| row["tid"] == tid)
        .with_context(|| format!("nothing is told of {tid}"))?;
    let frames = row["user_stack"]["frames"]
        .as_array()
        .with_context(|| format!("{row:#}"))?;
    let name = |frame: &Value| frame["function"].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = frames.iter().map(name).collect();
    let own = |name: &&String| name.contains("::stuck_") || name.contains("::map_directly");
    let found: Vec<&str> = names
        .iter()
        .filter(own)
        .filter_map(|name| name.strip_prefix("xtask_guest::work::"))
        .collect();
    ensure!(found == expected, "{found:?} instead of {expected:?}: {row:#}");
    ensure!(names.iter().any(|name| name == "main"), "main is missing: {row:#}");
    ensure!(frames.iter().all(|frame| frame["file"] == "/init"), "{row:#}");
    let innermost = frames.first().context("no frame")?;
    ensure!(innermost["file_offset"].is_u64(), "{row:#}");
    Ok(())
}
