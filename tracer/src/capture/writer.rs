//! Writes a recording: events into blocks, blocks into frames, frames into files.

use std::time::{Duration, Instant};

use thiserror::Error;

use super::Meta;
use super::carry::{Known, Named, Open};
use super::codec::Encoder;
use super::frame::{Head, Kind, SealError};
use super::held::{Held, Step};
use super::index::{self, End, Entry};
use super::sink::{Sink, SinkError};
use crate::event::{Body, Event, LossCause, LossReport, RawRecord};
use crate::ids::Timestamp;

/// A block this large becomes a frame. Larger ones compress hardly better and lose more when damaged.
const BLOCK: usize = 128 * 1024;
/// A block this old becomes a frame: together with the time of the disk this bounds what a crash loses to a second.
pub const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// Why a recording had to stop.
#[derive(Debug, Error)]
pub enum WriteError {
    /// An event or the header does not fit into the format.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The file cannot take more.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// A recording in progress.
#[derive(Debug)]
pub struct Writer<S> {
    sink: S,
    meta: Meta,
    max_size: Option<u64>,
    encoder: Encoder,
    /// What the next frame's header will say.
    head: Head,
    /// When the oldest event of the block came.
    since: Option<Instant>,
    index: Vec<Entry>,
    /// Bytes in the current file.
    size: u64,
    written: u64,
    events: u64,
    /// Events that could not be written, of the causes of [`LossReport`] an overrun.
    lost: u64,
    /// Losses that the source reported last.
    losses: Vec<(LossCause, u64)>,
    lost_written: u64,
    /// Only with rotation.
    open: Option<Open>,
    named: Named,
    extra: Vec<Event>,
    held: Held,
    /// What belongs behind the record that is held.
    behind: Vec<Event>,
    /// The block is to end with the record that is held.
    cut_due: bool,
}

impl<S: Sink> Writer<S> {
    /// Starts a recording; with `max_size`, a file that would grow beyond it is followed by the next one.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(sink: S, meta: Meta, max_size: Option<u64>) -> Result<Self, WriteError> {
        let open = max_size.map(|_| Open::new(meta.pending_after));
        let mut writer = Self {
            sink,
            meta,
            max_size,
            encoder: Encoder::default(),
            head: Head::new(Kind::Items, 0),
            since: None,
            index: Vec::new(),
            size: 0,
            written: 0,
            events: 0,
            lost: 0,
            losses: Vec::new(),
            lost_written: 0,
            open,
            named: Named::default(),
            extra: Vec::new(),
            held: Held::default(),
            behind: Vec::new(),
            cut_due: false,
        };
        writer.header()?;
        Ok(writer)
    }

