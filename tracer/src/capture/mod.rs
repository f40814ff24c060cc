//! Captures: a recording of the events that went to the model, in a file that survives the machine it was made on.
//!
//! # What is recorded
//!
//! Events, as they went to the model: not the bytes that the probes wrote. A wait is put together from the ring buffer, shared
//! arrays that are read in place, iterators, threads' raw stacks, symbols and the kernel's types; the bytes alone could be
//! read again only with all of those. So a better model, diagnosis or view reaches old captures; a mistake in
//! [`wire`](crate::wire) or in the search of stacks stays in them. What the kernel said in words of its own is kept as
//! such: owner words, addresses, stacks as addresses with the symbols beside them.
//!
//! # Format
//!
//! A capture is a sequence of frames, nothing else. Each stands for itself: it starts with a marker that the reader can find
//! again after damage, its header and its payload have a checksum each, and its items can be read without any other frame.
//! Files are only ever appended to, so whatever was written before a crash stays readable.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 8 | marker | `89 "HOLDUP" 0a` |
//! | 2 | version | of the payload; this header never changes |
//! | 1 | kind | 1 header, 2 items, 3 index, 4 end |
//! | 1 | compression | 0 none, 1 zstd |
//! | 4 | sequence | number of the frame in its file, from 0 |
//! | 4 | items | in the payload |
//! | 4 | opened | findings that opened during them |
//! | 4 | stored | bytes of the payload as it follows |
//! | 4 | raw | bytes of the payload when decompressed |
//! | 8, 8 | first, last | earliest and latest time of its items, CLOCK_MONOTONIC in ns |
//! | 4 | payload checksum | CRC-32 (IEEE) of the payload as it follows |
//! | 4 | header checksum | CRC-32 of the 52 bytes before |
//!
//! All numbers are little-endian. The first frame holds the [`Meta`] as JSON. A file that was finished in good order ends with
//! an index for seeking and an end frame; without them the reader makes the index from the frames' headers. Items are coded
//! as [`codec`] says.
//! A recording with rotation consists of several such files, each readable alone; captures may also be concatenated.

mod carry;
pub mod codec;
mod disk;
mod file;
pub mod frame;
mod index;
mod meta;
mod reader;
mod scan;
mod sink;
mod writer;

pub use carry::Known;
pub use codec::Item;
pub use disk::{Disk, Output};
pub use file::Overview;
pub use meta::Meta;
pub use reader::{Content, Health, Items, ReadError};
pub use sink::{Memory, Sink, SinkError};
pub use writer::{FLUSH_AFTER, Totals, WriteError, Writer};

/// Format version that is written. Every version from 1 on can be read.
pub const VERSION: u16 = 7;

#[cfg(test)]
mod tests;
