//! Items of a capture as bytes, and back.
//!
//! A block is a run of items that can be read without any other block: time is written as the difference to the item
//! before, and what repeats (tasks, locks, addresses, stacks, texts) is written once and then named by its position in a
//! table that starts empty with each block. What a byte means is decided by the tables in `events` alone, never by the
//! order of an enum: adding, removing or moving a variant or a field in [`crate::event`] cannot silently change the format.
//!
//! An item is an event, or a record of the kernel (`records`) that stands for the events it is decoded to. A record says whether it
//! brings its stack: in a live run only the first with a stack tells it. Its events follow at once, or, where user space has changed
//! something, one by one: each step is "the next one", "the next one was left out", or an event of its own. From version 8 on.
//!
//! **To change the format**: raise [`super::VERSION`] by one, even if the last one is only a commit old: captures of it may
//! exist. Give a new event or variant a code of its own (never reuse one). Write a new field of a record last, as
//! `field since VERSION` in `events`: older captures give its default; `records` says how with a record of the kernel. Then
//! `HOLDUP_BLESS=1 cargo test -p tracer capture::tests::golden` writes the golden file of the new version; those of all versions
//! before stay as they are.

mod events;
#[cfg(test)]
pub mod every;
mod primitive;
mod records;
mod table;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use thiserror::Error;
use tracer_common::record::TaskRecord;

use self::table::{Reading, Writing};
use crate::event::{Body, Event, TaskRef};
use crate::ids::{StackId, TaskKey, Timestamp};
use crate::wire::{Again, WireError};

/// What a capture consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// An event, as it went to the model.
    pub event: Event,
    /// It belongs to an earlier file of the same recording and is repeated so that this one can be read alone.
    pub carried: bool,
}

/// Why bytes are no item.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The block ends inside an item.
    #[error("the block ends inside an item")]
    Short,
    /// A number does not fit where it stands.
    #[error("{value} is out of range for {what}")]
    Range {
        /// What it stands for.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A code that this version does not know.
    #[error("unknown {what} {code}")]
    Unknown {
        /// What it is a code of.
        what: &'static str,
        /// The code.
        code: u64,
    },
    /// A position in a table that has no such entry.
    #[error("{what} number {index} is not in the block")]
    Reference {
        /// Which table.
        what: &'static str,
        /// The position.
        index: u64,
    },
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A record that the decoder of records does not take. What follows it can be read.
    #[error("{0}")]
    Refused(#[from] WireError),
}

/// Code of [`Encoder::left_out`]. Events have codes from 1 to 119, a record has [`records::TAG`].
const LEFT_OUT: u8 = 124;
/// Code of [`Encoder::next`].
const NEXT: u8 = 125;
/// Flag of a record: it brings its stack.
const STACK: u8 = 1;
/// Flag of a record: its events follow one by one.
const APART: u8 = 2;
/// The version that brought records.
const RECORDS: u16 = 8;

/// Writes the items of one block.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    time: Timestamp,
    locks: Writing<u64>,
    code: Writing<u64>,
    words: Writing<u64>,
    stacks: Writing<StackId>,
    keys: Writing<TaskKey>,
    tasks: Writing<TaskRef>,
    texts: Writing<Arc<str>>,
    threads: Writing<[u8; size_of::<TaskRecord>()]>,
    comms: Writing<[u8; 16]>,
    traces: Writing<Arc<[u64]>>,
}

impl Encoder {
    /// Appends an event; a record is none.
    pub fn event(&mut self, event: &Event, carried: bool) {
        if matches!(event.body, Body::Record(_)) {
            return;
        }
        self.byte(events::code(&event.body) << 1 | u8::from(carried));
        self.at(event.time);
        events::put(&event.body, self);
    }

    /// Appends a record; false when it is none that can be appended. `stack`: its stack is told with it. `apart`: its events follow
    /// one by one, with [`Encoder::next`] for each that is as decoded, and [`Encoder::left_out`] for each that is not told;
    /// otherwise all of them follow.
    pub fn record(&mut self, record: &[u8], stack: bool, apart: bool) -> bool {
        let flags = if stack { STACK } else { 0 } | if apart { APART } else { 0 };
        records::put(record, flags, self)
    }

    /// The next event of the last record.
    pub fn next(&mut self) {
        self.byte(NEXT << 1);
    }

    /// The next event of the last record was not told.
    pub fn left_out(&mut self) {
        self.byte(LEFT_OUT << 1);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The block. The encoder is empty and forgets its tables.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }

    fn at(&mut self, time: Timestamp) {
        let before = self.time;
        self.signed(time.0.wrapping_sub(before.0));
        self.time = time;
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }
}