    /// Takes the record that the events behind it were decoded from. Those which come as decoded are stored as the record.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn record(&mut self, record: &RawRecord, known: &impl Known) -> Result<(), WriteError> {
        self.release(known)?;
        self.held.begin(record);
        Ok(())
    }

    /// Takes an event. `known` must know the names of everything that events have named so far; it is asked only after a
    /// change of files.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn event(&mut self, event: &Event, known: &impl Known) -> Result<(), WriteError> {
        self.events += 1;
        if let Some(open) = &mut self.open {
            open.apply(event);
            if self.meta.part > 0 {
                self.named.missing(event, known, &mut self.extra);
            }
        }
        for name in std::mem::take(&mut self.extra) {
            self.push(&name, true);
        }
        let held = self.held.take(event);
        if !held {
            self.release(known)?;
        }
        if let Body::Loss(report) = &event.body {
            self.losses.clone_from(&report.by_cause);
            if self.lost > 0 {
                let own = self.own_losses(event.time);
                self.push(&own, false);
                return self.full(known);
            }
        }
        if !held {
            self.push(event, false);
        }
        if self.meta.part > 0 {
            self.named.following(event, known, &mut self.behind);
        }
        if !held || self.held.is_complete() {
            self.release(known)?;
        }
        self.full(known)
    }

    /// Writes the record that is held with what came of it, and ends the block where that is due.
    fn release(&mut self, known: &impl Known) -> Result<(), WriteError> {
        self.put_held();
        if std::mem::take(&mut self.cut_due) {
            self.cut(known)
        } else {
            Ok(())
        }
    }

    fn put_held(&mut self) {
        if self.held.is_open() {
            let mut held = std::mem::take(&mut self.held);
            let (record, steps) = held.end();
            let form = record.and_then(|(record, form)| {
                let written = self.encoder.record(&record.0, form.stack, form.apart);
                written.then_some(form)
            });
            for step in steps {
                match (step, form) {
                    (Step::Next(event), Some(form)) => {
                        self.count(event.time);
                        if form.apart {
                            self.encoder.next();
                        }
                    }
                    (Step::Next(event), None) | (Step::Other(event), _) => self.push(event, false),
                    (Step::LeftOut, Some(_)) => self.encoder.left_out(),
                    (Step::LeftOut, None) => {}
                }
            }
            self.held = held;
        }
        for event in std::mem::take(&mut self.behind) {
            self.push(&event, true);
        }
    }

    /// Takes note that findings opened at the event that was taken last, and puts everything so far out of danger.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn found(&mut self, findings: u32, known: &impl Known) -> Result<(), WriteError> {
        self.head.opened = self.head.opened.saturating_add(findings);
        self.cut_due = self.held.is_open();
        if self.cut_due { Ok(()) } else { self.cut(known) }
    }

    /// Where the frames go.
    #[must_use]
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// When [`Writer::flush`] is due, if events are waiting for it.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + FLUSH_AFTER)
    }

    /// Puts everything so far out of danger if it is due. Not between a record and its events.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn flush(&mut self, now: Instant, known: &impl Known) -> Result<(), WriteError> {
        self.release(known)?;
        if self.due().is_some_and(|due| due <= now) {
            self.cut(known)
        } else {
            Ok(())
        }
    }

    /// Ends the recording in good order.
    ///
    /// # Errors
    /// When the end cannot be written.
    pub fn finish(mut self) -> Result<(S, Totals), WriteError> {
        self.put_held();
        self.seal_block()?;
        self.close_file()?;
        let totals = self.totals();
        Ok((self.sink, totals))
    }

    /// Sizes so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            events: self.events,
            lost: self.lost,
            bytes: self.written,
            files: self.meta.part + 1,
        }
    }

    fn push(&mut self, event: &Event, carried: bool) {
        self.count(event.time);
        self.encoder.event(event, carried);
    }

    /// An event of this time is in the block.
    fn count(&mut self, time: Timestamp) {
        if self.head.items == 0 {
            self.since = Some(Instant::now());
            (self.head.first, self.head.last) = (time, time);
        }
        self.head.first = self.head.first.min(time);
        self.head.last = self.head.last.max(time);
        self.head.items += 1;
    }

    fn full(&mut self, known: &impl Known) -> Result<(), WriteError> {
        if self.encoder.len() >= BLOCK && !self.held.is_open() {
            self.cut(known)
        } else {
            Ok(())
        }
    }

    /// Ends the block, and the file if that has become too large.
    fn cut(&mut self, known: &impl Known) -> Result<(), WriteError> {
        let last = self.head.last;
        self.seal_block()?;
        if self.max_size.is_some_and(|max| self.size >= max) {
            self.close_file()?;
            self.meta.part += 1;
            self.index.clear();
            self.named = Named::default();
            self.header()?;
            for event in self.open.as_ref().map(|open| open.events(last)).unwrap_or_default() {
                let mut names = std::mem::take(&mut self.extra);
                self.named.missing(&event, known, &mut names);
                names.iter().chain([&event]).for_each(|event| self.push(event, true));
                names.clear();
                self.extra = names;
            }
        }
        Ok(())
    }

    fn header(&mut self) -> Result<(), WriteError> {
        let frame = self.meta.seal()?;
        (self.size, self.written) = (frame.len() as u64, self.written + frame.len() as u64);
        self.sink.file(frame)?;
        self.head = Head::new(Kind::Items, 1);
        Ok(())
    }

    fn seal_block(&mut self) -> Result<(), WriteError> {
        if self.lost > self.lost_written && !self.encoder.is_empty() {
            let own = self.own_losses(self.head.last);
            self.push(&own, false);
            self.lost_written = self.lost;
        }
        let block = self.encoder.take();
        self.since = None;
        if block.is_empty() {
            return Ok(());
        }
        let frame = self.head.seal(&block)?;
        let entry = Entry::of(&self.head, self.size);
        if self.write(frame)? {
            self.index.push(entry);
        } else {
            self.lost += u64::from(self.head.items);
        }
        self.head = Head::new(Kind::Items, self.head.sequence + 1);
        Ok(())
    }

    /// The losses of the source together with our own.
    fn own_losses(&self, time: Timestamp) -> Event {
        let mut by_cause = self.losses.clone();
        match by_cause.iter_mut().find(|(cause, _)| *cause == LossCause::Overrun) {
            Some((_, count)) => *count = count.saturating_add(self.lost),
            None => {
                by_cause.push((LossCause::Overrun, self.lost));
                by_cause.sort_unstable();
            }
        }
        Event {
            time,
            body: Body::Loss(LossReport { by_cause }),
        }
    }

    fn close_file(&mut self) -> Result<(), WriteError> {
        let start = self.size;
        let index = std::mem::take(&mut self.index);
        for entries in index.chunks(index::PER_FRAME) {
            self.trailer(Kind::Index, &index::encode(entries))?;
        }
        let end = End {
            index: start,
            at: self.size,
        };
        self.trailer(Kind::End, &end.encode())
    }

    fn trailer(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WriteError> {
        let head = Head::new(kind, self.head.sequence);
        self.head.sequence += 1;
        self.write(head.seal(payload)?)?;
        Ok(())
    }

    fn write(&mut self, frame: bytes::Bytes) -> Result<bool, WriteError> {
        let length = frame.len() as u64;
        let taken = self.sink.frame(frame)?;
        if taken {
            self.size += length;
            self.written += length;
        }
        Ok(taken)
    }
}

/// Sizes of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events taken, without those repeated in later files.
    pub events: u64,
    /// Of these, not written because the disk could not keep up.
    pub lost: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Files begun.
    pub files: u32,
}
