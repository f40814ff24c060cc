//! Threads as the walk over all of them wrote them down.

use std::collections::HashMap;

use thiserror::Error;
use tracer_common::kind::{record_kind, task_field};
use tracer_common::record::MAX_FRAMES;
use tracer_common::snapshot::ThreadRecord;
use zerocopy::FromBytes;

use crate::event::TaskState;
use crate::ids::Timestamp;
use crate::wire;

/// Place of a thread in [`Threads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadIx(pub u32);

/// One thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// The fixed part of the record.
    pub record: ThreadRecord,
    /// Return addresses, innermost first.
    pub frames: Box<[u64]>,
    /// Raw words of its stack from `record.words_from` on.
    words: Box<[u64]>,
}

impl Thread {
    /// Scheduler state.
    #[must_use]
    pub fn state(&self) -> TaskState {
        wire::task_state(&self.record.task)
    }

    /// Off its CPU with a saved stack pointer: what its stack says is true.
    #[must_use]
    pub fn is_off_cpu(&self) -> bool {
        self.record.task.fields & task_field::STATE != 0 && self.record.task.on_cpu == 0
    }

    /// Off its CPU until somebody wakes it.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        let asleep = [
            TaskState::Uninterruptible,
            TaskState::InIo,
            TaskState::Interruptible,
            TaskState::Idle,
            TaskState::Stopped,
        ];
        self.is_off_cpu() && asleep.contains(&self.state())
    }

    /// The part of the stack in use, lowest address first, with the address of its first word.
    #[must_use]
    pub fn stack(&self) -> (u64, &[u64]) {
        let below = self.record.saved_sp.saturating_sub(self.record.words_from).div_ceil(8);
        let below = usize::try_from(below).unwrap_or(usize::MAX);
        match self.words.get(below..) {
            Some(words) => (self.record.words_from.wrapping_add(8 * below as u64), words),
            None => (self.record.saved_sp, &[]),
        }
    }

    /// Bytes kept for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + 8 * (self.frames.len() + self.words.len())
    }
}

/// Why the output of the walk cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ThreadError {
    /// The sizes in a record contradict each other.
    #[error(
        "a record of the walk over all threads claims kind {kind}, {size} bytes, {frames} frames and {words} words"
    )]
    Bad {
        /// Its kind.
        kind: u16,
        /// Its size.
        size: u16,
        /// Its frames.
        frames: u32,
        /// Its words.
        words: u32,
    },
}

/// All threads of one walk.
#[derive(Debug, Default)]
pub struct Threads {
    all: Vec<Thread>,
    by_task: HashMap<u64, ThreadIx>,
    bytes: usize,
    stripped: usize,
    newest_by_cpu: HashMap<u32, u64>,
}

impl Threads {
    /// Reads the next record at the start of `bytes`; returns how many bytes it took, 0 when it is not complete yet.
    ///
    /// Once `budget` bytes are kept, raw words are kept only of threads in uninterruptible sleep.
    ///
    /// # Errors
    /// When the record contradicts itself: where the next one starts is not known then.
    pub fn take(&mut self, bytes: &[u8], budget: usize) -> Result<usize, ThreadError> {
        let Ok((record, rest)) = ThreadRecord::read_from_prefix(bytes) else {
            return Ok(0);
        };
        let size = usize::from(record.header.size);
        let (frames, words) = (record.stack_len as usize, record.words_len as usize);
        let fits = frames <= MAX_FRAMES
            && words <= usize::from(u16::MAX)
            && size == size_of::<ThreadRecord>() + 8 * (frames + words);
        if record.header.kind != record_kind::THREAD || !fits {
            return Err(ThreadError::Bad {
                kind: record.header.kind,
                size: record.header.size,
                frames: record.stack_len,
                words: record.words_len,
            });
        }
        let Some(payload) = rest.get(..8 * (frames + words)) else {
            return Ok(0);
        };
        let (frames, words) = payload.split_at(8 * frames);
        let mut thread = Thread {
            record,
            frames: to_words(frames).filter(|&frame| frame != 0).collect(),
            words: Box::default(),
        };
        let uninterruptible = matches!(thread.state(), TaskState::Uninterruptible | TaskState::InIo);
        if self.bytes < budget || uninterruptible {
            thread.words = to_words(words).collect();
        } else if !words.is_empty() {
            self.stripped += 1;
        }
        self.push(thread);
        Ok(size)
    }