/// Reads the items of one block, one at a time, so that memory stays bounded by the block.
#[derive(Debug)]
pub struct Decoder {
    block: Bytes,
    version: u16,
    time: Timestamp,
    locks: Reading<u64>,
    code: Reading<u64>,
    words: Reading<u64>,
    stacks: Reading<StackId>,
    keys: Reading<TaskKey>,
    tasks: Reading<TaskRef>,
    texts: Reading<Arc<str>>,
    threads: Reading<TaskRecord>,
    comms: Reading<[u8; 16]>,
    traces: Reading<Arc<[u64]>>,
    wire: Again,
    /// Bytes of the last record.
    record: Vec<u8>,
    /// Events of the last record that are still to come.
    events: VecDeque<Event>,
    /// They come before anything else.
    flowing: bool,
    refused: Option<WireError>,
}

/// A piece of a block.
#[expect(clippy::large_enum_variant, reason = "taken apart as soon as it is made")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An item.
    Item(Item),
    /// A record, of which [`Decoder::record`] has the bytes; items that were decoded from it follow.
    Record,
}

impl Decoder {
    /// For a block that was written in format `version`.
    #[must_use]
    pub fn new(block: Bytes, version: u16) -> Self {
        Self {
            block,
            version,
            time: Timestamp(0),
            locks: Reading::new("lock"),
            code: Reading::new("address"),
            words: Reading::new("owner word"),
            stacks: Reading::new("stack"),
            keys: Reading::new("thread"),
            tasks: Reading::new("task"),
            texts: Reading::new("text"),
            threads: Reading::new("thread of a record"),
            comms: Reading::new("name of a thread"),
            traces: Reading::new("stack of a record"),
            wire: Again::default(),
            record: Vec::new(),
            events: VecDeque::new(),
            flowing: false,
            refused: None,
        }
    }

    /// The format version of the block.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Bytes of the last record; a header's size is that of the record as it stands here.
    #[must_use]
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// As for [`Decoder::next_piece`].
    pub fn next_item(&mut self) -> Result<Option<Item>, CodecError> {
        loop {
            match self.next_piece()? {
                Some(Piece::Item(item)) => return Ok(Some(item)),
                Some(Piece::Record) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no item; nothing after them can be read then, except after [`CodecError::Refused`].
    pub fn next_piece(&mut self) -> Result<Option<Piece>, CodecError> {
        if let Some(refused) = self.refused.take() {
            return Err(refused.into());
        }
        loop {
            if self.flowing
                && let Some(event) = self.events.pop_front()
            {
                return Ok(Some(Piece::Item(Item { event, carried: false })));
            }
            let Some(&tag) = self.block.first() else {
                // A newer decoder may make more of a record than the one that took part in the recording.
                self.flowing = !self.events.is_empty();
                if self.flowing { continue } else { return Ok(None) }
            };
            if tag == records::TAG && !self.flowing && !self.events.is_empty() {
                self.flowing = true;
                continue;
            }
            match self.piece() {
                Ok(Some(piece)) => return Ok(Some(piece)),
                Ok(None) => {}
                Err(error) => {
                    self.block.clear();
                    self.events.clear();
                    return Err(error);
                }
            }
        }
    }

    /// `None` for what only moves on in the events of a record.
    fn piece(&mut self) -> Result<Option<Piece>, CodecError> {
        let tag = self.byte()?;
        let (code, carried) = (tag >> 1, tag & 1 == 1);
        match tag {
            records::TAG if self.version >= RECORDS => self.raw().map(Some),
            _ if self.version >= RECORDS && (code == NEXT || code == LEFT_OUT) => {
                let event = self.events.pop_front().filter(|_| code == NEXT);
                Ok(event.map(|event| Piece::Item(Item { event, carried })))
            }
            _ => {
                let time = Timestamp(self.time.0.wrapping_add(self.signed()?));
                self.time = time;
                let body = events::take(code, self)?;
                Ok(Some(Piece::Item(Item {
                    event: Event { time, body },
                    carried,
                })))
            }
        }
    }

    fn raw(&mut self) -> Result<Piece, CodecError> {
        self.time = Timestamp(self.time.0.wrapping_add(self.signed()?));
        let flags = self.byte()?;
        if flags & !(STACK | APART) != 0 {
            return Err(CodecError::Unknown {
                what: "flags of a record",
                code: flags.into(),
            });
        }
        let mut record = std::mem::take(&mut self.record);
        let taken = records::take(self, &mut record);
        self.record = record;
        taken?;
        let mut events = Vec::new();
        self.refused = self.wire.decode(&self.record, flags & STACK != 0, &mut events).err();
        self.events = events.into();
        self.flowing = flags & APART == 0;
        Ok(Piece::Record)
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        let &first = self.block.first().ok_or(CodecError::Short)?;
        self.block.advance(1);
        Ok(first)
    }

    fn bytes(&mut self, count: usize) -> Result<Bytes, CodecError> {
        if count > self.block.len() {
            return Err(CodecError::Short);
        }
        Ok(self.block.split_to(count))
    }
}
