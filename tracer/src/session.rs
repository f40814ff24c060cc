//! One run of a verb: source, model, diagnosis and outputs put together.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::capture::{SinkError, WriteError};
use crate::cli::{LiveArgs, OutputArgs, Until};
use crate::diagnosis::{Certainty, Finding, FindingChange, Kind, Severity};
use crate::event::{Body, Event};
use crate::ids::Timestamp;
use crate::kernel::facts::KernelFacts;
use crate::model::Settings;
use crate::only::Only;
use crate::pipeline::Pipeline;
use crate::report::SourceFacts;
use crate::source::live::{Live, Options};
use crate::tui;
use crate::verbs::record::{Prepared, RecordArgs, Recording};
use crate::view::{json, loss, text, tuple};

/// Runs `live`: as the interactive view on a terminal, else as a stream of lines on stdout.
///
/// # Errors
/// When the probes cannot be attached, the kernel stops answering, or stdout cannot be written (other than a closed pipe).
pub async fn live(args: &LiveArgs) -> Result<Outcome> {
    follow(args, None).await
}

/// Runs `record`: as [`live`], with a capture beside it.
///
/// # Errors
/// As for [`live`], or when the capture cannot be written.
pub async fn record(args: &RecordArgs) -> Result<Outcome> {
    follow(&args.live, Some(args)).await
}

async fn follow(args: &LiveArgs, record: Option<&RecordArgs>) -> Result<Outcome> {
    let prepared = record.map(Prepared::new).transpose()?;
    let facts = KernelFacts::of_this_machine()?;
    let mut signals = Signals::new()?;
    let interactive = record.is_none() && tui::has_terminal() && !args.wants_lines();
    let options = Options {
        armed: record.is_some_and(|record| record.armed),
        records: record.is_some(),
        ..args.capture.options()
    };
    let mut live = Live::start(&options, &facts)?;
    // On the terminal of the view these lines would run through the picture, which shows the same.
    if !(interactive && io::stderr().is_terminal()) {
        announce(&live);
    }
    let settings = Settings {
        pending_threshold: args.capture.pending_after.into(),
        ..Settings::default()
    };
    if interactive {
        let deadline = args.duration.map(|d| tokio::time::Instant::now() + d);
        let source = source_facts(args, &live, &facts);
        let source = tui::LiveSource::new(live, settings, source, crate::verbs::snapshot::once).only(only(args));
        let stop = async {
            tokio::select! {
                () = signals.any() => {}
                () = until(deadline) => {}
            }
        };
        tui::run(source, &args.view, stop).await?;
        return Ok(Outcome::Nothing);
    }
    let source = source_facts(args, &live, &facts);
    let mut recording = prepared.map(|prepared| prepared.start(&facts, &source)).transpose()?;
    let mut pipeline = Pipeline::new(settings, source);
    let out: Box<dyn Write> = match record {
        Some(record) if record.to_stdout() => Box::new(io::sink()),
        _ => Box::new(io::stdout().lock()),
    };
    let mut lines = Lines::new(args.output, out);
    let result = watch(
        args,
        &mut signals,
        &mut live,
        &mut pipeline,
        &mut lines,
        recording.as_mut(),
    )
    .await;
    // Whatever ended the run, what was seen until then is kept; only a disk that has failed gets no more.
    let ended = match &result {
        Err(error) if error.is::<WriteError>() || error.is::<SinkError>() => Ok(None),
        _ => recording.map(Recording::finish).transpose(),
    };
    result.and_then(|()| ended.map(|_| lines.worst))
}

async fn watch(
    args: &LiveArgs,
    signals: &mut Signals,
    live: &mut Live,
    pipeline: &mut Pipeline,
    lines: &mut Lines<Box<dyn Write>>,
    mut recording: Option<&mut Recording>,
) -> Result<()> {
    let deadline = args.duration.map(|d| tokio::time::Instant::now() + d);
    let mut events = Vec::new();
    let mut only = only(args);
    loop {
        events.clear();
        let mut stop = tokio::select! {
            biased;
            () = signals.any() => true,
            () = until(deadline) => true,
            result = due(recording.as_deref()) => { result?; false }
            result = live.next(&mut events) => { result?; false }
        };
        if stop {
            live.finish(&mut events)?;
        }
        if let Some(only) = &mut only {
            only.retain(&mut events);
        }
        for event in &events {
            if let Body::Record(record) = &event.body {
                if let Some(recording) = recording.as_deref_mut() {
                    recording.record(record, pipeline.model())?;
                }
                continue;
            }
            lines.event(event)?;
            let changes = pipeline.apply(event);
            if let Some(recording) = recording.as_deref_mut() {
                let opened = changes
                    .iter()
                    .filter(|change| matches!(change, FindingChange::Opened(_)));
                recording.event(event, opened.count(), pipeline.model())?;
            }
            lines.changes(pipeline.now(), &changes)?;
            stop |= changes
                .iter()
                .any(|change| args.until.is_some_and(|until| is_reached(until, change)));
        }
        if let Some(recording) = recording.as_deref_mut() {
            recording.flush(pipeline.model())?;
        }
        if stop {
            let changes = pipeline.finish();
            lines.changes(pipeline.now(), &changes)?;
            pipeline.source_mut().programs = live.program_costs();
            return lines.end(pipeline);
        }
    }
}

