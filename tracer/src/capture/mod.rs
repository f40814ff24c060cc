//! Captures: a recording of the events that went to the model, in a file that survives the machine it was made on.
//!
//! # What is recorded
//!
//! What the probes and iterators wrote is stored as it came: every [record](tracer_common::record) of the ring buffer and of the
//! rounds, that is begins and ends of waits, waits that last, states of threads, releases, initialisations. A reader decodes them
//! with [`wire`](crate::wire) as the live run did. What user space alone found out is stored as the events that went to the model:
//! symbols, names, what threads are about, waits and holders found on raw stacks, spins and watched locks from the shared
//! logs, losses, rounds. So a better decoder, model, diagnosis or view reaches old captures; a mistake in the search of stacks
//! stays in them. The raw stacks themselves are not stored: they could be read again only with the kernel's memory and types.
//!
//! A record is stored only after it was decoded once more, as a reader will, and compared with the events that went to the model.
//! Where these differ (a wait that the lock denies is left out, a worker's state is given its function, a cgroup its path) the
//! record is stored with the difference, and a replay gives what was seen live. A record of which nothing was told, as `--only`
//! leads to, is not stored. A record that the reader's decoder refuses costs itself, is told as damage, and counted as a loss.
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
//! `items` counts events, however they are stored. All numbers are little-endian. The first frame holds the [`Meta`] as JSON.
//! A file that was finished in good order ends with an index for seeking and an end frame; without them the reader makes the
//! index from the frames' headers. Items are coded as [`codec`] says, records field by field: neither their layout in memory nor
//! the byte order of the machine matters, so the header need not name a layout. Records that a newer holdup writes in another
//! way are of a newer version of the format, which is refused by name.
//! A recording with rotation consists of several such files, each readable alone; captures may also be concatenated.

mod carry;
pub mod codec;
mod disk;
mod file;
pub mod frame;
mod held;
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
pub const VERSION: u16 = 8;

#[cfg(test)]
mod tests;
