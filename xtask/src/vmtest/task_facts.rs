//! What tasks are about, read while they are stuck: work, system calls with their files, cgroups and containers.
//!
//! In the boot of the snapshots, behind them: its deadlocks and its stuck address space are what is asked about.

use super::snapshot::check::whole;
use super::{GuestRun, VmTest};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// As Docker calls its containers' cgroups with systemd.
const CGROUP: &str = "/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope";
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Starts programs in a cgroup that get stuck in different system calls on the stuck address space, and prints who they are.
const STUCK: &str = r#"
    pid=$(cat /tmp/stuck.pid)
    cgroup=/sys/fs/cgroup$CGROUP
    mkdir -p $cgroup
    inside() {
        sh -c 'echo $$ > '$cgroup'/cgroup.procs && exec "$@"' sh "$@" > /dev/null 2>&1 &
        until grep -q ') D ' /proc/$!/stat; do sleep 0.1; done
        echo $!
    }
    echo stuck $pid
    echo cgroup $(stat -c %i $cgroup)
    echo read $(inside cat /proc/$pid/cmdline)
    echo readdir $(inside ls /proc/$pid/map_files)
    echo open $(inside cat /proc/$pid/map_files/1000-2000)
"#;

pub const TESTS: &[VmTest] = &[VmTest {
    name: "task-facts",
    kernels: &["6.1", "6.12"],
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.shell("who", &STUCK.replace("$CGROUP", CGROUP));
        steps.truth("truth");
        steps.holdup("facts", &["snapshot", "--json"]);
        steps.holdup("facts-text", &["snapshot"]);
        steps.holdup("record", &["record", "-o", "/tmp/facts.holdup", "--duration", "4"]);
        steps.holdup("replayed", &["report", "/tmp/facts.holdup", "--json"]);
    },
    check: |run| {
        compare(run, &whole(run, "facts")?).context("snapshot")?;
        let replayed = run.output("replayed")?;
        let replayed: Value = serde_json::from_slice(&replayed.stdout).with_context(|| replayed.shown())?;
        compare(run, &replayed).context("replay of a recording")?;
        run.output("facts-text")?
            .stdout_has("executes lockfault_mutex_aa_worker [lockfault] for workqueue lf_aa_wq")?;
        run.output("facts-text")?
            .stdout_has(&format!("; container docker {}; cgroup {CGROUP}", &ID[..12]))
    },
}];

fn compare(run: &GuestRun, report: &Value) -> Result<()> {
    let who = run.output("who")?.stdout();
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    for line in who.lines() {
        let (name, number) = line.split_once(' ').with_context(|| format!("{line:?} of {who}"))?;
        numbers.insert(
            name,
            number.trim().parse().with_context(|| format!("{line:?} of {who}"))?,
        );
    }
    let number = |name: &str| numbers.get(name).copied().with_context(|| format!("no {name}: {who}"));
    let row = |tid: u64| {
        let mut rows = report["tasks"].as_array().into_iter().flatten();
        rows.find(|row| row["tid"] == tid)
            .with_context(|| format!("nothing is told of {tid}"))
    };
    let stuck = number("stuck")?;
    let file = |number: u32, name: &str, file: &str, path: &str| json!({"what": "syscall", "number": number, "name": name, "argument": "file", "file": file, "path": format!("/proc/{stuck}/{path}")});
    let path = |number: u32, name: &str| json!({"what": "syscall", "number": number, "name": name, "argument": "path", "file": null, "path": null});
    // Which of the two calls opens a file depends on the C library.
    let expected = [
        ("read", vec![file(0, "read", "regular", "cmdline")]),
        ("readdir", vec![file(217, "getdents64", "directory", "map_files")]),
        ("open", vec![path(257, "openat"), path(2, "open")]),
    ];
    for (name, doing) in expected {
        let row = row(number(name)?)?;
        ensure!(doing.contains(&row["doing"]), "{name}: {row:#}");
        let container = json!({"runtime": "docker", "id": ID, "pod": null});
        ensure!(
            row["cgroup_path"] == CGROUP && row["container"] == container,
            "{name}: {row:#}"
        );
        ensure!(row["cgroup"] == number("cgroup")?, "{name}: {row:#}");
        ensure!(
            row["kernel_thread"] == false && row["asleep_ns"].is_u64(),
            "{name}: {row:#}"
        );
    }
    let truth = run.truth("truth")?;
    for (scenario, function, workqueue) in [
        ("mutex-aa", "lockfault_mutex_aa_worker", "lf_aa_wq"),
        ("ww-mutex-aa", "lockfault_ww_mutex_aa_worker", "lf_ww_wq"),
    ] {
        let row = row(truth.task(scenario, "worker")?.into())?;
        let doing = json!({"what": "work", "function": function, "module": "lockfault", "workqueue": workqueue});
        ensure!(row["doing"] == doing, "{row:#}");
        ensure!(row["cgroup_path"] == "/" && row["container"].is_null(), "{row:#}");
        ensure!(row["kernel_thread"] == true, "{row:#}");
    }
    let flusher = row(truth.task("mutex-aa", "flusher")?.into())?;
    ensure!(
        flusher["doing"].is_null(),
        "a kernel thread in a system call: {flusher:#}"
    );
    Ok(())
}
