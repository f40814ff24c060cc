//! `holdup report`: a capture in one page, or as one JSON document.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::{Recorded, tell_damage, time_at};
use crate::cli::parse_duration;
use crate::ids::{Nanos, Timestamp};
use crate::player::Player;
use crate::report::Report;
use crate::session::{Outcome, STDOUT, outcome};
use crate::view::stacks::{self, Depth};
use crate::view::units::{count, duration, instant};
use crate::view::{json, text};

/// Closed findings and locks that are listed; the rest is counted.
const MOST: usize = 10;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Which recording.
    #[command(flatten)]
    pub recorded: Recorded,
    /// One JSON document.
    #[arg(long)]
    pub json: bool,
    /// Also print the kernel stacks of everybody who waits or holds, each once; `full` with the frames of lock and scheduler.
    #[arg(long, value_enum, value_name = "DEPTH", num_args = 0..=1, require_equals = true, default_missing_value = "caller", conflicts_with = "json")]
    pub stacks: Option<Depth>,
    /// The state at this time, counted from the start of the recording (`15`, `500ms`, `2m`); the end when left out.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub at: Option<Duration>,
}

/// Prints the report.
///
/// # Errors
/// When the capture cannot be read or stdout cannot be written.
pub fn run(args: &ReportArgs) -> Result<Outcome> {
    let mut player = args.recorded.open()?;
    let until = args.at.map_or(Ok(Timestamp(u64::MAX)), |at| time_at(&player, at))?;
    let (mut changes, mut worst) = (Vec::new(), Outcome::Nothing);
    let mut reached = crate::player::Reached::Most;
    while reached == crate::player::Reached::Most {
        reached = player.advance(until, 65_536, &mut changes)?;
        worst = changes
            .drain(..)
            .map(|change| outcome(&change.change))
            .fold(worst, Ord::max);
    }
    let report = player.pipeline().report();
    let mut out = io::stdout().lock();
    let written = if args.json {
        json::report(&mut out, &report)
    } else {
        page(&mut out, &player, &report, args.stacks)
    };
    written.and_then(|()| out.flush()).context(STDOUT)?;
    tell_damage(player.replay());
    Ok(worst)
}

fn page(out: &mut impl Write, player: &Player, report: &Report, depth: Option<Depth>) -> io::Result<()> {
    let meta = player.replay().meta();
    let or_unknown = |text: &str| {
        if text.is_empty() {
            "unknown".to_owned()
        } else {
            text.to_owned()
        }
    };
    write!(
        out,
        "recorded on {}, kernel {}",
        or_unknown(&meta.host),
        or_unknown(&meta.kernel)
    )?;
    writeln!(
        out,
        ", by holdup {}: {}",
        or_unknown(&meta.tool),
        meta.arguments.join(" ")
    )?;
    let events = usize::try_from(report.totals.events).unwrap_or(usize::MAX);
    match player.replay().span() {
        Some((first, last)) => {
            let length = duration(last.since(first));
            writeln!(
                out,
                "{} in {length}, from {} to {} s since boot",
                count(events, "event"),
                instant(first),
                instant(last)
            )?;
        }
        None => writeln!(out, "{}", count(events, "event"))?,
    }
    writeln!(out)?;
    text::report(out, report)?;
    if let Some(depth) = depth {
        writeln!(out)?;
        stacks::stacks(out, report, depth)?;
    }
    if !report.closed.is_empty() {
        writeln!(out, "\nover before the end:")?;
    }
    for row in report.closed.iter().take(MOST) {
        let finding = &row.finding;
        writeln!(
            out,
            "  {} {} [{}, {}], lasted {}",
            instant(finding.opened),
            finding.kind,
            finding.severity,
            finding.certainty,
            duration(row.lasted)
        )?;
        writeln!(out, "    {}", finding.title)?;
    }
    more(out, report.closed.len())?;
    let waited = |row: &&crate::report::LockRow| row.waits > 0 || row.lock.waiters > 0;
    let locks: Vec<_> = report.locks.iter().filter(waited).collect();
    if !locks.is_empty() {
        writeln!(out, "\ncontended locks:")?;
    }
    for row in locks.iter().take(MOST) {
        write!(
            out,
            "  {}: {}, {} in sum",
            row.lock,
            count(usize::try_from(row.waits).unwrap_or(usize::MAX), "wait"),
            duration(row.total)
        )?;
        writeln!(
            out,
            ", longest {}, {} waiting",
            duration(Nanos(row.max.0.max(row.longest_wait.0))),
            row.lock.waiters
        )?;
        if let Some(held) = row.held {
            let times = count(usize::try_from(held.times).unwrap_or(usize::MAX), "time");
            let (total, max) = (duration(held.total), duration(held.max));
            writeln!(
                out,
                "    held while somebody waited: {times}, in sum at least {total}, longest at least {max}"
            )?;
        }
    }
    more(out, locks.len() + report.locks_left_out)
}

fn more(out: &mut impl Write, all: usize) -> io::Result<()> {
    if all > MOST {
        writeln!(out, "  ... and {} more", all - MOST)
    } else {
        Ok(())
    }
}
