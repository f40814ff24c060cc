//! Model and diagnosis driven by a stream of events, the same way for every source.

use crate::diagnosis::{Engine, FindingChange};
use crate::event::{Actor, Body, Event, Owner, RoundEdge};
use crate::ids::{Nanos, Timestamp};
use crate::model::{Model, Settings};
use crate::report::{Report, SourceFacts};

/// Time between two looks at the model when no round ends in between.
const LOOK_EVERY: Nanos = Nanos::from_millis(250);

/// Model and diagnosis. When the diagnosis looks at the model depends on the events alone, never on the clock or on how the
/// events were batched: a replay yields the same findings as the live run.
#[derive(Debug)]
pub struct Pipeline {
    model: Model,
    engine: Engine,
    source: SourceFacts,
    next_look: Timestamp,
}

impl Pipeline {
    /// An empty pipeline for events of this source.
    #[must_use]
    pub fn new(settings: Settings, source: SourceFacts) -> Self {
        Self {
            model: Model::new(settings),
            engine: Engine::new(),
            source,
            next_look: Timestamp(0),
        }
    }

    /// Takes one event in; returns what changed, and the time of that, when it was time to look.
    pub fn apply(&mut self, event: &Event) -> Vec<FindingChange> {
        self.model.apply(event);
        let now = self.model.now();
        if now < self.next_look && !worth_a_look(&event.body) {
            return Vec::new();
        }
        self.next_look = now + LOOK_EVERY;
        self.engine.update(&self.model)
    }

    /// A last look, when the stream has ended.
    pub fn finish(&mut self) -> Vec<FindingChange> {
        self.engine.update(&self.model)
    }

    /// Time of the newest event.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.model.now()
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The diagnosis.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Facts about the source that change while it runs.
    pub fn source_mut(&mut self) -> &mut SourceFacts {
        &mut self.source
    }

    /// What outputs show.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            source: self.source.clone(),
            ..Report::build(&self.model, &self.engine)
        }
    }
}

/// A round brings the second read that proves; a thread that waits for itself should be told at once.
fn worth_a_look(body: &Body) -> bool {
    match body {
        Body::Round(round) => round.edge != RoundEdge::Begin,
        Body::Wait(wait) => match (wait.waiter, &wait.owner) {
            (Actor::Task(waiter), Owner::Task(owner)) => waiter.tid == owner.key.tid,
            _ => false,
        },
        _ => false,
    }
}
