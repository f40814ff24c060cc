//! Events from a capture, in the order in which the live run had them.
//!
//! A recording may consist of several files, and any of them may be damaged. Whatever is missing becomes a loss report, so
//! that findings say what they may lack; the counters of the recording itself go on counting from there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::capture::{Content, Health, Item, Items, Meta, Overview, ReadError};
use crate::event::{Body, Event, LossCause, LossReport, RawRecord};
use crate::ids::Timestamp;
use crate::report::SourceFacts;

/// Reads a recording, once or again and again.
pub struct Replay {
    inputs: Vec<Input>,
    /// The input that is read next.
    next: usize,
    items: Option<Items<Box<dyn Read>>>,
    /// Records of the kernel come before their events.
    records: bool,
    /// Header of the file that is being read.
    meta: Meta,
    /// The same recording's file before this one was read to its end: nothing needs to be repeated.
    continues: bool,
    /// Taken from the file, but later than the caller asked for.
    held: Option<Event>,
    now: Timestamp,
    /// Events that are missing from the capture.
    missing: u64,
    /// What the recording itself has lost.
    recorded: BTreeMap<LossCause, u64>,
    health: Vec<Health>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This.
    Event(Event),
    /// Something later than asked for.
    Later,
    /// Nothing: the recording is over.
    End,
}

enum Input {
    File(PathBuf, Box<Overview>),
    Stdin,
}

impl Input {
    fn name(&self) -> String {
        match self {
            Self::File(path, _) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.inputs.iter().map(Input::name).collect();
        f.debug_struct("Replay")
            .field("inputs", &names)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Replay {
    /// Opens the files of one recording, in any order; `-` is standard input, which can be read only once.
    ///
    /// # Errors
    /// When one cannot be read, is no capture or too new, or when they belong to different recordings.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        Self::start(paths, false)
    }

    /// The same with the records of the kernel, each before its events, as [`Body::Record`].
    ///
    /// # Errors
    /// As for [`Replay::open`].
    pub fn with_records(paths: &[PathBuf]) -> Result<Self> {
        Self::start(paths, true)
    }

    fn start(paths: &[PathBuf], records: bool) -> Result<Self> {
        ensure!(!paths.is_empty(), "no capture was named");
        let mut inputs = Vec::new();
        for path in paths {
            inputs.push(if path == Path::new("-") {
                ensure!(
                    paths.len() == 1,
                    "standard input cannot be combined with other captures"
                );
                Input::Stdin
            } else {
                let overview = Overview::of(path).with_context(|| path.display().to_string())?;
                Input::File(path.clone(), Box::new(overview))
            });
        }
        inputs.sort_by_key(|input| match input {
            Input::File(_, overview) => overview.meta.part,
            Input::Stdin => 0,
        });
        let mut replay = Self {
            inputs,
            next: 0,
            items: None,
            records,
            meta: Meta::default(),
            continues: false,
            held: None,
            now: Timestamp(0),
            missing: 0,
            recorded: BTreeMap::new(),
            health: Vec::new(),
        };
        replay.check_series()?;
        // The header comes before the first event.
        replay.held = replay.pull()?;
        Ok(replay)
    }

    fn check_series(&self) -> Result<()> {
        let metas = self.inputs.iter().filter_map(|input| match input {
            Input::File(_, overview) => Some((input.name(), &overview.meta)),
            Input::Stdin => None,
        });
        let metas: Vec<_> = metas.collect();
        for pair in metas.windows(2) {
            let [(first, one), (second, two)] = pair else { continue };
            ensure!(
                one.recording == two.recording,
                "{first} and {second} are different recordings: replay them one at a time"
            );
            ensure!(
                one.part != two.part,
                "{first} and {second} are the same part of one recording"
            );
        }
        Ok(())
    }

    /// The header of the file that is being read.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What outputs say about the source.
    #[must_use]
    pub fn facts(&self) -> SourceFacts {
        let meta = &self.meta;
        let mut limits = meta.limits.clone();
        if let Input::File(_, first) = self.inputs.first().unwrap_or(&Input::Stdin)
            && first.meta.part > 0
        {
            limits.push(format!("the recording's first {} files are not there", first.meta.part));
        }
        SourceFacts {
            mode: "replay".to_owned(),
            host: meta.host.clone(),
            kernel: meta.kernel.clone(),
            probes: meta.probes.clone(),
            limits,
            programs: Vec::new(),
        }
    }

    /// Earliest and latest time; `None` when it has no events or is not a file.
    #[must_use]
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let spans = self.overviews().filter_map(Overview::span);
        spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Events in all files, without reading them; `None` when it is not a file.
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        self.overviews().map(Overview::items).reduce(|a, b| a + b)
    }

    /// Times at which findings opened when it was recorded, in order.
    #[must_use]
    pub fn findings(&self) -> Vec<Timestamp> {
        self.overviews().flat_map(Overview::findings).collect()
    }

    fn overviews(&self) -> impl Iterator<Item = &Overview> {
        self.inputs.iter().filter_map(|input| match input {
            Input::File(_, overview) => Some(overview.as_ref()),
            Input::Stdin => None,
        })
    }

    /// Latest time that was given out.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The next event, unless it is later than `until`.
    ///
    /// # Errors
    /// When a file cannot be read any more.
    pub fn next_until(&mut self, until: Timestamp) -> Result<Next> {
        let event = match self.held.take() {
            Some(event) => Some(event),
            None => self.pull()?,
        };
        let Some(event) = event else { return Ok(Next::End) };
        if event.time > until {
            self.held = Some(event);
            return Ok(Next::Later);
        }
        self.now = self.now.max(event.time);
        Ok(Next::Event(event))
    }

    /// Goes back to the start: what follows is the whole recording again.
    ///
    /// # Errors
    /// When it is standard input, or cannot be read any more.
    pub fn rewind(&mut self) -> Result<()> {
        let seekable = self.inputs.iter().all(|input| matches!(input, Input::File(..)));
        ensure!(seekable, "standard input cannot be read twice: save it in a file first");
        (self.next, self.items, self.continues) = (0, None, false);
        (self.now, self.missing) = (Timestamp(0), 0);
        self.recorded.clear();
        self.health.clear();
        self.held = self.pull()?;
        Ok(())
    }

    /// What is wrong with the files as far as they have been read, as one line each.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let current = self.items.as_ref().map(Items::health);
        let state = self.inputs.iter().zip(self.health.iter().chain(current));
        let unsound = state.filter(|(_, health)| !health.is_sound());
        unsound
            .map(|(input, health)| format!("{}: {health}", input.name()))
            .collect()
    }

