//! The last look of a walk: who has run since its stack was copied, and what is everybody's name by now?

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::memory::Words;
use super::thread::{Thread, ThreadIx, Threads};
use crate::kernel::offsets::KernelOffsets;

/// What the last look told.
#[derive(Debug, Default)]
pub struct Settled {
    /// Those who slept or waited when they were written down and have run since, or are about to. Their stacks, and what followed
    /// from them, are void.
    pub restless: BTreeSet<ThreadIx>,
    /// `task_struct.comm` of those who are still there. A kernel thread sleeps under its parent's name until its creator gives it
    /// its own (KERNEL: `kthread_create_on_node`, kernel/kthread.c, 5.10 to 6.1).
    pub comms: BTreeMap<ThreadIx, [u8; 16]>,
}

/// Looks once more at those who are involved.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn settle(
    involved: &BTreeSet<ThreadIx>,
    waiters: &BTreeSet<ThreadIx>,
    threads: &Threads,
    o: &KernelOffsets,
    words: &mut Words<'_>,
) -> Result<Settled> {
    let t = &o.task;
    let comm = [t.comm, t.comm.map(|comm| comm + 8)];
    let fields = [t.nvcsw, t.nivcsw, t.on_cpu, t.start_time, comm[0], comm[1]];
    let counted = t.nvcsw.is_some() && t.nivcsw.is_some() && t.on_cpu.is_some();
    let known: Vec<(ThreadIx, &Thread)> = involved.iter().filter_map(|&ix| Some((ix, threads.get(ix)?))).collect();
    let place = |thread: &Thread, field: Option<u32>| field.map_or(0, |f| thread.record.task.task + u64::from(f));
    let wanted: Vec<u64> = known
        .iter()
        .flat_map(|(_, thread)| fields.map(|field| place(thread, field)))
        .collect();
    let now = words.again(&wanted)?;
    let mut settled = Settled::default();
    for ((ix, thread), now) in known.into_iter().zip(now.chunks(fields.len())) {
        let &[voluntary, involuntary, on_cpu, start, comm, rest] = now else {
            continue;
        };
        let record = &thread.record.task;
        let ran = match (voluntary, involuntary, on_cpu) {
            (Some(voluntary), Some(involuntary), Some(on_cpu)) => {
                on_cpu & 0xffff_ffff != 0 || voluntary.wrapping_add(involuntary) != record.switches
            }
            _ => true,
        };
        if counted && ran && (thread.is_asleep() || waiters.contains(&ix)) {
            settled.restless.insert(ix);
        }
        // Its memory may have been given to another thread.
        let is_it = t.start_time.is_none() || start == Some(record.start);
        if let (true, Some(comm), Some(rest)) = (is_it, comm, rest) {
            let mut name = [0; 16];
            let bytes = comm.to_ne_bytes().into_iter().chain(rest.to_ne_bytes());
            name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            settled.comms.insert(ix, name);
        }
    }
    Ok(settled)
}
