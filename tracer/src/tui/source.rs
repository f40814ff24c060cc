//! What the view shows, and what moves it on: the running kernel, a capture, or a scenario.

use std::sync::Arc;

use anyhow::Result;

use crate::ids::Timestamp;
use crate::pipeline::Pipeline;
use crate::report::{LossRow, ProgramCost, Report, TotalsRow};

/// Looks once at every thread of a machine. It takes its time: on a thread of its own.
pub type Look = Box<dyn FnOnce() -> Result<Report> + Send>;

/// Something that moves a pipeline on.
///
/// The running kernel cannot be stopped: it has no [`Playback`], and pause freezes the picture only. A recording has one, and
/// takes [`Control`]s.
pub trait Source {
    /// Waits for something to happen and takes it into the pipeline. When there will never be anything more, this waits for ever.
    /// It must be safe to drop at any `.await` and to call again: that is what happens whenever a key is pressed.
    ///
    /// # Errors
    /// When the source cannot go on.
    fn advance(&mut self) -> impl Future<Output = Result<()>>;

    /// Model and diagnosis as far as they have come.
    fn pipeline(&self) -> &Pipeline;

    /// Where a recording stands; `None` when the source cannot be stopped.
    fn playback(&self) -> Option<Playback> {
        None
    }

    /// Starts, stops or moves a recording. Sources without [`Playback`] are never asked.
    ///
    /// # Errors
    /// When the recording cannot be read.
    fn control(&mut self, control: Control) -> Result<()> {
        let _ = control;
        Ok(())
    }

    /// How to look at every thread of the machine behind the source; `None` where there is none.
    fn snapshot(&self) -> Option<Look> {
        None
    }

    /// What our BPF programs have cost so far, where the source has any.
    fn program_costs(&self) -> Vec<ProgramCost> {
        Vec::new()
    }
}

/// What can be asked of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop, or go on.
    TogglePause,
    /// Twice as fast.
    Faster,
    /// Half as fast.
    Slower,
    /// To the next time a finding opens, changes or closes, and stop there.
    StepToFinding,
    /// So many seconds forward, or back when negative.
    SeekBy(i64),
    /// To the beginning.
    Rewind,
}

/// Where a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Playback {
    /// It does not move.
    pub paused: bool,
    /// Speed, in hundredths of real time.
    pub percent: u32,
    /// Time of its first event.
    pub start: Timestamp,
    /// Time up to which it has been played.
    pub position: Timestamp,
    /// Time of its last event.
    pub end: Timestamp,
}

/// What the header shows: it goes on while the picture is frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Time of the newest event.
    pub now: Timestamp,
    /// Events per second over the last second or so.
    pub events_per_second: u64,
    /// CPU time of this process, in thousandths of one CPU, over the last second or so.
    pub own_cpu: Option<u32>,
    /// Time in our BPF programs, in thousandths of one CPU, over the last second or so; `None` when the kernel does not count it.
    pub probe_cpu: Option<u32>,
    /// Everything that was not seen.
    pub losses: Vec<LossRow>,
    /// Sizes of the model.
    pub totals: TotalsRow,
    /// Where a recording stands.
    pub playback: Option<Playback>,
}

/// One picture for the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// What is known.
    pub report: Arc<Report>,
    /// What goes on.
    pub vitals: Vitals,
}
