//! `holdup record`: the live run, with everything that happens in a capture.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use rustix::mm::{MlockAllFlags, mlockall};

use crate::capture::{Disk, Meta, Output, Totals, Writer};
use crate::cli::LiveArgs;
use crate::event::{Event, RawRecord};
use crate::kernel::clock::{self, Anchor};
use crate::kernel::facts::KernelFacts;
use crate::kernel::offsets::Outcome;
use crate::kernel::sysroot::Sysroot;
use crate::model::Model;
use crate::report::SourceFacts;

/// Size of a file of an armed recording, where not told otherwise: with the four before it a few hundred megabytes.
const ARMED_SIZE: &str = "64M";

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("rotation").args(["max_size", "armed"]).multiple(true)))]
pub struct RecordArgs {
    /// The capture; `-` for standard output, which then shows nothing else.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// A flight recorder that runs for weeks and is ready for CPUs that hang: every probe and CPU timer that such a machine would
    /// refuse is there from the start and stays when holdup is killed, locks that are initialised again while in use are told
    /// (--reinit), memory is locked, and disk use is bounded (--max-size 64M --keep 4). The defaults are then --min-wait 100ms --pending-after 500ms --interval 500ms.
    #[arg(long)]
    pub armed: bool,
    /// Go on in a new file when this one has reached this size (`500k`, `100M`, `2G`); FILE is always the newest, FILE.1 the
    /// one before.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value_if("armed", "true", ARMED_SIZE))]
    pub max_size: Option<u64>,
    /// Older files that are kept when there is a size; the oldest goes first.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "rotation")]
    pub keep: u32,
    /// Replace files that are there already.
    #[arg(long)]
    pub overwrite: bool,
    /// What is shown meanwhile, and what is watched.
    #[command(flatten)]
    pub live: LiveArgs,
}

impl RecordArgs {
    /// Whether standard output is the capture.
    #[must_use]
    pub fn to_stdout(&self) -> bool {
        self.output.as_os_str() == OsStr::new("-")
    }

    fn output(&self) -> Output {
        if self.to_stdout() {
            return Output::Stdout;
        }
        let keep = if self.max_size.is_some() { self.keep } else { 0 };
        Output::Files {
            path: self.output.clone(),
            keep,
            overwrite: self.overwrite,
        }
    }
}

/// A capture in the making, beside a live run.
#[derive(Debug)]
pub struct Recording {
    writer: Writer<Disk>,
    output: PathBuf,
}

/// A capture that is to be made: its file is there, so that a wrong name shows before anything is attached.
#[derive(Debug)]
pub struct Prepared<'a> {
    args: &'a RecordArgs,
    disk: Disk,
}

impl<'a> Prepared<'a> {
    /// Creates the file.
    ///
    /// # Errors
    /// When it cannot be created, or is there already.
    pub fn new(args: &'a RecordArgs) -> Result<Self> {
        if args.armed {
            ensure!(
                !args.to_stdout(),
                "an armed recording is bounded by going on in new files, which standard output is not: name a file with -o"
            );
            lock_memory();
        }
        Ok(Self {
            args,
            disk: Disk::create(&args.output())?,
        })
    }

    /// Begins with what is known of the machine and the probes.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn start(self, facts: &KernelFacts, source: &SourceFacts) -> Result<Recording> {
        let meta = meta(self.args, facts, source);
        let writer = Writer::new(self.disk, meta, self.args.max_size)?;
        Ok(Recording {
            writer,
            output: self.args.output.clone(),
        })
    }
}

fn meta(args: &RecordArgs, facts: &KernelFacts, source: &SourceFacts) -> Meta {
    let boot_id = clock::boot_id(&Sysroot::host()).unwrap_or_default();
    let found = facts.offsets.rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Found { value, .. } => Some((row.field.to_owned(), value.clone())),
        Outcome::NotApplicable | Outcome::Missing { .. } => None,
    });
    Meta {
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        arguments: std::env::args().collect(),
        host: source.host.clone(),
        kernel: source.kernel.clone(),
        recording: format!("{boot_id}-{}-{}", std::process::id(), clock::monotonic()),
        boot_id,
        clock: Some(Anchor::now()),
        cpus: facts.possible_cpus,
        pending_after: args.live.capture.pending_after.into(),
        offsets: found.collect(),
        probes: source.probes.clone(),
        limits: source.limits.clone(),
        part: 0,
    }
}

impl Recording {
    /// Takes the record that the events behind it were decoded from.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn record(&mut self, record: &RawRecord, model: &Model) -> Result<()> {
        Ok(self.writer.record(record, model)?)
    }

    /// Takes an event that the model has taken, and how many findings it opened.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn event(&mut self, event: &Event, opened: usize, model: &Model) -> Result<()> {
        self.writer.event(event, model)?;
        if opened > 0 {
            self.writer.found(u32::try_from(opened).unwrap_or(u32::MAX), model)?;
        }
        Ok(())
    }

    /// Writes what has waited long enough.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn flush(&mut self, model: &Model) -> Result<()> {
        Ok(self.writer.flush(Instant::now(), model)?)
    }

    /// Waits until [`Recording::flush`] is due.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub async fn due(&self) -> Result<()> {
        let due = async {
            match self.writer.due() {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => Ok(()),
            error = self.writer.sink().failure() => Err(error.into()),
        }
    }

    /// Ends it in good order and says on stderr what it has become.
    ///
    /// # Errors
    /// When the end did not reach the disk.
    pub fn finish(self) -> Result<()> {
        let (disk, totals) = self.writer.finish()?;
        disk.finish().context("ending the capture")?;
        let Totals {
            events,
            lost,
            bytes,
            files,
        } = totals;
        let more = if files > 1 {
            format!(" in {files} files")
        } else {
            String::new()
        };
        eprintln!(
            "holdup: recorded {events} events, {bytes} bytes{more}: {}",
            self.output.display()
        );
        if lost > 0 {
            eprintln!("holdup: {lost} events are not in the capture: the disk could not keep up");
        }
        Ok(())
    }
}

/// A page of ours that had to be read from a disk that hangs would hang us, too.
pub(crate) fn lock_memory() {
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        eprintln!("holdup: memory is not locked ({error}): if the disk hangs, this may, too");
    }
}

/// Parses `4096`, `500k`, `100M`, `2G`, in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64 * 1024;
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit).unwrap_or(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("unknown unit {unit:?}; use k, M, G or T")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no size; write for example 500k or 100M"))?;
    match number.checked_mul(1 << shift) {
        Some(size) if size >= LEAST => Ok(size),
        Some(_) => Err(format!("{text:?} is less than 64k, the smallest useful file")),
        None => Err(format!("{text:?} is too large")),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_take_units_and_reject_the_rest() {
        for (text, size) in [
            ("65536", 65_536),
            ("64k", 65_536),
            ("100M", 100 << 20),
            ("2g", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "M", "1.5M", "-1", "10", "63k", "99999999999T", "5x", "5MM"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
