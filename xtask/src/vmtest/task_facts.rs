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

/// A thread that waits in an ioctl for the lock of a terminal, which another one keeps while it writes: numbers of system calls as x86-64
/// has them. Both must be there at the same time.
const IOCTL: &str = "
    /init work terminal-ioctl > /tmp/ioctl 2>&1 & echo $! > /tmp/ioctl.pid
    in_call() { grep -q \"^$2 \" /proc/$1/syscall 2> /dev/null; }
    until [ $(wc -l < /tmp/ioctl) = 2 ]; do kill -0 $! || { cat /tmp/ioctl; exit 1; }; sleep 0.1; done
    ioctl=$(grep ioctl /tmp/ioctl | cut -d' ' -f2) writer=$(grep writer /tmp/ioctl | cut -d' ' -f2)
    until in_call $writer 1 && in_call $ioctl 16 && in_call $writer 1; do kill -0 $! || exit 1; sleep 0.1; done
    cat /tmp/ioctl
";

/// Until the recording tells of both.
const RECORDED: &str = "
    until [ $(holdup report /tmp/facts.holdup --json | grep -o '\"path\":\"/dev/pts/' | wc -l) -ge 2 ]; do sleep 0.2; done
";

pub const TESTS: &[VmTest] = &[VmTest {
    name: "task-facts",
    kernels: &["6.1", "6.12"],
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.shell("who", &STUCK.replace("$CGROUP", CGROUP));
        steps.start_attached("record", &["record", "-o", "/tmp/facts.holdup"]);
        steps.shell("ioctl", IOCTL);
        steps.truth("truth");
        // The wait in the ioctl can be interrupted.
        steps.holdup("facts", &["snapshot", "--all", "--json"]);
        steps.holdup("facts-text", &["snapshot", "--all"]);
        steps.shell("recorded", RECORDED);
        steps.signal("record", "INT");
        steps.wait("record");
        steps.holdup("replayed", &["report", "/tmp/facts.holdup", "--json"]);
        steps.shell("release", "kill $(cat /tmp/ioctl.pid)");
    },
    check: |run| {
        compare(run, &whole(run, "facts")?).context("snapshot")?;
        let replayed = run.output("replayed")?;
        let replayed: Value = serde_json::from_slice(&replayed.stdout).with_context(|| replayed.shown())?;
        compare(run, &replayed).context("replay of a recording")?;
        run.output("facts-text")?
            .stdout_has("executes lockfault_mutex_aa_worker [lockfault] for workqueue lf_aa_wq")?;
        // Of those who wait, the text tells what holds them up.
        let (writer, _, device) = terminal(run)?;
        run.output("facts-text")?
            .stdout_has(&format!(" ({writer}): in write() on {device} (character device)"))?;
        run.output("recorded")?.exited_with(0)?;
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
    let (writer, waiter, device) = terminal(run)?;
    for (tid, number, name) in [(writer, 1, "write"), (waiter, 16, "ioctl")] {
        let row = row(tid)?;
        let doing = json!({"what": "syscall", "number": number, "name": name, "argument": "file", "file": "char-device", "path": device});
        ensure!(
            row["doing"] == doing && row["kernel_thread"] == false,
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

/// The thread that writes to a terminal, the one that waits in an ioctl, and the terminal's path.
fn terminal(run: &GuestRun) -> Result<(u64, u64, String)> {
    let output = run.output("ioctl")?;
    output.exited_with(0)?;
    let stdout = output.stdout();
    let after = |name: &str| {
        let mut lines = stdout.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("no {name}: {stdout}"))
    };
    let (ioctl, path) = after("ioctl ")?.split_once(' ').context("no device")?;
    Ok((after("writer ")?.parse()?, ioctl.parse()?, path.to_owned()))
}
