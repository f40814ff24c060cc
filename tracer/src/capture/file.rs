//! Opens captures as files: header, index, state.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::Meta;
use super::frame::{HEADER, Head, Kind};
use super::index::{self, END, End, Entry};
use super::reader::ReadError;
use super::scan::{Frames, Piece};
use crate::ids::Timestamp;

/// What can be known of a capture file without reading its items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Its header; defaults when that is damaged.
    pub meta: Meta,
    /// Its frames.
    pub index: Vec<Entry>,
    /// The index was there; otherwise it was made from the frames' headers.
    pub indexed: bool,
}

impl Overview {
    /// Looks at a file.
    ///
    /// # Errors
    /// When it cannot be read, is no capture or too new.
    pub fn of(path: &Path) -> Result<Self, ReadError> {
        let mut file = File::open(path)?;
        match stored_index(&mut file)? {
            Some(index) => {
                file.seek(SeekFrom::Start(0))?;
                let meta = meta(&mut Frames::new(&mut file, 0))?;
                Ok(Self {
                    meta,
                    index,
                    indexed: true,
                })
            }
            None => {
                file.seek(SeekFrom::Start(0))?;
                scan(file)
            }
        }
    }

    /// Earliest and latest time; `None` without any item.
    #[must_use]
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let first = self.index.iter().map(|entry| entry.first).min()?;
        let last = self.index.iter().map(|entry| entry.last).max()?;
        Some((first, last))
    }

    /// Items in all frames.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.index.iter().map(|entry| u64::from(entry.items)).sum()
    }

    /// Times at which findings opened when it was recorded.
    pub fn findings(&self) -> impl Iterator<Item = Timestamp> {
        self.index
            .iter()
            .filter(|entry| entry.opened > 0)
            .map(|entry| entry.last)
    }
}

/// The index at the file's end, if the file was finished and has not changed since.
fn stored_index(file: &mut File) -> io::Result<Option<Vec<Entry>>> {
    let length = file.metadata()?.len();
    let Some(at) = length.checked_sub((HEADER + END) as u64) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(at))?;
    let mut tail = [0; HEADER + END];
    file.read_exact(&mut tail)?;
    let end = Head::parse(&tail).and_then(|head| {
        let payload = head.open(tail.get(HEADER..)?).ok()?;
        End::decode(&head, &payload)
    });
    let Some(end) = end.filter(|end| end.at == at && end.index <= at) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(end.index))?;
    let mut frames = Frames::new(file, end.index);
    let mut entries = Vec::new();
    loop {
        match frames.next_piece()? {
            Some(Piece::Frame { head, stored, .. }) if head.kind == Kind::Index => {
                let Some(more) = head.open(&stored).ok().and_then(|payload| index::decode(&payload)) else {
                    return Ok(None);
                };
                entries.extend(more);
            }
            Some(Piece::Frame { head, .. }) if head.kind == Kind::End => return Ok(Some(entries)),
            _ => return Ok(None),
        }
    }
}

fn meta<R: Read>(frames: &mut Frames<R>) -> Result<Meta, ReadError> {
    match frames.next_piece()? {
        Some(Piece::Frame { head, stored, .. }) => {
            let meta = head.open(&stored).ok().filter(|_| head.kind == Kind::Meta);
            let meta = meta.and_then(|payload| Meta::parse(&payload)).unwrap_or_default();
            if head.version > super::VERSION {
                let tool = (!meta.tool.is_empty()).then_some(meta.tool);
                return Err(ReadError::TooNew {
                    version: head.version,
                    tool,
                });
            }
            Ok(meta)
        }
        _ => Ok(Meta::default()),
    }
}

fn scan(file: File) -> Result<Overview, ReadError> {
    let mut overview = Overview::default();
    let mut frames = Frames::new(file, 0);
    let mut any = false;
    let mut end = 0;
    while let Some(piece) = frames.next_piece()? {
        match piece {
            Piece::Frame { head, stored, .. } if head.version > super::VERSION => {
                let meta = head.open(&stored).ok().and_then(|payload| Meta::parse(&payload));
                let tool = meta.map(|meta| meta.tool).filter(|tool| !tool.is_empty());
                return Err(ReadError::TooNew {
                    version: head.version,
                    tool,
                });
            }
            Piece::Frame { offset, head, stored } => {
                end = offset + (HEADER + head.stored) as u64;
                any = true;
                match head.kind {
                    Kind::Meta if overview.meta == Meta::default() => {
                        let meta = head.open(&stored).ok().and_then(|payload| Meta::parse(&payload));
                        overview.meta = meta.unwrap_or_default();
                    }
                    Kind::Items if head.is_intact(&stored) => overview.index.push(Entry::of(&head, offset)),
                    _ => {}
                }
            }
            Piece::Gap { offset, bytes } => end = offset + bytes,
            Piece::Torn { .. } => {}
        }
    }
    if any {
        Ok(overview)
    } else {
        Err(ReadError::NoCapture(end))
    }
}
