//! The running kernel as a source of the view.

use anyhow::Result;

use super::source::Source;
use crate::event::Event;
use crate::model::Settings;
use crate::pipeline::Pipeline;
use crate::report::{ProgramCost, SourceFacts};
use crate::source::live::Live;

/// Probes and the pipeline they feed.
pub struct LiveSource {
    live: Live,
    pipeline: Pipeline,
    batch: Vec<Event>,
}

impl LiveSource {
    /// From probes that are attached.
    #[must_use]
    pub fn new(live: Live, settings: Settings, facts: SourceFacts) -> Self {
        Self {
            live,
            pipeline: Pipeline::new(settings, facts),
            batch: Vec::new(),
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

    fn program_costs(&self) -> Vec<ProgramCost> {
        self.live.program_costs()
    }
}
