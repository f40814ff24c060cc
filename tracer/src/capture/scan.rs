//! Finds the frames of a capture in a stream of bytes, whatever happened to it.

use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{HEADER, Head, MARKER, MAX_STORED};

/// Bytes asked for at a time.
const CHUNK: usize = 64 * 1024;

/// A piece of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A frame with a sound header. Its payload is still to be checked.
    Frame {
        /// Where it starts.
        offset: u64,
        /// Its header.
        head: Head,
        /// Its payload as stored.
        stored: Bytes,
    },
    /// Bytes that are no frame.
    Gap {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// The stream ends inside a frame.
    Torn {
        /// Where the frame starts.
        offset: u64,
        /// Its header, if that is there.
        head: Option<Head>,
    },
}

/// Reads pieces one after the other, in memory bounded by the largest frame.
#[derive(Debug)]
pub struct Frames<R> {
    from: R,
    buffer: BytesMut,
    /// Position of the buffer's first byte.
    offset: u64,
    ended: bool,
}

impl<R: Read> Frames<R> {
    /// From a stream that stands at `offset`.
    pub fn new(from: R, offset: u64) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
            offset,
            ended: false,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        self.fill(HEADER)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let Some(head) = Head::parse(&self.buffer) else {
            return self.skip().map(Some);
        };
        self.fill(HEADER + head.stored)?;
        let offset = self.offset;
        if self.buffer.len() < HEADER + head.stored {
            if self.marker(1).is_some() {
                // The end of this frame is missing, but others follow: bytes were lost in between.
                return self.skip().map(Some);
            }
            self.take(self.buffer.len());
            return Ok(Some(Piece::Torn {
                offset,
                head: Some(head),
            }));
        }
        self.take(HEADER);
        let stored = self
            .buffer
            .get(..head.stored)
            .map(Bytes::copy_from_slice)
            .unwrap_or_default();
        if head.is_intact(&stored) {
            self.take(head.stored);
        }
        // Otherwise the search goes on behind the header: the payload may have lost bytes and hide the next frame.
        Ok(Some(Piece::Frame { offset, head, stored }))
    }

    /// Skips to the next marker behind the first byte.
    fn skip(&mut self) -> io::Result<Piece> {
        let offset = self.offset;
        let torn = self.buffer.len() < HEADER && self.buffer.iter().zip(MARKER).all(|(&have, want)| have == want);
        let mut skipped = 0u64;
        loop {
            if let Some(at) = self.marker(usize::from(skipped == 0)) {
                skipped += at as u64;
                self.take(at);
                return Ok(Piece::Gap { offset, bytes: skipped });
            }
            // A marker may lie across the border: all but its last byte stay.
            let keep = if self.ended {
                0
            } else {
                (MARKER.len() - 1).min(self.buffer.len())
            };
            let drop = self.buffer.len() - keep;
            skipped += drop as u64;
            self.take(drop);
            if self.ended {
                return Ok(if torn {
                    Piece::Torn { offset, head: None }
                } else {
                    Piece::Gap { offset, bytes: skipped }
                });
            }
            self.fill(keep + 1)?;
        }
    }

    /// Position of the first marker at or behind `from` in the buffer.
    fn marker(&self, from: usize) -> Option<usize> {
        let found = memchr::memmem::find(self.buffer.get(from..)?, &MARKER)?;
        Some(from + found)
    }

    fn take(&mut self, count: usize) {
        self.buffer.advance(count);
        self.offset += count as u64;
    }

    /// Reads until the buffer has `wanted` bytes or the stream ends.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        debug_assert!(wanted <= HEADER + MAX_STORED);
        while self.buffer.len() < wanted && !self.ended {
            let have = self.buffer.len();
            self.buffer.resize(have + CHUNK, 0);
            let room = self.buffer.get_mut(have..).unwrap_or_default();
            let read = match self.from.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer.truncate(have);
                    continue;
                }
                other => other,
            };
            self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
            self.ended = read? == 0;
        }
        Ok(())
    }
}
