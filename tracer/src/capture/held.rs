//! A record and the events that were decoded from it, until all of them have come.
//!
//! Between decoding and recording user space may have worked on them: it leaves a wait out that the lock denies, says what a
//! worker executes, names a cgroup on the way. What the record itself tells is stored as the record, and only the difference as
//! events. Which of its events came is found by decoding the record as the reader will, and comparing.

use crate::event::{Body, Event, RawRecord};
use crate::wire::Again;

/// A record that is waiting for its events.
#[derive(Debug, Default)]
pub struct Held {
    wire: Again,
    record: Option<RawRecord>,
    /// What it is decoded to, with its stack.
    decoded: Vec<Event>,
    /// How many of these have come or will not come any more.
    done: usize,
    steps: Vec<Step>,
}

/// What came of a record, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its next event.
    Next(Event),
    /// Its next event did not come.
    LeftOut,
    /// Something else, or what its event has become.
    Other(Event),
}

/// How a record is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its stack is told with it.
    pub stack: bool,
    /// Not all that came is what it is decoded to, or in another order.
    pub apart: bool,
}

impl Held {
    /// Begins with a record. The one before must have been [ended](Self::end).
    pub fn begin(&mut self, record: &RawRecord) {
        (self.done, self.record) = (0, None);
        self.decoded.clear();
        self.steps.clear();
        if self.wire.decode(&record.0, true, &mut self.decoded).is_ok() {
            self.record = Some(record.clone());
        }
    }

    /// Whether a record waits for its events.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.record.is_some()
    }

    /// Takes the next event; false when it has nothing to do with the record.
    pub fn take(&mut self, event: &Event) -> bool {
        if !self.is_open() {
            return false;
        }
        let rest = self.decoded.get(self.done..).unwrap_or_default();
        let (skipped, step) = if let Some(skipped) = rest.iter().position(|decoded| decoded == event) {
            (skipped, Step::Next(event.clone()))
        } else if let Some(skipped) = rest.iter().position(|decoded| has_become(decoded, event)) {
            (skipped + 1, Step::Other(event.clone()))
        } else if matches!(event.body, Body::CgroupName(_) | Body::Doing(_)) {
            (0, Step::Other(event.clone()))
        } else {
            return false;
        };
        self.done += skipped + usize::from(matches!(step, Step::Next(_)));
        self.steps.extend((0..skipped).map(|_| Step::LeftOut));
        self.steps.push(step);
        true
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_open() && self.done >= self.decoded.len()
    }

    /// Ends it: the record if it is worth storing and how, and what came of it.
    pub fn end(&mut self) -> (Option<(RawRecord, Form)>, &[Step]) {
        let missing = self.decoded.len().saturating_sub(self.done);
        self.steps.extend((0..missing).map(|_| Step::LeftOut));
        let mut stack = false;
        // Only the first record with a stack tells it.
        if let Some(Event {
            body: Body::Stack(_), ..
        }) = self.decoded.first()
            && let Some(first) = self.steps.iter().position(|step| !matches!(step, Step::Other(_)))
        {
            stack = matches!(self.steps.get(first), Some(Step::Next(_)));
            if !stack {
                self.steps.remove(first);
            }
        }
        // A stack alone is shorter as an event: who filters waits out does not want them in the file.
        let told = |step: &Step| matches!(step, Step::Next(Event { body, .. }) if !matches!(body, Body::Stack(_)));
        let form = Form {
            stack,
            apart: !self.steps.iter().all(|step| matches!(step, Step::Next(_))),
        };
        let record = self.record.take().filter(|_| self.steps.iter().any(told));
        (record.map(|record| (record, form)), &self.steps)
    }
}

/// User space adds to the state of a thread.
fn has_become(decoded: &Event, event: &Event) -> bool {
    match (&decoded.body, &event.body) {
        (Body::Task(one), Body::Task(two)) => decoded.time == event.time && one.task.key == two.task.key,
        _ => false,
    }
}
