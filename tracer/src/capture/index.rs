//! Where the frames of a file are and which times they cover, for seeking without reading everything.

use super::frame::{Head, Kind, MAX_RAW};
use crate::ids::Timestamp;

/// One items frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it starts in the file.
    pub offset: u64,
    /// Earliest time in it.
    pub first: Timestamp,
    /// Latest time in it.
    pub last: Timestamp,
    /// Items in it.
    pub items: u32,
    /// Findings that opened during them.
    pub opened: u32,
}

impl Entry {
    /// What the header of a frame at `offset` says.
    #[must_use]
    pub fn of(head: &Head, offset: u64) -> Self {
        Self {
            offset,
            first: head.first,
            last: head.last,
            items: head.items,
            opened: head.opened,
        }
    }
}

const ENTRY: usize = 32;
/// Entries in one index frame.
pub const PER_FRAME: usize = MAX_RAW / ENTRY / 2;
/// Size of the payload of an end frame.
pub const END: usize = 16;

/// The payload of an index frame.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for entry in entries {
        bytes.extend(entry.offset.to_le_bytes());
        bytes.extend(entry.first.0.to_le_bytes());
        bytes.extend(entry.last.0.to_le_bytes());
        bytes.extend(entry.items.to_le_bytes());
        bytes.extend(entry.opened.to_le_bytes());
    }
    bytes
}

/// Reads the payload of an index frame; `None` when it is none.
#[must_use]
pub fn decode(payload: &[u8]) -> Option<Vec<Entry>> {
    if !payload.len().is_multiple_of(ENTRY) {
        return None;
    }
    payload.chunks_exact(ENTRY).map(entry).collect()
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Entry {
        offset: word(0)?,
        first: Timestamp(word(8)?),
        last: Timestamp(word(16)?),
        items: half(24)?,
        opened: half(28)?,
    })
}

/// The last frame of a file that was finished in good order: where its index starts, and where it starts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Offset of the first index frame.
    pub index: u64,
    /// Offset of the end frame: tells whether the file is still the one that was written.
    pub at: u64,
}

impl End {
    /// The payload of an end frame. As short as it is, it is never compressed, so that it can be found from the file's end.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        [self.index.to_le_bytes(), self.at.to_le_bytes()].concat()
    }

    /// Reads the payload of an end frame; `None` when it is none.
    #[must_use]
    pub fn decode(head: &Head, payload: &[u8]) -> Option<Self> {
        let (index, at) = payload.split_at_checked(8)?;
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        (head.kind == Kind::End).then_some(())?;
        Some(Self {
            index: number(index)?,
            at: number(at)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_what_was_written() {
        let entry = |n: u64| Entry {
            offset: n << 33,
            first: Timestamp(n),
            last: Timestamp(u64::MAX - n),
            items: 7,
            opened: n as u32,
        };
        let entries: Vec<Entry> = (0..3).map(entry).collect();
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes), Some(entries));
        assert_eq!(decode(&bytes[1..]), None);
        assert!(encode(&vec![entry(1); PER_FRAME]).len() <= MAX_RAW);
    }
}
