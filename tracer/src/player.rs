//! Plays a recording into model and diagnosis: forwards at any speed, to a time, to the next finding, and back.

use anyhow::Result;

use crate::diagnosis::FindingChange;
use crate::event::Event;
use crate::ids::Timestamp;
use crate::model::{Model, Settings};
use crate::pipeline::Pipeline;
use crate::source::replay::{Next, Replay};

/// What became of a finding, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Time of the model.
    pub time: Timestamp,
    /// What.
    pub change: FindingChange,
}

/// A recording and the state of everything at one time in it.
#[derive(Debug)]
pub struct Player {
    replay: Replay,
    pipeline: Pipeline,
    ended: bool,
}

impl Player {
    /// Before the first event.
    #[must_use]
    pub fn new(replay: Replay) -> Self {
        let pipeline = pipeline(&replay);
        Self {
            replay,
            pipeline,
            ended: false,
        }
    }

    /// Plays the next event and gives it to `each`, with what it changed; false at the end, after the changes of the last look.
    ///
    /// # Errors
    /// When the recording cannot be read any more, or `each` fails.
    pub fn step(&mut self, each: impl FnMut(Played<'_>) -> Result<()>) -> Result<bool> {
        Ok(self.step_until(Timestamp(u64::MAX), each)? == Some(true))
    }

    /// Plays at most `most` events, none of them later than `until`, and appends what changed.
    ///
    /// # Errors
    /// When the recording cannot be read any more.
    pub fn advance(&mut self, until: Timestamp, most: usize, out: &mut Vec<Change>) -> Result<Reached> {
        for _ in 0..most {
            let more = self.step_until(until, |played| {
                out.extend(stamped(played.time, played.changes));
                Ok(())
            })?;
            match more {
                Some(true) => {}
                Some(false) => return Ok(Reached::End),
                None => return Ok(Reached::Time),
            }
        }
        Ok(Reached::Most)
    }

    /// `None` when the next event is later than `until`.
    fn step_until(&mut self, until: Timestamp, mut each: impl FnMut(Played<'_>) -> Result<()>) -> Result<Option<bool>> {
        match self.replay.next_until(until)? {
            Next::Event(event) => {
                let changes = self.pipeline.apply(&event);
                each(Played {
                    event: Some(&event),
                    time: self.pipeline.now(),
                    changes,
                    model: self.pipeline.model(),
                })?;
                Ok(Some(true))
            }
            Next::Later => Ok(None),
            Next::End => {
                if !std::mem::replace(&mut self.ended, true) {
                    let changes = self.pipeline.finish();
                    each(Played {
                        event: None,
                        time: self.pipeline.now(),
                        changes,
                        model: self.pipeline.model(),
                    })?;
                }
                Ok(Some(false))
            }
        }
    }

    /// Goes to the state at `time`, forwards or backwards. Going back plays from the start again: the state at a time is made
    /// of everything before it.
    ///
    /// # Errors
    /// When the recording cannot be read any more, or is standard input and `time` is past.
    pub fn seek(&mut self, time: Timestamp) -> Result<Vec<Change>> {
        if time < self.now() {
            self.replay.rewind()?;
            self.pipeline = pipeline(&self.replay);
            self.ended = false;
        }
        let mut changes = Vec::new();
        self.advance(time, usize::MAX, &mut changes)?;
        Ok(changes)
    }

    /// Plays until a finding opens; returns what changed at that moment, nothing at the end of the recording.
    ///
    /// # Errors
    /// When the recording cannot be read any more.
    pub fn next_finding(&mut self) -> Result<Vec<Change>> {
        loop {
            let mut found = Vec::new();
            let more = self.step(|played| {
                if played
                    .changes
                    .iter()
                    .any(|change| matches!(change, FindingChange::Opened(_)))
                {
                    found = stamped(played.time, played.changes).collect();
                }
                Ok(())
            })?;
            if !found.is_empty() || !more {
                return Ok(found);
            }
        }
    }

    /// Time of the state; 0 before the first event.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.pipeline.now()
    }

    /// Whether everything has been played.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Model and diagnosis at this time.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The recording.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    #[cfg(test)]
    pub(crate) fn replay_mut(&mut self) -> &mut Replay {
        &mut self.replay
    }
}

/// Why playing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// What follows is later.
    Time,
    /// So many events were played.
    Most,
    /// Everything was played, and a last look taken.
    End,
}

/// What one step brought.
#[derive(Debug)]
pub struct Played<'e> {
    /// The event; `None` for the last look at the end.
    pub event: Option<&'e Event>,
    /// Time of the model.
    pub time: Timestamp,
    /// What became of findings.
    pub changes: Vec<FindingChange>,
    /// The model, with the event.
    pub model: &'e Model,
}

fn pipeline(replay: &Replay) -> Pipeline {
    let mut settings = Settings::default();
    if replay.meta().pending_after.0 > 0 {
        settings.pending_threshold = replay.meta().pending_after;
    }
    Pipeline::new(settings, replay.facts())
}

fn stamped(time: Timestamp, changes: Vec<FindingChange>) -> impl Iterator<Item = Change> {
    changes.into_iter().map(move |change| Change { time, change })
}
