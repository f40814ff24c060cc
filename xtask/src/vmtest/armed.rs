//! `holdup record --armed`: there before a CPU dies, it records the verdict, ends in time on the broken machine, and a recorder that is
//! killed there takes nothing down with it.

use super::findings::Named;
use super::live::WORK;
use super::results::Output;
use super::spin::{NOTHING_ATTACHED, PROBES_STAY};
use super::{GuestRun, Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// One boot for all: a CPU that is stuck for a while, then some that are dead for good.
pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "healthy",
        kernels: WITHOUT_RT,
        group: "armed",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(60));
            steps.start_attached("killed", &["record", "--armed", "-o", "/out/killed"]);
            steps.shell("named", NAMES);
            steps.signal("killed", "KILL");
            steps.wait("killed");
            steps.shell("left", NAMES);
            steps.start_attached("next", &["record", "--armed", "-o", "/out/next"]);
            steps.signal("next", "TERM");
            steps.wait("next");
            steps.shell("after", NAMES);
        },
        check: |run| {
            let names = |label| -> Result<String> { Ok(run.output(label)?.stdout().trim().to_owned()) };
            let named = names("named")?;
            for link in [
                "tp_contention_begin",
                "tp_contention_end",
                "kp_init_mutex-__mutex_init",
                "cpu_sample-slow-0",
                "cpu_sample-slow-3",
            ] {
                ensure!(named.contains(link), "no {link} among {named}");
            }
            ensure!(names("left")? == named, "a killed recorder took probes off");
            let next = run.output("next")?;
            next.exited_with(0)?;
            let count = named.lines().count();
            next.stderr_has(&format!("took off {count} probes that an earlier run had left"))?;
            ensure!(names("after")?.is_empty(), "something stays: {}", names("after")?);
            Ok(())
        },
    },
    VmTest {
        name: "everything",
        kernels: WITHOUT_RT,
        group: "healthy",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(300));
            let all = [
                "record",
                "--armed",
                "--releases",
                "--cpus",
                "--holders",
                "-o",
                "/out/all",
                "--json",
            ];
            steps.start_attached("all", &all);
            steps.shell("work", &format!("WORK_SECONDS=30\n{WORK}"));
            for scenario in ["contend-mutex", "contend-rwsem", "contend-spinlock", "contend-rwlock"] {
                steps.trigger(&format!("{scenario} ms=500"));
                steps.done(scenario);
            }
            steps.signal("all", "INT");
            steps.wait("all");
            steps.shell("left", NAMES);
        },
        check: |run| {
            run.output("work")?.exited_with(0)?;
            let all = run.output("all")?;
            // Nothing of severity warning or above.
            all.exited_with(0)?;
            let report = all.stdout().lines().last().map(str::to_owned).context("no report")?;
            let report: Value = serde_json::from_str(&report).context("no report")?;
            let programs = report["source"]["programs"].as_array().context("no programs")?;
            for name in ["tp_contention_end", "tp_sched_switch", "kp_mutex_unlock", "cpu_sample"] {
                ensure!(
                    programs.iter().any(|p| p["program"] == name),
                    "{name} is not attached: {programs:?}"
                );
            }
            ensure!(
                run.output("left")?.stdout().is_empty(),
                "probes stay: {}",
                run.output("left")?.shown()
            );
            Ok(())
        },
    },
    VmTest {
        name: "softirq",
        kernels: WITHOUT_RT,
        group: "armed",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(60));
            steps.start_attached("recorder", &["record", "--armed", "-o", "/out/softirq"]);
            steps.trigger("softirq-aa-timer ms=30000");
            steps.established("softirq-aa-timer");
            steps.truth("truth");
            reported(steps, "/out/softirq", "context-deadlock");
            ended(steps, "recorder", "/out/softirq");
            steps.holdup("report", &["report", "/out/softirq", "--json"]);
            steps.shell("links", NAMES);
            steps.done("softirq-aa-timer");
        },
        check: |run| {
            in_time(run)?;
            let truth = run.truth("truth")?;
            let tid = truth.task("softirq-aa-timer", "holder")?;
            let lock = format!("{:#018x}", truth.lock("heap.softirq_timer.lock")?);
            let thread = format!("lf_tmr_holder ({tid})");
            let title = format!(
                "softirq on CPU 1 above {thread} (a timer) spins on LOCK at lockfault_softirq_touch, which {thread} holds, \
                 interrupted at lockfault_softirq_timer_section: neither can go on"
            );
            verdict(run.output("report")?, 3, "context-deadlock", "likely", &lock, &title)?;
            let links = run.output("links")?.stdout().into_owned();
            // A kprobe goes only when an RCU grace period has ended, which this CPU does not let happen.
            ensure!(
                !links.is_empty() && links.lines().all(|link| link.starts_with("kp_init_")),
                "interrupts are on, so tracepoints can be taken off, kprobes cannot; these stay: {links}"
            );
            Ok(())
        },
    },
    VmTest {
        name: "dead-word",
        kernels: WITHOUT_RT,
        group: "armed",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(60));
            steps.start_attached("recorder", &["record", "--armed", "-o", "/out/dead"]);
            steps.start_attached("killed", &["record", "--armed", "-o", "/out/killed-dead"]);
            steps.trigger("dead-lock-word");
            steps.established("dead-lock-word");
            steps.truth("truth");
            reported(steps, "/out/dead", "dead-lock-word");
            steps.signal("killed", "KILL");
            steps.shell("gone", &gone_within("-o /out/killed-dead"));
            steps.wait("killed");
            ended(steps, "recorder", "/out/dead");
            steps.holdup("report", &["report", "/out/dead", "--json"]);
            steps.holdup(
                "late",
                &["record", "--armed", "-o", "/out/late", "--json", "--duration", "4"],
            );
            steps.holdup("late-report", &["report", "/out/late", "--json"]);
        },
        check: |run| {
            in_time(run)?;
            let truth = run.truth("truth")?;
            let tid = truth.task("dead-lock-word", "stuck")?;
            let lock = format!("{:#018x}", truth.lock("heap.dead_word.done.wait.lock")?);
            let title = format!(
                "CPU 1: lf_dlw_stuck ({tid}) spins on LOCK, whose word says that nobody holds it; likely at \
                 lockfault_dead_word_stuck: it was overwritten while in use"
            );
            verdict(run.output("report")?, 4, "dead-lock-word", "proven", &lock, &title)?;
            run.output("recorder")?.stderr_has(PROBES_STAY)?;
            ensure!(
                run.output("gone")?.stdout().trim() == "gone",
                "the killed one is still there: {}",
                run.output("gone")?.shown()
            );
            let late = run.output("late")?;
            late.exited_with(4)?;
            late.stderr_has(NOTHING_ATTACHED)?;
            late.stderr_has("probes of an earlier run stay in /sys/fs/bpf/holdup-")?;
            verdict(run.output("late-report")?, 4, "dead-lock-word", "likely", &lock, &title)
        },
    },
];

