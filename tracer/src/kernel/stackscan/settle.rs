//! The last look of a walk: who has run since its stack was copied?

use std::collections::BTreeSet;

use anyhow::Result;

use super::memory::Words;
use super::thread::{Thread, ThreadIx, Threads};
use crate::kernel::offsets::KernelOffsets;

/// Those who slept or waited when they were written down and have run since, or are about to. Their stacks, and what followed
/// from them, are void.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn restless(
    involved: &BTreeSet<ThreadIx>,
    waiters: &BTreeSet<ThreadIx>,
    threads: &Threads,
    o: &KernelOffsets,
    words: &mut Words<'_>,
) -> Result<BTreeSet<ThreadIx>> {
    let t = &o.task;
    let (Some(voluntary), Some(involuntary), Some(on_cpu)) = (t.nvcsw, t.nivcsw, t.on_cpu) else {
        return Ok(BTreeSet::new());
    };
    let known: Vec<(ThreadIx, &Thread)> = involved
        .iter()
        .filter_map(|&ix| Some((ix, threads.get(ix)?)))
        .filter(|(ix, thread)| thread.is_asleep() || waiters.contains(ix))
        .collect();
    let wanted: Vec<u64> = known
        .iter()
        .flat_map(|(_, thread)| {
            [voluntary, involuntary, on_cpu].map(|offset| thread.record.task.task + u64::from(offset))
        })
        .collect();
    let now = words.again(&wanted)?;
    Ok(known
        .iter()
        .zip(now.chunks(3))
        .filter(|((_, thread), now)| {
            let [Some(voluntary), Some(involuntary), Some(on_cpu)] = now else {
                return true;
            };
            let runs = on_cpu & 0xffff_ffff != 0;
            runs || voluntary.wrapping_add(*involuntary) != thread.record.task.switches
        })
        .map(|((ix, _), _)| *ix)
        .collect())
}
