//! `holdup export`: a capture in the formats of other tools.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use super::{Recorded, tell_damage, time_at};
use crate::cli::parse_duration;
use crate::diagnosis::{Finding, FindingChange};
use crate::event::Body;
use crate::ids::Timestamp;
use crate::player::{Player, Reached};
use crate::session::Outcome;
use crate::source::replay::{Next, Replay};
use crate::view::folded::Folded;
use crate::view::perfetto::Perfetto;
use crate::view::{dot, jsonl, records};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which recording.
    #[command(flatten)]
    pub recorded: Recorded,
    /// For which tool.
    #[arg(long, value_enum)]
    pub format: Format,
    /// The result; standard output when left out.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// With `dot`: the graph at this time, counted from the start of the recording (`15`, `500ms`, `2m`); the end when left out.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "finding")]
    pub at: Option<Duration>,
    /// With `dot`: the graph of this finding, when it was first reported; its number (`1` is the first that opened) or its id.
    #[arg(long, value_name = "FINDING")]
    pub finding: Option<String>,
}

/// Formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The wait-for graph, for Graphviz.
    Dot,
    /// Waits, holders and findings on a time line, for ui.perfetto.dev.
    Perfetto,
    /// Stacks by waited time in microseconds, for flame graphs.
    Folded,
    /// Every event as a line of JSON.
    Jsonl,
    /// Every record of the kernel as it came, as a line of JSON with its bytes in hexadecimal.
    Records,
}

enum Input {
    Events(Box<Player>),
    Records(Box<Replay>),
}

/// Writes the export.
///
/// # Errors
/// When the capture cannot be read, has no such finding, or the result cannot be written.
pub fn run(args: &ExportArgs) -> Result<Outcome> {
    if args.format != Format::Dot && (args.at.is_some() || args.finding.is_some()) {
        bail!("--at and --finding choose a graph; they go with --format dot only");
    }
    let mut input = match args.format {
        Format::Records => Input::Records(Box::new(args.recorded.open_with_records()?)),
        _ => Input::Events(Box::new(args.recorded.open()?)),
    };
    let to = args
        .output
        .as_deref()
        .filter(|path| path.as_os_str() != OsStr::new("-"));
    let (out, name): (Box<dyn Write>, String) = match to {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
            (Box::new(file), path.display().to_string())
        }
        None => (Box::new(io::stdout().lock()), "stdout".to_owned()),
    };
    let mut out = BufWriter::new(out);
    match &mut input {
        Input::Events(player) => write(args, player, &mut out)?,
        Input::Records(replay) => records(replay, &mut out)?,
    }
    out.flush().with_context(|| format!("writing to {name}"))?;
    tell_damage(match &input {
        Input::Events(player) => player.replay(),
        Input::Records(replay) => replay,
    });
    Ok(Outcome::Nothing)
}

fn write(args: &ExportArgs, player: &mut Player, out: &mut impl Write) -> Result<()> {
    match args.format {
        Format::Dot => graph(args, player, out)?,
        // Not made of events.
        Format::Records => {}
        Format::Jsonl => {
            while player.step(|played| Ok(played.event.map_or(Ok(()), |event| jsonl::event(event, out))?))? {}
        }
        Format::Folded => {
            let mut folded = Folded::default();
            while player.step(|played| {
                if let Some(event) = played.event {
                    folded.event(event, played.model);
                }
                Ok(())
            })? {}
            folded.finish(player.pipeline().model(), out)?;
        }
        Format::Perfetto => {
            let mut trace = Perfetto::new(out, player.replay().meta())?;
            while player.step(|played| {
                Ok(match played.event {
                    Some(event) => trace.event(event, &played.changes, played.model),
                    None => trace.changes(played.time, &played.changes),
                }?)
            })? {}
            trace.finish(player.pipeline().model())?;
        }
    }
    Ok(())
}

fn records(replay: &mut Replay, out: &mut impl Write) -> Result<()> {
    while let Next::Event(event) = replay.next_until(Timestamp(u64::MAX))? {
        if let Body::Record(record) = &event.body {
            records::json(record, out)?;
        }
    }
    Ok(())
}

fn graph(args: &ExportArgs, player: &mut Player, out: &mut impl Write) -> Result<()> {
    if let Some(wanted) = &args.finding {
        let finding = find(player, wanted)?;
        return Ok(dot::graph(out, &player.pipeline().report(), Some(&finding))?);
    }
    let until = args.at.map_or(Ok(Timestamp(u64::MAX)), |at| time_at(player, at))?;
    let mut changes = Vec::new();
    while player.advance(until, 65_536, &mut changes)? == Reached::Most {
        changes.clear();
    }
    Ok(dot::graph(out, &player.pipeline().report(), None)?)
}

/// Plays until the finding opens.
fn find(player: &mut Player, wanted: &str) -> Result<Finding> {
    let number: Option<usize> = wanted.parse().ok();
    let mut ids = Vec::new();
    loop {
        let changes = player.next_finding()?;
        if changes.is_empty() {
            break;
        }
        for change in changes {
            let FindingChange::Opened(finding) = change.change else {
                continue;
            };
            ids.push(finding.id.to_string());
            if number == Some(ids.len()) || *finding.id.0 == *wanted {
                return Ok(finding);
            }
        }
    }
    match ids.as_slice() {
        [] => bail!("there is no finding in this capture"),
        ids => bail!(
            "there is no finding {wanted:?}; there are, from 1 on: {}",
            ids.join(", ")
        ),
    }
}