/// Lists what has a name in bpffs.
const NAMES: &str = "ls -d /sys/fs/bpf/holdup-*/* 2>/dev/null | sed 's,.*/,,'";

/// Waits until a capture that is still being written names a verdict.
fn reported(steps: &mut Steps, file: &str, verdict: &str) {
    steps.shell(
        "reported",
        &format!("until holdup report {file} 2>/dev/null | grep -q {verdict}; do sleep 0.2; done"),
    );
}

/// Ends a recorder and looks for how long it stays.
fn ended(steps: &mut Steps, label: &str, file: &str) {
    steps.signal(label, "TERM");
    steps.shell("ended", &gone_within(&format!("-o {file}")));
    steps.wait(label);
}

/// A command that says "gone" as soon as no holdup with these arguments is there, and nothing after ten seconds. An exited process
/// has no command line.
pub(super) fn gone_within(arguments: &str) -> String {
    format!(
        "end=$(( $(cut -d. -f1 /proc/uptime) + 10 ))
         there() {{ for p in $(pidof holdup); do tr '\\0' ' ' < /proc/$p/cmdline; echo; done | grep -q -- '{arguments} '; }}
         while [ $(cut -d. -f1 /proc/uptime) -le $end ]; do there || {{ echo gone; exit; }}; sleep 0.1; done"
    )
}

fn in_time(run: &GuestRun) -> Result<()> {
    let ended = run.output("ended")?;
    ensure!(
        ended.stdout().trim() == "gone",
        "it has not ended within 10 s: {}",
        run.output("recorder")?.shown()
    );
    run.output("reported")?
        .exited_with(0)
        .context("the capture never named the verdict")
}

/// The only finding above information of a report. `LOCK` in the title stands for whatever the lock is called.
fn verdict(report: &Output, code: i32, kind: &str, certainty: &str, lock: &str, title: &str) -> Result<()> {
    report.exited_with(code)?;
    let value: Value = serde_json::from_str(&report.stdout()).context("no report")?;
    let findings = value["findings"].as_array().context("no findings")?;
    let told: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["severity"] != "info")
        .collect();
    let [finding] = told.as_slice() else {
        bail!("{} findings instead of one: {told:#?}", told.len());
    };
    let title = title.replace("LOCK", &Named::of(finding, lock).words("spinlock", lock));
    let wanted = json!({"kind": kind, "certainty": certainty, "severity": "critical", "title": title});
    for (field, value) in wanted.as_object().into_iter().flatten() {
        ensure!(finding[field] == *value, "{field} is {}, not {value}", finding[field]);
    }
    Ok(())
}
