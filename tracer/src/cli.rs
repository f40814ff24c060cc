//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bpf::probes::ProbeChoice;
use crate::kernel::lines::LineArgs;
use crate::source::live::{Options, WatchSpec};
use crate::verbs::export::ExportArgs;
use crate::verbs::record::RecordArgs;
use crate::verbs::replay::ReplayArgs;
use crate::verbs::report::ReportArgs;
use crate::verbs::snapshot::SnapshotArgs;

/// Printed below the options.
const EXIT_CODES: &str = "Exit codes:
  0  nothing found, or the interactive view was left
  1  holdup could not do its work; stderr says why
  2  wrong usage
  3  a deadlock was found
  4  no deadlock, but other findings of severity warning or above

Findings and data go to stdout, everything else to stderr.";

/// Shows who is holding up the kernel: lock waits, who owns what they wait for, deadlocks and long holders.
#[derive(Debug, Parser)]
#[command(name = "holdup", version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do; `live` when left out.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Attach to the running kernel and show findings as they open, change and close: on a terminal as an interactive view, else
    /// (or with --text, --json, --tuples, --until) as lines.
    #[command(after_help = EXIT_CODES)]
    Live(LiveArgs),
    /// Explain, once, what is blocked now, however long ago it began.
    #[command(after_help = EXIT_CODES)]
    Snapshot(SnapshotArgs),
    /// Do as `live`, and record every event in a file that survives the machine.
    #[command(after_help = EXIT_CODES)]
    Record(RecordArgs),
    /// Play a capture: the findings as they were shown when it was recorded.
    #[command(after_help = EXIT_CODES)]
    Replay(ReplayArgs),
    /// Summarise a capture.
    #[command(after_help = EXIT_CODES)]
    Report(ReportArgs),
    /// Write a capture in the format of another tool: Graphviz, Perfetto, flame graphs, JSON lines.
    Export(ExportArgs),
    /// Say what this kernel offers, which probes will be used, what is missing and how to get it.
    Doctor(DoctorArgs),
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// One JSON document instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `live`.
#[derive(Debug, Default, Args)]
pub struct LiveArgs {
    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Stop as soon as this has been found.
    #[arg(long, value_enum)]
    pub until: Option<Until>,
    /// Stop after this long (`15`, `500ms`, `2m`, `1h`); without a unit, seconds.
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Of the waits that ended, only those that match all of these words: `task:postgres`, `kind:mutex`, `lock:ADDRESS` (a
    /// name matches from when the lock was named), or a word for any of the three. What lasts is always kept, so that no
    /// deadlock hides; statistics of a lock are of all tasks.
    #[arg(long, value_name = "WORDS", value_parser = crate::only::parse)]
    pub only: Option<crate::tui::filter::Filter>,
    /// How the interactive view looks.
    #[command(flatten)]
    pub view: crate::tui::Options,
    /// What the probes are and what they watch.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

impl LiveArgs {
    /// Whether lines are wanted even on a terminal.
    #[must_use]
    pub fn wants_lines(&self) -> bool {
        self.output.wants_lines() || self.until.is_some()
    }
}

/// What is printed instead of the interactive view.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Lines of text.
    #[arg(long, conflicts_with = "json")]
    pub text: bool,
    /// JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Also print every owner/waiter tuple.
    #[arg(long)]
    pub tuples: bool,
}

impl OutputArgs {
    /// Whether lines are wanted even on a terminal.
    #[must_use]
    pub fn wants_lines(&self) -> bool {
        self.text || self.json || self.tuples
    }
}

/// What ends a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// Any finding.
    Finding,
    /// A finding of severity warning or above.
    Warning,
    /// A deadlock that is proven.
    Deadlock,
}

/// What is captured; the same for every verb that attaches.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Which probes to use.
    #[arg(long, value_enum, default_value_t = ProbeChoice::Auto)]
    pub probes: ProbeChoice,
    /// Waits at least this long become events when they end.
    #[arg(long, value_parser = parse_duration, default_value = "10ms", default_value_if("armed", "true", "100ms"))]
    pub min_wait: Duration,
    /// Waits at least this old are re-read from their locks.
    #[arg(long, value_parser = parse_duration, default_value = "100ms", default_value_if("armed", "true", "500ms"))]
    pub pending_after: Duration,
    /// Time between re-reads.
    #[arg(long, value_parser = parse_interval, default_value = "250ms", default_value_if("armed", "true", "500ms"))]
    pub interval: Duration,
    /// Every begin and end of a wait becomes an event, however short.
    #[arg(long)]
    pub all: bool,
    /// Take no kernel stacks.
    #[arg(long)]
    pub no_stacks: bool,
    /// Also show where threads that sleep came from in user space, from their registers and the top of their stack, read without any
    /// lock (x86-64). No probe becomes dearer; each thread that is shown costs some reads of kernel memory.
    #[arg(long)]
    pub user_stacks: bool,
    /// Attach kprobes to unlock slowpaths, too: who released what somebody waited for, and how long contended locks are held.
    #[arg(long)]
    pub releases: bool,
    /// Attach kprobes to init functions, too: who initialises a lock again while others hold it or wait for it.
    #[arg(long)]
    pub reinit: bool,
    /// Follow those who hold others up through the scheduler: how long they ran, wanted to run, slept, and were in I/O. A program then
    /// runs at each switch of threads and each wake-up of the machine: 0.15 us and 0.18 us for threads that nobody waits for (`cargo xtask bench probes`).
    #[arg(long)]
    pub holders: bool,
    /// Record every acquisition and release of this lock, with holder, hold time and stack: `SYMBOL`, `SYMBOL+OFFSET` or an
    /// address, best with its kind before it (`spinlock:0xffff...`; rwlock, mutex, rwsem): without it the functions of all four
    /// kinds are traced. May be given 8 times. Every other lock of the kind pays for it: the cost is measured and printed.
    #[arg(long, value_name = "[KIND:]LOCK")]
    pub watch: Vec<WatchSpec>,
    /// Attach an empty program, too: what an event costs by itself (`cargo xtask bench probes`).
    #[arg(long, hide = true)]
    pub baseline: bool,
    /// Size of the ring buffer in bytes, a power of two and at least a page; chosen from the number of CPUs when left out.
    #[arg(long, hide_short_help = true, value_parser = parse_ring)]
    pub ring_bytes: Option<u32>,
    /// Sample what every CPU does all the time, not only while one looks stuck.
    #[arg(long)]
    pub cpus: bool,
    /// File and line of kernel frames.
    #[command(flatten)]
    pub lines: LineArgs,
    /// Diagnostics of the BPF programs on stderr.
    #[arg(long, value_enum, default_value_t = LogLevel::Off)]
    pub bpf_log: LogLevel,
}

