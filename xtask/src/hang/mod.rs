//! `cargo xtask bench snapshot`: what a look at many threads costs, when many of them hang, and how soon after its start `holdup live`
//! tells of them.
//!
//! The threads are real, and so is the hang: one writes to a pipe from a page that is never filled, and so sleeps in a page fault
//! with the pipe's mutex; others want to write to the same pipe and sleep on the mutex. The rest sleep as threads mostly do.

mod page;

use crate::{build, ui};
use anyhow::{Context as _, Result, bail, ensure};
use page::MissingPage;
use serde_json::Value;
use std::fs;
use std::io::{PipeWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of a hundred threads, so many hang.
const HUNG_PERCENT: usize = 15;
/// Between the two looks of a snapshot.
const INTERVAL: Duration = Duration::from_millis(200);
/// A wait of less than a second is nobody's business: the hang is to be older.
const AGE: Duration = Duration::from_secs(2);
/// For everybody to fall asleep.
const PATIENCE: Duration = Duration::from_secs(120);
const STACK: usize = 64 << 10;

/// The cheapest of some snapshots of so many threads.
struct Sample {
    /// Both looks together.
    looks: Duration,
    /// Of it, in the kernel's walks over all threads.
    walks: Duration,
    /// The whole command without the interval.
    command: Duration,
    /// CPU time of the whole command, in the kernel and in all.
    system: Duration,
    cpu: Duration,
    kept_mb: f64,
    /// With `--user-stacks`: stacks, and the time to read and to unwind all of them.
    user: [f64; 3],
    /// From the start of `holdup live` to the time of its first word about the hang.
    live_tells: Duration,
}

/// Runs the benchmark and prints a table.
///
/// # Errors
/// holdup cannot be built or run, the hang cannot be made, or is not explained.
pub fn run(sizes: &[usize], rounds: usize) -> Result<()> {
    let holdup = build::host()?;
    println!(
        "{:>8} {:>7} {:>12} {:>14} {:>15} {:>12} {:>10} {:>12} {:>36}",
        "threads",
        "hung",
        "two looks",
        "kernel's walk",
        "whole command",
        "kernel CPU",
        "kept",
        "live tells",
        "user-space stacks: read, unwound"
    );
    for &threads in sizes {
        let hung = threads * HUNG_PERCENT / 100;
        ui::step(format!("{threads} threads, {hung} of them hung"));
        let samples = hang(threads, hung, || {
            (0..rounds)
                .map(|_| measure(&holdup, hung))
                .collect::<Result<Vec<Sample>>>()
        })?;
        let best = samples.iter().min_by_key(|sample| sample.looks).context("no round")?;
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
        let user = samples
            .iter()
            .map(|sample| sample.user)
            .min_by(|a, b| a[1].total_cmp(&b[1]));
        let [stacks, reading, unwinding] = user.unwrap_or_default();
        println!(
            "{threads:>8} {hung:>7} {:>12} {:>14} {:>15} {:>10.0} % {:>7.1} MB {:>12} {:>36}",
            ms(best.looks),
            ms(best.walks),
            ms(best.command),
            100.0 * best.system.as_secs_f64() / best.cpu.as_secs_f64().max(1e-9),
            best.kept_mb,
            ms(samples.iter().map(|sample| sample.live_tells).min().unwrap_or_default()),
            format!("{stacks}: {reading:.1} ms, {unwinding:.1} ms"),
        );
    }
    let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    println!("best of {rounds}; load of the machine at the end: {}", load.trim());
    Ok(())
}

fn measure(holdup: &Path, hung: usize) -> Result<Sample> {
    let before = page::children_cpu()?;
    let started = Instant::now();
    let output = Command::new(holdup)
        .args([
            "snapshot",
            "--json",
            "--interval",
            &format!("{}ms", INTERVAL.as_millis()),
        ])
        .output()
        .with_context(|| format!("running {}", holdup.display()))?;
    let command = started.elapsed().saturating_sub(INTERVAL);
    let after = page::children_cpu()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {stderr}"))?;
    let mut findings = report["findings"].as_array().into_iter().flatten();
    ensure!(
        findings.any(|finding| finding["kind"] == "root-blocker" && finding["victims"]["count"] == hung),
        "the hang is not explained: {:#}",
        report["findings"]
    );
    let costs = stderr.lines().filter_map(costs).collect::<Vec<_>>();
    ensure!(costs.len() == 2, "not two looks: {stderr}");
    let sum = |of: fn(&[f64; 3]) -> f64| costs.iter().map(of).sum::<f64>();
    Ok(Sample {
        looks: Duration::from_secs_f64(sum(|cost| cost[0]) / 1e3),
        walks: Duration::from_secs_f64(sum(|cost| cost[1]) / 1e3),
        command,
        system: after.system.saturating_sub(before.system),
        cpu: (after.system + after.user).saturating_sub(before.system + before.user),
        kept_mb: costs.iter().map(|cost| cost[2]).fold(0.0, f64::max),
        user: user_stacks(holdup)?,
        live_tells: live_tells(holdup, hung)?,
    })
}

/// What a snapshot says that it took for stacks of user space.
fn user_stacks(holdup: &Path) -> Result<[f64; 3]> {
    let output = Command::new(holdup)
        .args(["snapshot", "--json", "--user-stacks"])
        .output()
        .with_context(|| format!("running {}", holdup.display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Of the hung threads, whose stack leads through the function that writes.
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {stderr}"))?;
    let tasks = report["tasks"].as_array().into_iter().flatten();
    let mut frames = tasks
        .filter_map(|task| task["user_stack"]["frames"].as_array())
        .flatten();
    ensure!(
        frames.any(|frame| frame["function"]
            .as_str()
            .is_some_and(|name| name.contains("hang::write"))),
        "no user-space stack leads through the function that writes: {stderr}"
    );
    let costs = stderr.lines().find_map(user_costs);
    costs.with_context(|| format!("no user-space stacks: {stderr}"))
}

/// The numbers of a line that tells what user-space stacks took: stacks, and milliseconds.
fn user_costs(line: &str) -> Option<[f64; 3]> {
    let rest = line.strip_prefix("holdup: read ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse().ok();
    Some([number(0)?, number(4)?, number(9)?])
}

fn live_tells(holdup: &Path, hung: usize) -> Result<Duration> {
    let started = monotonic();
    let output = Command::new(holdup)
        .args(["live", "--json", "--until", "warning", "--duration", "30"])
        .output()
        .with_context(|| format!("running {}", holdup.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines = stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut told = lines.filter(|line| line["type"] == "finding" && line["finding"]["victims"]["count"] == hung);
    let first = told.next().and_then(|line| line["time_ns"].as_u64());
    let first = first.with_context(|| {
        format!(
            "live does not tell of the hang: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok(Duration::from_nanos(first).saturating_sub(started))
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The numbers after `threads in`, `in the kernel` and `kept`.
fn costs(line: &str) -> Option<[f64; 3]> {
    let after = |text: &str| line.split(text).nth(1)?.split_whitespace().next()?.parse().ok();
    Some([after("threads in ")?, after("in the kernel ")?, after("kept ")?])
}

/// Does `work` while one thread holds a mutex, `hung` wait for it, and others sleep until all are `threads`.
fn hang<T>(threads: usize, hung: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let page = MissingPage::new().context("userfaultfd: it needs root")?;
    let (reader, writer) = std::io::pipe()?;
    let over = (Mutex::new(false), Condvar::new());
    let result = std::thread::scope(|scope| {
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let build_up = || -> Result<()> {
            let (mut into, from) = (writer.try_clone()?, &page);
            thread("hang_holder").spawn_scoped(scope, move || write(&mut into, from.bytes()))?;
            asleep("hang_holder", "SD", 1)?;
            for _ in 0..hung {
                let mut into = writer.try_clone()?;
                thread("hang_waiter").spawn_scoped(scope, move || write(&mut into, b"."))?;
            }
            for _ in 1..threads.saturating_sub(hung) {
                let (lock, woken) = &over;
                let sleep = || {
                    let mut over = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    while !*over {
                        over = woken.wait(over).unwrap_or_else(PoisonError::into_inner);
                    }
                };
                thread("hang_idle").spawn_scoped(scope, sleep)?;
            }
            asleep("hang_waiter", "D", hung)?;
            std::thread::sleep(AGE);
            Ok(())
        };
        let result = build_up().and_then(|()| work());
        *over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        over.1.notify_all();
        page.fill();
        result
    });
    drop(reader);
    result
}

fn write(into: &mut PipeWriter, bytes: &[u8]) {
    // What counts is the wait before it; there is room for all of it in the pipe.
    let _ = into.write_all(bytes);
}

/// Waits until so many threads of this name are in one of these states.
fn asleep(name: &str, states: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = 0;
        for entry in fs::read_dir("/proc/self/task")? {
            // A thread may be gone by now.
            let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            found +=
                usize::from(stat.contains(&format!("({name})")) && state.is_some_and(|state| states.contains(state)));
        }
        if found >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("only {found} of {count} threads {name} sleep as they should");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_line_gives_its_numbers() {
        let line = "holdup: looked at 1610 threads in 287.3 ms (in the kernel 49.2 ms), kept 2.0 MB";
        assert_eq!(costs(line), Some([287.3, 49.2, 2.0]));
        assert_eq!(costs("holdup: memory is not locked"), None);
        let line = "holdup: read 64 user-space stacks in 3.5 ms, unwound 63 in 12.0 ms";
        assert_eq!(user_costs(line), Some([64.0, 3.5, 12.0]));
        assert_eq!(user_costs("holdup: memory is not locked"), None);
    }
}
