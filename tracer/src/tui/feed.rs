//! The data side: takes events in, and lays pictures down for the view.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc as requests;
use tokio::time::MissedTickBehavior;

use super::source::{Control, Look, Picture, Source, Vitals};
use super::{Options, save, screen, terminal};
use crate::ids::Nanos;
use crate::report::{LossRow, ProgramCost, Report, TotalsRow};

/// Time between two pictures, at least.
const PICTURE_EVERY: Duration = Duration::from_millis(250);
/// Time over which rates are taken, at least.
const RATE_OVER: Duration = Duration::from_secs(1);
/// How long the view may take to end: a terminal that takes no more bytes must not keep us here.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What wakes the view.
#[derive(Debug)]
pub enum Wake {
    /// A picture lies in the slot.
    Picture,
    /// A key, the mouse, or a new size.
    Input(ratatui::crossterm::event::Event),
    /// The terminal cannot be read any more.
    InputFailed(std::io::Error),
    /// The process was stopped and goes on: the terminal is in an unknown state.
    Continued,
    /// What has become of a request.
    Told(Result<String, String>),
    /// Time to end.
    Stop,
}

/// What the view asks of the data side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Move the recording.
    Control(Control),
    /// The picture is frozen (or no longer): only the header goes on.
    Freeze(bool),
    /// Look at every thread of the machine and write the report to the file of this name.
    Snapshot(String),
}

/// Where the newest picture lies until the view takes it.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Option<Picture>>);

impl Slot {
    /// Takes the picture.
    #[must_use]
    pub fn take(&self) -> Option<Picture> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn put(&self, picture: Picture) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(picture);
    }
}

/// Shows `source` until the view is left, or `stop` is ready.
///
/// # Errors
/// When the source fails, or the terminal cannot be used.
pub async fn run<S: Source>(mut source: S, options: &Options, stop: impl Future<Output = ()>) -> Result<()> {
    let mut continued = signal(SignalKind::from_raw(Signal::CONT.as_raw())).context("installing a signal handler")?;
    let (wake, wakes) = mpsc::channel();
    let (ask, mut asked) = requests::unbounded_channel();
    let slot = Arc::new(Slot::default());
    let view = screen::View::start(options, (wake.clone(), wakes), Arc::clone(&slot), ask)?;
    let mut pictures = Pictures::new(slot, wake.clone());
    let mut ticker = tokio::time::interval(PICTURE_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    let ended = loop {
        tokio::select! {
            biased;
            () = &mut stop => break Ok(()),
            request = asked.recv() => match request {
                // The view was left, or has failed: its end says which.
                None => break Ok(()),
                Some(Request::Freeze(frozen)) => pictures.freeze(frozen),
                Some(Request::Snapshot(name)) => snapshot(source.snapshot(), name, wake.clone()),
                Some(Request::Control(control)) => {
                    if let Err(error) = source.control(control) {
                        break Err(error);
                    }
                    pictures.lay(&source);
                }
            },
            _ = continued.recv() => { let _ = wake.send(Wake::Continued); }
            _ = ticker.tick() => pictures.lay_if_wanted(&source),
            moved = source.advance() => if let Err(error) = moved { break Err(error) },
        }
    };
    let left = end(view, &wake);
    ended.and(left)
}

/// Takes a snapshot beside everything else, and tells the view what has become of it.
fn snapshot(look: Option<Look>, name: String, wake: mpsc::Sender<Wake>) {
    let failed = wake.clone();
    let work = move || {
        let look = look.context("there is no machine to look at")?;
        save::save(&look()?, &name)?;
        Ok(format!("snapshot saved to {name}"))
    };
    let tell = move || {
        let said: Result<String> = work();
        // Nobody listens while the view ends.
        let _ = wake.send(Wake::Told(said.map_err(|error| format!("no snapshot: {error:#}"))));
    };
    let thread = thread::Builder::new().name("holdup-snapshot".to_owned());
    if let Err(error) = thread.spawn(tell) {
        let _ = failed.send(Wake::Told(Err(format!("no snapshot: {error}"))));
    }
}

/// Ends the view and gives the terminal back, even if the view hangs on it.
fn end(view: screen::View, wake: &mpsc::Sender<Wake>) -> Result<()> {
    let _ = wake.send(Wake::Stop);
    match view.ended.recv_timeout(END_WITHIN) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            terminal::restore();
            Ok(())
        }
        Err(RecvTimeoutError::Disconnected) => {
            terminal::restore();
            bail!("the terminal view broke off; the message above says why")
        }
    }
}

