//! Frames: what is checked, and what is found again after damage.

use std::cell::RefCell;
use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zstd::bulk::Decompressor;

use super::VERSION;
use crate::ids::Timestamp;

/// Starts every frame. The first byte is no text, the last one shows a transfer that changed line ends.
pub const MARKER: [u8; 8] = *b"\x89HOLDUP\n";
/// Size of a frame's header.
pub const HEADER: usize = size_of::<Layout>();
/// Largest payload, decompressed. Bounds the memory of a reader whatever the file claims.
pub const MAX_RAW: usize = 1 << 20;
/// Largest payload as it is stored: zstd's worst case is a little longer than its input.
pub const MAX_STORED: usize = MAX_RAW + MAX_RAW / 128 + 512;
/// Speed matters less than size here: blocks are small and few.
const LEVEL: i32 = 3;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    marker: [u8; 8],
    version: U16,
    kind: u8,
    compression: u8,
    sequence: U32,
    items: U32,
    opened: U32,
    stored: U32,
    raw: U32,
    first: U64,
    last: U64,
    payload_checksum: U32,
    header_checksum: U32,
}

const _: () = assert!(HEADER == 56);

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::Meta`] as JSON.
    Meta,
    /// Items.
    Items,
    /// `index::Entry` of every items frame of the file.
    Index,
    /// `index::End`: nothing follows.
    End,
    /// Something that a newer version writes.
    Other(u8),
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Items => 2,
            Self::Index => 3,
            Self::End => 4,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Meta,
            2 => Self::Items,
            3 => Self::Index,
            4 => Self::End,
            other => Self::Other(other),
        }
    }
}

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Format version.
    pub version: u16,
    /// What it holds.
    pub kind: Kind,
    /// Number in its file.
    pub sequence: u32,
    /// Items in it.
    pub items: u32,
    /// Findings that opened during them.
    pub opened: u32,
    /// Earliest time in it.
    pub first: Timestamp,
    /// Latest time in it.
    pub last: Timestamp,
    /// Bytes of the payload in the file.
    pub stored: usize,
    raw: usize,
    compression: u8,
    checksum: u32,
}

/// Why a payload cannot be used although its header is sound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// They do not decompress to what the header says.
    #[error("it cannot be decompressed: {0}")]
    Compression(String),
}

/// Why a frame cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// More than [`MAX_RAW`] bytes.
    #[error("{0} bytes do not fit into one frame of a capture")]
    TooLarge(usize),
    /// zstd failed.
    #[error("zstd: {0}")]
    Compression(String),
}

impl Head {
    /// For a frame of [`VERSION`] that is about to be sealed.
    #[must_use]
    pub fn new(kind: Kind, sequence: u32) -> Self {
        Self {
            version: VERSION,
            kind,
            sequence,
            items: 0,
            opened: 0,
            first: Timestamp(0),
            last: Timestamp(0),
            stored: 0,
            raw: 0,
            compression: PLAIN,
            checksum: 0,
        }
    }

    /// Reads a header; `None` where none starts: wrong marker, wrong checksum, or absurd lengths.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (layout, _) = Layout::read_from_prefix(bytes).ok()?;
        let covered = bytes.get(..HEADER - size_of::<U32>())?;
        if layout.marker != MARKER || layout.header_checksum.get() != crc32fast::hash(covered) {
            return None;
        }
        let (stored, raw) = (layout.stored.get() as usize, layout.raw.get() as usize);
        if stored > MAX_STORED || raw > MAX_RAW {
            return None;
        }
        Some(Self {
            version: layout.version.get(),
            kind: Kind::from_code(layout.kind),
            sequence: layout.sequence.get(),
            items: layout.items.get(),
            opened: layout.opened.get(),
            first: Timestamp(layout.first.get()),
            last: Timestamp(layout.last.get()),
            stored,
            raw,
            compression: layout.compression,
            checksum: layout.payload_checksum.get(),
        })
    }

    /// The frame as it goes to the file.
    ///
    /// # Errors
    /// When the payload is too large or zstd fails.
    pub fn seal(&self, payload: &[u8]) -> Result<Bytes, SealError> {
        if payload.len() > MAX_RAW {
            return Err(SealError::TooLarge(payload.len()));
        }
        let packed = zstd::bulk::compress(payload, LEVEL).map_err(|e| SealError::Compression(e.to_string()))?;
        let (compression, stored) = if packed.len() < payload.len() {
            (ZSTD, packed.as_slice())
        } else {
            (PLAIN, payload)
        };
        let length = |bytes: &[u8]| U32::new(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let mut layout = Layout {
            marker: MARKER,
            version: self.version.into(),
            kind: self.kind.code(),
            compression,
            sequence: self.sequence.into(),
            items: self.items.into(),
            opened: self.opened.into(),
            stored: length(stored),
            raw: length(payload),
            first: self.first.0.into(),
            last: self.last.0.into(),
            payload_checksum: crc32fast::hash(stored).into(),
            header_checksum: 0.into(),
        };
        if let Some(covered) = layout.as_bytes().get(..HEADER - size_of::<U32>()) {
            layout.header_checksum = crc32fast::hash(covered).into();
        }
        let mut frame = BytesMut::with_capacity(HEADER + stored.len());
        frame.extend_from_slice(layout.as_bytes());
        frame.extend_from_slice(stored);
        Ok(frame.freeze())
    }

    /// Whether the payload is the one that was written.
    #[must_use]
    pub fn is_intact(&self, stored: &[u8]) -> bool {
        stored.len() == self.stored && crc32fast::hash(stored) == self.checksum
    }

    /// Checks and decompresses the payload. Never takes more memory than [`MAX_RAW`], whatever the payload expands to.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn open(&self, stored: &[u8]) -> Result<Vec<u8>, PayloadError> {
        if !self.is_intact(stored) {
            return Err(PayloadError::Checksum);
        }
        let wrong = |what: String| PayloadError::Compression(what);
        let raw = match self.compression {
            PLAIN => stored.to_vec(),
            ZSTD => decompress(stored, self.raw).map_err(|e| wrong(e.to_string()))?,
            other => return Err(wrong(format!("unknown method {other}"))),
        };
        if raw.len() != self.raw {
            return Err(wrong(format!("{} bytes instead of {}", raw.len(), self.raw)));
        }
        Ok(raw)
    }
}

thread_local! {
    /// Its working memory is larger than most frames: made once, not for each.
    static UNPACK: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// At most `most` bytes, whatever the input expands to.
fn decompress(stored: &[u8], most: usize) -> io::Result<Vec<u8>> {
    UNPACK.with_borrow_mut(|unpack| match unpack {
        Some(ready) => ready.decompress(stored, most),
        none => none.insert(Decompressor::new()?).decompress(stored, most),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8]) -> (Head, Bytes) {
        let frame = Head {
            items: 3,
            opened: 1,
            last: Timestamp(9),
            ..Head::new(Kind::Items, 7)
        }
        .seal(payload)
        .unwrap();
        (Head::parse(&frame).unwrap(), frame)
    }

    #[test]
    fn a_frame_is_what_was_sealed() {
        for payload in [Vec::new(), vec![1], vec![7; 5000], (0..=255).collect()] {
            let (head, frame) = sealed(&payload);
            assert_eq!((head.version, head.kind, head.sequence), (VERSION, Kind::Items, 7));
            assert_eq!((head.items, head.opened, head.last), (3, 1, Timestamp(9)));
            assert_eq!(frame.len(), HEADER + head.stored);
            assert_eq!(head.open(&frame[HEADER..]), Ok(payload));
        }
        assert!(sealed(&[7; 5000]).1.len() < 200, "compressed");
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (_, frame) = sealed(&[5; 40]);
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let sound = Head::parse(&bytes).and_then(|head| head.open(&bytes[HEADER..]).ok());
            assert_eq!(sound, None, "bit {bit}");
        }
    }

    /// A header that a forger made, with sound checksums.
    fn forged(change: impl Fn(&mut Layout), payload: &[u8]) -> Vec<u8> {
        let (_, frame) = sealed(payload);
        let (mut layout, _) = Layout::read_from_prefix(&frame).unwrap();
        change(&mut layout);
        layout.header_checksum = crc32fast::hash(&layout.as_bytes()[..HEADER - 4]).into();
        [layout.as_bytes(), &frame[HEADER..]].concat()
    }

    #[test]
    fn absurd_lengths_are_no_header() {
        assert!(Head::parse(&forged(|l| l.stored = u32::MAX.into(), b"x")).is_none());
        assert!(Head::parse(&forged(|l| l.raw = (MAX_RAW as u32 + 1).into(), b"x")).is_none());
        assert!(
            Head::parse(&forged(|_| (), b"x")).is_some(),
            "the forger's own frame is sound"
        );
    }

    #[test]
    fn a_payload_that_expands_beyond_its_claim_is_refused() {
        // 1 MiB of zeros in a few bytes, claimed to be 100 bytes; then a gigabyte claimed to be a megabyte.
        for (zeros, claim) in [(MAX_RAW, 100u32), (1 << 30, MAX_RAW as u32)] {
            let bomb = zstd::bulk::compress(&vec![0; zeros], 19).unwrap();
            let bytes = forged(
                |l| {
                    l.compression = ZSTD;
                    l.raw = claim.into();
                    l.stored = (bomb.len() as u32).into();
                    l.payload_checksum = crc32fast::hash(&bomb).into();
                },
                b"x",
            );
            let head = Head::parse(&bytes).unwrap();
            assert!(matches!(head.open(&bomb), Err(PayloadError::Compression(_))), "{zeros}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let head = Head::new(Kind::Items, 0);
        assert_eq!(head.seal(&vec![0; MAX_RAW + 1]), Err(SealError::TooLarge(MAX_RAW + 1)));
        assert!(head.seal(&vec![0; MAX_RAW]).is_ok());
    }
}