    fn pull(&mut self) -> Result<Option<Event>> {
        loop {
            let Some(items) = &mut self.items else {
                let Some(input) = self.inputs.get(self.next) else {
                    return Ok(None);
                };
                let items = Items::new(open(input).with_context(|| input.name())?);
                self.items = Some(if self.records { items.with_records() } else { items });
                self.next += 1;
                continue;
            };
            match items.next_content() {
                Ok(Some(Content::Meta(meta))) => {
                    let follows = meta.recording == self.meta.recording && meta.part == self.meta.part + 1;
                    self.continues = follows && !meta.recording.is_empty();
                    self.meta = *meta;
                }
                Ok(Some(Content::Item(item))) => {
                    if let Some(event) = self.item(item) {
                        return Ok(Some(event));
                    }
                }
                Ok(Some(Content::Record(bytes))) => {
                    return Ok(Some(Event {
                        time: self.now,
                        body: Body::Record(RawRecord(bytes)),
                    }));
                }
                Ok(Some(Content::Lost(count))) => {
                    self.missing = self.missing.saturating_add(count);
                    return Ok(Some(self.losses(self.now)));
                }
                Ok(None) => {
                    self.health.push(*items.health());
                    self.items = None;
                }
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    fn failure(&self, error: ReadError) -> anyhow::Error {
        let name = self
            .next
            .checked_sub(1)
            .and_then(|n| self.inputs.get(n))
            .map(Input::name)
            .unwrap_or_default();
        anyhow::Error::new(error).context(name)
    }

    fn item(&mut self, item: Item) -> Option<Event> {
        if item.carried && self.continues {
            return None;
        }
        let event = item.event;
        if let Body::Loss(report) = event.body {
            let by_cause: BTreeMap<LossCause, u64> = report.by_cause.iter().copied().collect();
            if self.missing == 0 {
                self.recorded = by_cause;
                return Some(Event {
                    time: event.time,
                    body: Body::Loss(report),
                });
            }
            self.recorded = by_cause;
            return Some(self.losses(event.time));
        }
        Some(event)
    }

    /// The recording's own losses together with what is missing from the capture.
    fn losses(&self, time: Timestamp) -> Event {
        let mut by_cause = self.recorded.clone();
        let malformed = by_cause.entry(LossCause::Malformed).or_default();
        *malformed = malformed.saturating_add(self.missing);
        Event {
            time,
            body: Body::Loss(LossReport {
                by_cause: by_cause.into_iter().collect(),
            }),
        }
    }
}

fn open(input: &Input) -> io::Result<Box<dyn Read>> {
    Ok(match input {
        Input::File(path, _) => Box::new(File::open(path)?),
        Input::Stdin => Box::new(io::stdin().lock()),
    })
}

#[cfg(test)]
mod tests;