/// Makes pictures.
struct Pictures {
    slot: Arc<Slot>,
    wake: mpsc::Sender<Wake>,
    meter: Meter,
    last: Option<Picture>,
    frozen: bool,
}

impl Pictures {
    fn new(slot: Arc<Slot>, wake: mpsc::Sender<Wake>) -> Self {
        Self {
            slot,
            wake,
            meter: Meter::default(),
            last: None,
            frozen: false,
        }
    }

    fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Lays a picture down, if the view has taken the last one and something has changed.
    fn lay_if_wanted(&mut self, source: &impl Source) {
        self.meter.update(source);
        if self.slot.is_empty() {
            self.lay(source);
        }
    }

    fn lay(&mut self, source: &impl Source) {
        let vitals = self.meter.vitals(source);
        let unchanged = |last: &Picture| {
            last.vitals.totals.events == vitals.totals.events && last.vitals.playback == vitals.playback
        };
        let report = match &self.last {
            Some(last) if self.frozen || unchanged(last) => Arc::clone(&last.report),
            _ => Arc::new(self.meter.report(source)),
        };
        let picture = Picture { report, vitals };
        if self.last.as_ref() == Some(&picture) {
            return;
        }
        self.last = Some(picture.clone());
        self.slot.put(picture);
        // Nobody listens while the view ends.
        let _ = self.wake.send(Wake::Picture);
    }
}

/// Rates over the last second or so.
#[derive(Debug, Default)]
struct Meter {
    last: Option<Reading>,
    events_per_second: u64,
    own_cpu: Option<u32>,
    probe_cpu: Option<u32>,
    programs: Vec<ProgramCost>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    events: u64,
    own: Nanos,
    probes: u64,
    runs: u64,
}

impl Meter {
    fn update(&mut self, source: &impl Source) {
        let at = Instant::now();
        let due = self.last.is_none_or(|last| at.duration_since(last.at) >= RATE_OVER);
        if !due {
            return;
        }
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let own =
            Nanos(u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0));
        self.programs = source.program_costs();
        let now = Reading {
            at,
            events: source.pipeline().model().events(),
            own,
            probes: self.programs.iter().map(|p| p.run_time.0).sum(),
            runs: self.programs.iter().map(|p| p.runs).sum(),
        };
        if let Some(last) = self.last {
            let over = Nanos::from(at.duration_since(last.at)).0.max(1);
            let per_mille =
                |from: u64, to: u64| u32::try_from(to.saturating_sub(from).saturating_mul(1_000) / over).ok();
            let events = now.events.saturating_sub(last.events);
            self.events_per_second = u64::try_from(u128::from(events) * 1_000_000_000 / u128::from(over)).unwrap_or(0);
            self.own_cpu = per_mille(last.own.0, now.own.0);
            // Runs are counted only where time is.
            let counted = now.runs > last.runs;
            self.probe_cpu = if counted {
                per_mille(last.probes, now.probes)
            } else {
                None
            };
        }
        self.last = Some(now);
    }

    /// The report with what changes in the source while it runs.
    fn report(&self, source: &impl Source) -> Report {
        let mut report = source.pipeline().report();
        report.source.programs.clone_from(&self.programs);
        report
    }

    fn vitals(&self, source: &impl Source) -> Vitals {
        let model = source.pipeline().model();
        Vitals {
            now: source.pipeline().now(),
            events_per_second: self.events_per_second,
            own_cpu: self.own_cpu,
            probe_cpu: self.probe_cpu,
            losses: LossRow::of(model),
            totals: TotalsRow::of(model),
            playback: source.playback(),
        }
    }
}