impl Default for CaptureArgs {
    fn default() -> Self {
        let options = Options::default();
        Self {
            probes: options.probes,
            min_wait: options.min_wait,
            pending_after: options.pending_after,
            interval: options.interval,
            all: options.all,
            no_stacks: !options.stacks,
            user_stacks: options.user_stacks,
            releases: options.releases,
            reinit: options.reinit,
            holders: options.holders,
            watch: options.watch,
            baseline: options.baseline,
            ring_bytes: options.ring_bytes,
            cpus: options.cpus,
            lines: options.lines,
            bpf_log: LogLevel::Off,
        }
    }
}

impl CaptureArgs {
    /// The options of the live source.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            probes: self.probes,
            min_wait: self.min_wait,
            pending_after: self.pending_after,
            interval: self.interval,
            all: self.all,
            stacks: !self.no_stacks,
            user_stacks: self.user_stacks,
            releases: self.releases,
            reinit: self.reinit,
            holders: self.holders,
            watch: self.watch.clone(),
            baseline: self.baseline,
            ring_bytes: self.ring_bytes,
            cpus: self.cpus,
            armed: false,
            lines: self.lines.clone(),
            bpf_log: self.bpf_log as u8,
            records: false,
        }
    }
}

/// Level of the BPF side's log; the numbers are aya-log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing; the programs contain no logging code then.
    Off = 0,
    /// Errors.
    Error = 1,
    /// And warnings.
    Warn = 2,
    /// And notable facts.
    Info = 3,
    /// And every re-read wait.
    Debug = 4,
}

/// Parses `15`, `1.5s`, `500ms`, `2m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text.strip_suffix(unit).unwrap_or(text);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        other => return Err(format!("unknown unit {other:?}; use us, ms, s, m, h or d")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{number:?} is no number; write for example 15, 500ms or 2m"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|e| format!("{text:?}: {e}"))
}

fn parse_ring(text: &str) -> Result<u32, String> {
    const PAGE: u32 = 4096;
    match text.parse::<u32>() {
        Ok(bytes) if bytes >= PAGE && bytes.is_power_of_two() => Ok(bytes),
        _ => Err(format!(
            "{text:?} is no power of two of at least {PAGE} bytes, which the kernel asks for"
        )),
    }
}

pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(10);
    let interval = parse_duration(text)?;
    if interval < LEAST {
        Err(format!(
            "{text:?} is below 10ms, the shortest interval that leaves the box alone"
        ))
    } else {
        Ok(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_take_units_and_reject_the_rest() {
        for (text, ms) in [
            ("15", 15_000),
            ("1.5s", 1500),
            ("500ms", 500),
            ("2m", 120_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "x", "5y", "-1", "1e400", "ms", "1..2"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_interval("1ms").is_err());
    }

    #[test]
    fn an_armed_recording_looks_less_often_and_is_bounded_unless_told_otherwise() {
        let record = |arguments: &[&str]| {
            let all = ["holdup", "record", "-o", "f"].iter().chain(arguments);
            match Cli::try_parse_from(all).map(|cli| cli.verb) {
                Ok(Some(Verb::Record(args))) => {
                    let capture = &args.live.capture;
                    let ms = [capture.min_wait, capture.pending_after, capture.interval].map(|d| d.as_millis());
                    Some((args.max_size, args.keep, ms))
                }
                _ => None,
            }
        };
        assert_eq!(record(&[]), Some((None, 4, [10, 100, 250])));
        assert_eq!(record(&["--armed"]), Some((Some(64 << 20), 4, [100, 500, 500])));
        let told = [
            "--armed",
            "--max-size",
            "1M",
            "--keep",
            "2",
            "--min-wait",
            "1ms",
            "--interval",
            "1s",
        ];
        assert_eq!(record(&told), Some((Some(1 << 20), 2, [1, 500, 1000])));
        assert_eq!(record(&["--armed", "--keep", "9"]).map(|r| r.1), Some(9));
        assert_eq!(record(&["--keep", "9"]), None, "of what?");
    }

    #[test]
    fn defaults_on_the_command_line_are_the_defaults_of_the_source() {
        let Some(Verb::Live(parsed)) = Cli::try_parse_from(["holdup", "live"]).unwrap().verb else {
            panic!("not live")
        };
        assert_eq!(format!("{:?}", parsed.capture), format!("{:?}", CaptureArgs::default()));
    }
}
