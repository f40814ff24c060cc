//! Items of a capture as bytes, and back.
//!
//! A block is a run of items that can be read without any other block: time is written as the difference to the item
//! before, and what repeats (tasks, locks, addresses, stacks, texts) is written once and then named by its position in a
//! table that starts empty with each block. What a byte means is decided by the tables in `events` alone, never by the
//! order of an enum: adding, removing or moving a variant or a field in [`crate::event`] cannot silently change the format.
//!
//! **To change the format**: raise [`super::VERSION`] by one, even if the last one is only a commit old: captures of it may
//! exist. Give a new event or variant a code of its own (never reuse one). Write a new field of a record last, as
//! `field since VERSION` in `events`: older captures give its default. Then `HOLDUP_BLESS=1 cargo test -p tracer
//! capture::tests::golden` writes the golden file of the new version; those of all versions before stay as they are.

mod events;
#[cfg(test)]
pub mod every;
mod primitive;
mod table;

use std::sync::Arc;

use bytes::{Buf, Bytes};
use thiserror::Error;

use self::table::{Reading, Writing};
use crate::event::{Event, TaskRef};
use crate::ids::{StackId, TaskKey, Timestamp};

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
}

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
}

impl Encoder {
    /// Appends an event.
    pub fn event(&mut self, event: &Event, carried: bool) {
        self.byte(events::code(&event.body) << 1 | u8::from(carried));
        self.at(event.time);
        events::put(&event.body, self);
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
        }
    }

    /// The format version of the block.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no item; nothing after them can be read then.
    pub fn next_item(&mut self) -> Result<Option<Item>, CodecError> {
        if self.block.is_empty() {
            return Ok(None);
        }
        let item = self.item();
        if item.is_err() {
            self.block.clear();
        }
        item.map(Some)
    }

    fn item(&mut self) -> Result<Item, CodecError> {
        let tag = self.byte()?;
        let (code, carried) = (tag >> 1, tag & 1 == 1);
        let time = Timestamp(self.time.0.wrapping_add(self.signed()?));
        self.time = time;
        let body = events::take(code, self)?;
        Ok(Item {
            event: Event { time, body },
            carried,
        })
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
