//! The running kernel as a source of the view.

use anyhow::Result;

use super::source::{Look, Source};
use crate::event::Event;
use crate::model::Settings;
use crate::only::Only;
use crate::pipeline::Pipeline;
use crate::report::{ProgramCost, Report, SourceFacts};
use crate::source::live::Live;

/// Probes and the pipeline they feed.
pub struct LiveSource {
    live: Live,
    pipeline: Pipeline,
    batch: Vec<Event>,
    look: fn() -> Result<Report>,
    only: Option<Only>,
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
            only: None,
        }
    }

    /// Narrowed down, if at all.
    #[must_use]
    pub fn only(self, only: Option<Only>) -> Self {
        Self { only, ..self }
    }
}

impl Source for LiveSource {
    async fn advance(&mut self) -> Result<()> {
        self.live.next(&mut self.batch).await?;
        if let Some(only) = &mut self.only {
            only.retain(&mut self.batch);
        }
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
