//! The running kernel as a source of the view.

use anyhow::Result;

use super::source::{Look, Source};
use crate::event::Event;
use crate::model::Settings;
use crate::pipeline::Pipeline;
use crate::report::{ProgramCost, Report, SourceFacts};
use crate::source::live::Live;

/// Probes and the pipeline they feed.
pub struct LiveSource {
    live: Live,
    pipeline: Pipeline,
    batch: Vec<Event>,
    look: fn() -> Result<Report>,
}

impl LiveSource {
    /// From probes that are attached; `look` takes a snapshot of the same machine.
    #[must_use]
    pub fn new(live: Live, settings: Settings, facts: SourceFacts, look: fn() -> Result<Report>) -> Self {
        Self {
            live,
            pipeline: Pipeline::new(settings, facts),
            batch: Vec::new(),
            look,
        }
    }
}

impl Source for LiveSource {
    async fn advance(&mut self) -> Result<()> {
        self.live.next(&mut self.batch).await?;
        for event in self.batch.drain(..) {
            self.pipeline.apply(&event);
        }
        Ok(())
    }

    fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    fn snapshot(&self) -> Option<Look> {
        Some(Box::new(self.look))
    }

    fn program_costs(&self) -> Vec<ProgramCost> {
        self.live.program_costs()
    }
}