    /// Adds a thread.
    pub fn push(&mut self, thread: Thread) {
        let ix = ThreadIx(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.bytes += thread.bytes();
        self.by_task.insert(thread.record.task.task, ix);
        let newest = self.newest_by_cpu.entry(thread.record.task.cpu).or_default();
        *newest = thread.record.exec_start.max(*newest);
        self.all.push(thread);
    }

    /// The thread at a place.
    #[must_use]
    pub fn get(&self, ix: ThreadIx) -> Option<&Thread> {
        self.all.get(ix.0 as usize)
    }

    /// The thread whose `task_struct` is at this address.
    #[must_use]
    pub fn by_task(&self, task: u64) -> Option<ThreadIx> {
        self.by_task.get(&task).copied()
    }

    /// When the thread last left its CPU, at the latest.
    ///
    /// KERNEL: `se.exec_start` is a reading of `rq_clock_task` (kernel/sched), which stands still in interrupts and while a
    /// hypervisor has the CPU, differently on each CPU. The newest reading of each CPU is taken for now, so the result may be
    /// too late by the time that CPU has idled, and is never too early.
    #[must_use]
    pub fn last_switch(&self, thread: &Thread) -> Option<Timestamp> {
        let record = &thread.record;
        let newest = self.newest_by_cpu.get(&record.task.cpu)?;
        let ago = newest.checked_sub(record.exec_start)?;
        let known = record.exec_start != 0 && record.task.fields & task_field::CPU != 0;
        known.then(|| Timestamp(record.header.time.saturating_sub(ago)))
    }

    /// All threads with their places.
    pub fn iter(&self) -> impl Iterator<Item = (ThreadIx, &Thread)> {
        (0..).map(ThreadIx).zip(&self.all)
    }

    /// Number of threads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Threads whose raw words were not kept, for lack of memory.
    #[must_use]
    pub fn stripped(&self) -> usize {
        self.stripped
    }
}

fn to_words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes))
}

#[cfg(test)]
impl Thread {
    /// A thread with these frames, whose stack holds these words from `record.words_from` on.
    pub fn with_stack(record: ThreadRecord, frames: &[u64], words: &[u64]) -> Self {
        Self {
            record,
            frames: frames.into(),
            words: words.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::snapshot::CHUNK_WORDS;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn bytes(frames: &[u64], words: &[u64], state: u32) -> Vec<u8> {
        let mut record = ThreadRecord::new_zeroed();
        record.header.kind = record_kind::THREAD;
        record.header.size = (size_of::<ThreadRecord>() + 8 * (frames.len() + words.len())) as u16;
        record.task.state = state;
        record.task.fields = task_field::STATE;
        (record.stack_len, record.words_len) = (frames.len() as u32, words.len() as u32);
        (record.saved_sp, record.words_from) = (0x1010, 0x1000);
        let mut bytes = record.as_bytes().to_vec();
        bytes.extend(frames.iter().chain(words).flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn a_record_is_taken_whole_and_what_lies_below_the_stack_pointer_is_left_out() {
        let words: Vec<u64> = (0..CHUNK_WORDS as u64).collect();
        let bytes = bytes(&[5, 0, 6], &words, 2);
        let mut threads = Threads::default();
        for end in 0..bytes.len() {
            assert_eq!(threads.take(&bytes[..end], usize::MAX), Ok(0), "{end}");
        }
        assert_eq!(threads.take(&bytes, usize::MAX), Ok(bytes.len()));
        let thread = threads.get(ThreadIx(0)).unwrap();
        assert_eq!(&thread.frames[..], [5, 6]);
        assert_eq!(thread.stack(), (0x1010, &words[2..]));
    }

    #[test]
    fn beyond_the_budget_only_the_stacks_of_uninterruptible_sleepers_are_kept() {
        let mut threads = Threads::default();
        for state in [1, 2] {
            threads.take(&bytes(&[5], &[7; 64], state), 0).unwrap();
        }
        let kept: Vec<usize> = threads.iter().map(|(_, thread)| thread.stack().1.len()).collect();
        assert_eq!((kept, threads.stripped()), (vec![0, 62], 1));
    }

    #[test]
    fn contradictions_are_refused() {
        let good = bytes(&[5], &[7; 64], 2);
        for (at, value) in [(0, 1u16), (2, 8), (2, 9999)] {
            let mut bad = good.clone();
            bad[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            assert!(
                matches!(Threads::default().take(&bad, usize::MAX), Err(ThreadError::Bad { .. })),
                "{at}"
            );
        }
    }
}
