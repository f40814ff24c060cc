//! Writers of percpu-rwsems which have got in and wait for the readers to leave.
//!
//! KERNEL: `percpu_down_write` (kernel/locking/percpu-rwsem.c) waits through `sem->writer`, a `struct rcuwait` that names the
//! writer; 5.7 to 6.18. There is no list: the lock is one of the addresses on the writer's stack, and names the writer back.

use anyhow::Result;

use super::code::{Class, CodeMap};
use super::memory::{Words, is_pointer};
use super::thread::{ThreadIx, Threads};
use crate::kernel::offsets::KernelOffsets;

/// Words of a stack that may be the lock.
const MAX_CANDIDATES: usize = 256;

/// Writers that drain readers, each with its lock.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn draining(
    threads: &Threads,
    o: &KernelOffsets,
    code: &CodeMap,
    words: &mut Words<'_>,
) -> Result<Vec<(ThreadIx, u64)>> {
    let Some(writer) = o.percpu_rwsem.writer_task else {
        return Ok(Vec::new());
    };
    let mut candidates = Vec::new();
    for (ix, thread) in threads.iter().filter(|(_, thread)| thread.is_off_cpu()) {
        let (_, stack) = thread.stack();
        if stack.iter().any(|&word| code.class(word) == Some(Class::PercpuWrite)) {
            let pointers = stack
                .iter()
                .copied()
                .filter(|&word| is_pointer(word) && code.class(word).is_none());
            candidates.extend(pointers.take(MAX_CANDIDATES).map(|lock| (ix, lock)));
        }
    }
    let at = |lock: u64| lock.wrapping_add(writer.into());
    words.fetch(candidates.iter().map(|&(_, lock)| at(lock)))?;
    candidates.retain(|&(ix, lock)| {
        let own = threads.get(ix).map(|thread| thread.record.task.task);
        words.get(at(lock)) == own
    });
    candidates.sort_unstable();
    candidates.dedup_by_key(|(ix, _)| *ix);
    Ok(candidates)
}