/// What is asked for with `--only`.
fn only(args: &LiveArgs) -> Option<Only> {
    args.only.clone().map(Only::new)
}

/// What a report says about where its events come from.
fn source_facts(args: &LiveArgs, live: &Live, facts: &KernelFacts) -> SourceFacts {
    let (attached, failed): (Vec<_>, Vec<_>) = live.attached().iter().partition(|probe| probe.error.is_none());
    let narrowed = args.only.as_ref().map(|only| {
        format!(
            "waits that ended are told only where they match {only:?}",
            only = only.to_string()
        )
    });
    SourceFacts {
        mode: "live".into(),
        host: facts.host.clone(),
        kernel: facts.release.clone(),
        probes: attached.iter().map(ToString::to_string).collect(),
        limits: failed.iter().map(ToString::to_string).chain(narrowed).collect(),
        programs: live.program_costs(),
    }
}

/// Says what is attached, and what is not, on stderr. Scripts wait for the line `holdup: attached`.
fn announce(live: &Live) {
    for failed in live.attached().iter().filter(|a| a.error.is_some()) {
        eprintln!("holdup: not attached: {failed}");
    }
    let count = live.attached().iter().filter(|a| a.error.is_none()).count();
    eprintln!("holdup: attached ({count} probes)");
}

/// What a run found; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing of severity warning or above.
    Nothing,
    /// Something, but no deadlock.
    Warning,
    /// A deadlock.
    Deadlock,
}

impl Outcome {
    /// The documented exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Warning => 4,
            Self::Deadlock => 3,
        }
    }
}

/// Lines on stdout, the same for a live run and its replay.
pub(crate) struct Lines<W> {
    format: OutputArgs,
    pub out: W,
    pub worst: Outcome,
}

impl<W: Write> Lines<W> {
    pub fn new(format: OutputArgs, out: W) -> Self {
        Self {
            format,
            out,
            worst: Outcome::Nothing,
        }
    }

    pub fn event(&mut self, event: &Event) -> Result<()> {
        if let Body::Loss(report) = &event.body {
            let written = if self.format.json {
                loss::json(event.time, report, &mut self.out)
            } else {
                loss::text(event.time, report, &mut self.out)
            };
            return written.context(STDOUT);
        }
        if !self.format.tuples {
            return Ok(());
        }
        let written = if self.format.json {
            tuple::json(event, &mut self.out)
        } else {
            tuple::text(event, &mut self.out)
        };
        written.context(STDOUT)
    }

    pub fn changes(&mut self, now: Timestamp, changes: &[FindingChange]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            self.worst = self.worst.max(outcome(change));
            let written = if self.format.json {
                json::change(&mut self.out, now, change)
            } else {
                text::change(&mut self.out, now, change)
            };
            written.context(STDOUT)?;
        }
        self.out.flush().context(STDOUT)
    }

    /// Closes the stream: for programs, the whole state as one last line.
    pub fn end(&mut self, pipeline: &Pipeline) -> Result<()> {
        if self.format.json {
            json::report(&mut self.out, &pipeline.report()).context(STDOUT)?;
        }
        self.out.flush().context(STDOUT)
    }
}

pub(crate) const STDOUT: &str = "writing to stdout";

fn is_reached(until: Until, change: &FindingChange) -> bool {
    let (FindingChange::Opened(finding) | FindingChange::Changed(finding)) = change else {
        return false;
    };
    match until {
        Until::Finding => true,
        Until::Warning => finding.severity >= Severity::Warning,
        Until::Deadlock => outcome(change) == Outcome::Deadlock && finding.certainty == Certainty::Proven,
    }
}

pub(crate) fn outcome(change: &FindingChange) -> Outcome {
    let finding = match change {
        FindingChange::Opened(finding) | FindingChange::Changed(finding) => finding,
        FindingChange::Closed(closed) => &closed.finding,
    };
    outcome_of(finding)
}

/// What a finding means for the exit code. A deadlock that is no more than possible is worth knowing, not an alarm.
pub(crate) fn outcome_of(finding: &Finding) -> Outcome {
    match finding.kind {
        _ if finding.severity < Severity::Warning => Outcome::Nothing,
        Kind::SelfDeadlock | Kind::Cycle | Kind::ContextDeadlock => Outcome::Deadlock,
        _ => Outcome::Warning,
    }
}

async fn due(recording: Option<&Recording>) -> Result<()> {
    match recording {
        Some(recording) => recording.due().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The signals that end a run in good order.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("installing a signal handler");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
