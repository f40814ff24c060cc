//! Reads captures: every frame that is intact, and an account of those that are not.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use thiserror::Error;

use super::codec::{CodecError, Decoder, Item, Piece as Unit};
use super::frame::{HEADER, Head, Kind};
use super::scan::{Frames, Piece};
use super::{Meta, VERSION};

/// Why a capture cannot be read at all.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The bytes cannot be had.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no frame in it.
    #[error("it is no capture of holdup: no frame found in its {0} bytes")]
    NoCapture(u64),
    /// A newer version wrote it.
    #[error("it has format version {version}{}, this holdup reads up to {VERSION}: use a newer holdup", by(.tool))]
    TooNew {
        /// Its format version.
        version: u16,
        /// The holdup that wrote it, where that can be read.
        tool: Option<String>,
    },
}

fn by(tool: &Option<String>) -> String {
    tool.as_ref()
        .map(|tool| format!(" (written by holdup {tool})"))
        .unwrap_or_default()
}

/// What was found of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Frames that were intact.
    pub intact: u64,
    /// Frames that were damaged or are missing, as far as can be told.
    pub damaged: u64,
    /// Bytes that belong to no frame.
    pub skipped: u64,
    /// The file ends inside a frame.
    pub torn: bool,
    /// Records of the kernel that are no records to this holdup.
    pub refused: u64,
    /// The file was finished in good order.
    pub finished: bool,
}

impl Health {
    /// Whether everything that was written is there.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.skipped == 0 && !self.torn && self.refused == 0
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.intact + self.damaged + u64::from(self.torn);
        write!(f, "recovered {} of {all} frames", self.intact)?;
        if self.damaged > 0 {
            write!(f, "; {} damaged or missing", self.damaged)?;
        }
        if self.torn {
            f.write_str("; the last one is cut off")?;
        }
        if self.refused > 0 {
            write!(f, "; {} records of the kernel in them are malformed", self.refused)?;
        }
        Ok(())
    }
}

/// What a capture gives, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The header of a file.
    Meta(Box<Meta>),
    /// An item.
    Item(Item),
    /// A record of the kernel, as it came; the items that were decoded from it follow. Only [with records](Items::with_records).
    Record(Bytes),
    /// At least so many items are missing here.
    Lost(u64),
}

/// The contents of a capture, read once from begin to end.
#[derive(Debug)]
pub struct Items<R> {
    frames: Frames<R>,
    block: Option<Block>,
    health: Health,
    /// Sequence number of the next frame of this file; `None` before the first.
    next: Option<u32>,
    /// Bytes were skipped since the last frame, and no frame accounts for them.
    gap: bool,
    /// The payload of the last frame is damaged: bytes that follow may be the rest of it.
    spoilt: bool,
    tool: Option<String>,
    bytes: u64,
    records: bool,
}

#[derive(Debug)]
struct Block {
    decoder: Decoder,
    left: u32,
}

impl<R: Read> Items<R> {
    /// From the start of a capture.
    pub fn new(from: R) -> Self {
        Self {
            frames: Frames::new(from, 0),
            block: None,
            health: Health::default(),
            next: None,
            gap: false,
            spoilt: false,
            tool: None,
            bytes: 0,
            records: false,
        }
    }

    /// With the records of the kernel, too.
    #[must_use]
    pub fn with_records(self) -> Self {
        Self { records: true, ..self }
    }

    /// What was found so far.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The next thing; `None` at the end.
    ///
    /// # Errors
    /// When the stream cannot be read, is no capture, or is too new.
    pub fn next_content(&mut self) -> Result<Option<Content>, ReadError> {
        loop {
            if let Some(block) = &mut self.block {
                match block.decoder.next_piece() {
                    Ok(Some(Unit::Record)) if self.records => {
                        return Ok(Some(Content::Record(Bytes::copy_from_slice(block.decoder.record()))));
                    }
                    Ok(Some(Unit::Record)) => {}
                    Err(CodecError::Refused(_)) => {
                        self.health.refused += 1;
                        return Ok(Some(Content::Lost(1)));
                    }
                    Ok(Some(Unit::Item(item))) => {
                        block.left = block.left.saturating_sub(1);
                        return Ok(Some(Content::Item(item)));
                    }
                    Ok(None) => self.block = None,
                    Err(_) => {
                        let lost = u64::from(block.left).max(1);
                        self.block = None;
                        self.health.intact -= 1;
                        self.health.damaged += 1;
                        return Ok(Some(Content::Lost(lost)));
                    }
                }
                continue;
            }
            let Some(piece) = self.frames.next_piece()? else {
                self.health.damaged += u64::from(std::mem::take(&mut self.gap) && self.next.is_some());
                return if self.health.intact + self.health.damaged == 0 {
                    Err(ReadError::NoCapture(self.bytes))
                } else {
                    Ok(None)
                };
            };
            if let Some(read) = self.piece(piece)? {
                return Ok(Some(read));
            }
        }
    }

    fn piece(&mut self, piece: Piece) -> Result<Option<Content>, ReadError> {
        match piece {
            Piece::Frame { head, stored, .. } => self.frame(&head, stored),
            Piece::Gap { bytes, .. } => {
                // How many frames it was shows in the sequence number of the next one.
                self.health.skipped += bytes;
                self.gap = !self.spoilt;
                self.bytes += bytes;
                Ok(None)
            }
            Piece::Torn { .. } => {
                self.health.torn = true;
                Ok(None)
            }
        }
    }

    fn frame(&mut self, head: &Head, stored: Bytes) -> Result<Option<Content>, ReadError> {
        self.bytes += (HEADER + stored.len()) as u64;
        let payload = head.open(&stored);
        if head.version > VERSION {
            let meta = payload
                .ok()
                .filter(|_| head.kind == Kind::Meta)
                .and_then(|payload| Meta::parse(&payload));
            let tool = meta
                .map(|meta| meta.tool)
                .or(self.tool.take())
                .filter(|tool| !tool.is_empty());
            return Err(ReadError::TooNew {
                version: head.version,
                tool,
            });
        }
        self.gap = false;
        self.health.finished = head.kind == Kind::End;
        // A new file of a series starts again at 0.
        let missing = if head.sequence == 0 {
            0
        } else {
            head.sequence.saturating_sub(self.next.unwrap_or(0))
        };
        self.next = Some(head.sequence.saturating_add(1));
        self.health.damaged += u64::from(missing);
        self.spoilt = payload.is_err();
        let Ok(payload) = payload else {
            self.health.damaged += 1;
            let lost = u64::from(missing) + u64::from(if head.kind == Kind::Items { head.items } else { 0 });
            return Ok((lost > 0).then_some(Content::Lost(lost)));
        };
        self.health.intact += 1;
        match head.kind {
            Kind::Items => {
                self.block = Some(Block {
                    decoder: Decoder::new(payload.into(), head.version),
                    left: head.items,
                });
                Ok((missing > 0).then_some(Content::Lost(missing.into())))
            }
            Kind::Meta => Ok(Meta::parse(&payload).map(|meta| {
                self.tool = Some(meta.tool.clone());
                Content::Meta(Box::new(meta))
            })),
            Kind::Index | Kind::End | Kind::Other(_) => Ok((missing > 0).then_some(Content::Lost(missing.into()))),
        }
    }
}
