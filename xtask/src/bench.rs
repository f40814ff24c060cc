//! `cargo xtask bench probes`: what a contention event costs on this box, against an empty program in the same run.
//!
//! The machine is noisy and drifts, so every variant carries the empty program along, the variants take turns, and the medians
//! and their ratios to the empty program are what counts.

use crate::recorder::{size, soak};
use crate::{build, hang, ui};
use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Benchmarks.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// BPF run time per begin and end of a wait, under threads that create and remove directories on tmpfs
    Probes {
        /// Runs of each variant
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each run
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// Threads that contend
        #[arg(long, default_value_t = 8)]
        threads: usize,
    },
    /// Size and cost of a recording of every wait, against `perf lock record` where there is a perf
    Record {
        /// Runs
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each run
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Threads that contend
        #[arg(long, default_value_t = 8)]
        threads: usize,
    },
    /// Time and memory of a snapshot of many threads, 15 % of which wait behind one mutex
    Snapshot {
        /// Snapshots of each size; the best counts
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Numbers of threads
        #[arg(long, value_delimiter = ',', default_value = "1000,3000,10000")]
        threads: Vec<usize>,
    },
    /// A long recording in the default mode, with rotation: memory, files, and whether everything is in them
    Soak {
        /// Seconds
        #[arg(long, default_value_t = 3600)]
        seconds: u32,
    },
}

/// Name and holdup's arguments. `--min-wait 1h`: no wait is shown, which is what the default path costs.
const VARIANTS: &[(&str, &[&str])] = &[
    ("default, nothing to show", &["--min-wait", "1h"]),
    ("default", &[]),
    ("--all --no-stacks", &["--all", "--no-stacks"]),
    ("--all", &["--all"]),
    ("--holders, nobody to follow", &["--min-wait", "1h", "--holders"]),
];
/// Name of the threads that contend.
pub const CONTENDER: &str = "contender";
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const TMPFS: &str = "/dev/shm";

/// Runs the benchmark and prints a table.
///
/// # Errors
/// holdup cannot be built or run, or the kernel does not count run times.
pub fn run(bench: &Bench) -> Result<()> {
    let (rounds, seconds, threads) = match bench {
        Bench::Probes {
            rounds,
            seconds,
            threads,
        } => (rounds, seconds, threads),
        Bench::Record {
            rounds,
            seconds,
            threads,
        } => return size::run(*rounds, *seconds, *threads),
        Bench::Snapshot { rounds, threads } => return hang::run(threads, *rounds),
        Bench::Soak { seconds } => return soak::run(Duration::from_secs((*seconds).into()), &[], true),
    };
    let holdup = build::host()?;
    let _counting = Counting::start()?;
    let directory = tempfile::tempdir_in(TMPFS).with_context(|| format!("no tmpfs at {TMPFS}"))?;
    let mut results: Vec<Vec<Sample>> = vec![Vec::new(); VARIANTS.len()];
    for round in 0..*rounds {
        for ((name, arguments), samples) in VARIANTS.iter().zip(&mut results) {
            ui::step(format!("round {} of {rounds}: {name}", round + 1));
            samples.push(contended(directory.path(), *threads, || {
                measure(&holdup, *seconds, arguments)
            })?);
        }
    }
    println!("ns per run (median of {rounds}), {threads} threads on tmpfs, {seconds} s each");
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>14} {:>12}",
        "variant", "empty", "begin", "end", "begin / empty", "events/run"
    );
    for ((name, _), samples) in VARIANTS.iter().zip(&mut results) {
        let empty = median(samples, |sample| sample.empty);
        let begin = median(samples, |sample| sample.begin);
        println!(
            "{name:<28} {empty:>8.0} {begin:>8.0} {:>8.0} {:>14.2} {:>12.0}",
            median(samples, |sample| sample.end),
            begin / empty,
            median(samples, |sample| sample.events),
        );
        let [switch, wakeup] = [0, 1].map(|n| median(samples, |sample| sample.scheduler[n]));
        if !switch.is_nan() {
            println!(
                "{:<28} {switch:>8.0} ns a switch, {wakeup:.0} ns a wake-up, of threads that nobody waits for",
                ""
            );
        }
    }
    Ok(())
}

/// One run: ns per program run, and begins seen.
#[derive(Clone, Copy, Debug)]
struct Sample {
    empty: f64,
    begin: f64,
    end: f64,
    events: f64,
    /// A switch and a wake-up; not a number without the scheduler's programs.
    scheduler: [f64; 2],
}

fn median(samples: &mut [Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.sort_by(|a, b| of(a).total_cmp(&of(b)));
    samples.get(samples.len() / 2).map_or(f64::NAN, of)
}

fn measure(holdup: &Path, seconds: u32, arguments: &[&str]) -> Result<Sample> {
    let output = Command::new(holdup)
        .args(["live", "--json", "--baseline", "--duration", &seconds.to_string()])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", holdup.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().context("holdup printed nothing")?;
    let report: Value = serde_json::from_str(last).with_context(|| format!("no JSON: {last}"))?;
    let programs = report["source"]["programs"]
        .as_array()
        .context("the report names no programs")?;
    let cost = |name: &str| -> Result<(f64, f64)> {
        let program = programs.iter().find(|program| program["program"] == name);
        let number = |field: &str| program.and_then(|program| program[field].as_f64()).unwrap_or(0.0);
        let (runs, time) = (number("runs"), number("run_time_ns"));
        ensure!(runs > 0.0, "{name} did not run: no contention, or no tracepoint");
        Ok((time / runs, runs))
    };
    let (begin, events) = cost("tp_contention_begin")?;
    Ok(Sample {
        empty: cost("tp_empty")?.0,
        begin,
        end: cost("tp_contention_end")?.0,
        events,
        scheduler: ["tp_sched_switch", "tp_sched_wakeup"].map(|name| cost(name).map_or(f64::NAN, |c| c.0)),
    })
}

/// Runs `work` while threads create and remove directories next to each other.
pub fn contended<T>(directory: &Path, threads: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let path = directory.join(thread.to_string());
            let stop = &stop;
            let contend = move || {
                while !stop.load(Ordering::Relaxed) {
                    // What is measured is the parent's lock; whether each call succeeds does not matter.
                    let _ = fs::create_dir(&path);
                    let _ = fs::remove_dir(&path);
                }
            };
            let named = std::thread::Builder::new().name(CONTENDER.to_owned());
            // Should one be missing, the others contend.
            let _ = named.spawn_scoped(scope, contend);
        }
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// Run time statistics of BPF programs, switched on until dropped.
struct Counting {
    before: String,
}

impl Counting {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(STATS).with_context(|| format!("reading {STATS}"))?;
        fs::write(STATS, "1").with_context(|| format!("switching {STATS} on"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATS, self.before.trim()) {
            ui::step(format!("could not switch {STATS} back: {error}"));
        }
    }
}
