//! Who has to complete a completion, where the kernel knows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::code::{Class, CodeMap};
use super::memory::Words;
use super::thread::{ThreadIx, Threads};
use crate::kernel::offsets::KernelOffsets;

/// By completion: the kernel thread for whose exit `kthread_stop` waits, and the child for which its parent waits in vfork.
/// `waiting` names completions with their waiters.
///
/// KERNEL: `kthread_stop` (kernel/kthread.c) waits for `kthread->exited`; `kernel_clone` (kernel/fork.c) leaves the address of the
/// completion on its stack in `child->vfork_done`. 5.10 to 6.18.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn completers(
    waiting: &[(ThreadIx, u64)],
    threads: &Threads,
    o: &KernelOffsets,
    code: &CodeMap,
    words: &mut Words<'_>,
) -> Result<BTreeMap<u64, ThreadIx>> {
    let mut found: BTreeMap<u64, ThreadIx> = BTreeMap::new();
    if let Some(exited) = o.worker.kthread_exited {
        let kernel_threads = threads.iter().filter(|(_, thread)| thread.record.kthread != 0);
        found.extend(kernel_threads.map(|(ix, thread)| (thread.record.kthread.wrapping_add(exited.into()), ix)));
    }
    let forks = |ix: ThreadIx| {
        let stack = threads.get(ix).map(|thread| thread.stack().1).unwrap_or_default();
        stack.iter().any(|&word| code.class(word) == Some(Class::Fork))
    };
    let vforks: BTreeSet<u64> = waiting.iter().filter(|(ix, _)| forks(*ix)).map(|(_, at)| *at).collect();
    if let Some(offset) = o.task.vfork_done.filter(|_| !vforks.is_empty()) {
        let at = |task: u64| task.wrapping_add(offset.into());
        let children = || threads.iter().filter(|(_, thread)| thread.record.mm != 0);
        words.fetch(children().map(|(_, thread)| at(thread.record.task.task)))?;
        found.extend(children().filter_map(|(ix, thread)| {
            let completion = words.get(at(thread.record.task.task))?;
            vforks.contains(&completion).then_some((completion, ix))
        }));
    }
    Ok(found)
}
