//! From waiter records to waits: the records' lists are read and walked, and their heads give the locks.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;

use super::code::CodeMap;
use super::memory::Words;
use super::record::{Queue, Record, Shapes, records};
use super::ring::{rings, strangers};
use super::thread::{Thread, ThreadIx, Threads};
use crate::event::{LockKind, Mode};
use crate::kernel::offsets::KernelOffsets;

/// A waiter found on the wait list of a lock or completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Who waits.
    pub thread: ThreadIx,
    /// Address of the lock or completion.
    pub object: u64,
    /// What it is.
    pub queue: Queue,
    /// Wanted how.
    pub mode: Mode,
    /// How many stand before it.
    pub place: u32,
}

/// What came of all waiter records.
#[derive(Debug, Default)]
pub struct Lists {
    /// Waiters on lists that were walked round.
    pub queued: Vec<Queued>,
    /// Threads with a waiter record on a list that was changing, or corrupt.
    pub open: Vec<ThreadIx>,
}

/// How often newcomers on a list are looked up before it counts as changing.
const LOOKS: usize = 4;
/// `WQ_FLAG_CUSTOM`, set by who waits for a percpu-rwsem as a reader (kernel/locking/percpu-rwsem.c, 5.7 to 6.18): 8 up to 6.4,
/// 4 from 6.5 on (include/linux/wait.h). The other bit has no meaning for these entries in either.
const WQ_FLAG_CUSTOM: u32 = 4 | 8;

/// Finds the waiter records of all threads off their CPUs and walks their lists.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn read(threads: &Threads, o: &KernelOffsets, code: &CodeMap, words: &mut Words<'_>) -> Result<Lists> {
    let shapes = Shapes::new(o);
    let mut found = Vec::new();
    for (ix, thread) in threads.iter().filter(|(_, thread)| thread.is_off_cpu()) {
        records(ix, thread, &shapes, code, &mut found);
    }
    words.fetch(found.iter().flat_map(|record| wanted(record, o)))?;
    let mut nodes: HashMap<u64, Record> = HashMap::new();
    let still = |record: &Record, words: &Words<'_>| {
        let own = threads.get(record.thread).map(|thread| thread.record.task.task);
        words.get(record.task_word()) == own
    };
    nodes.extend(
        found
            .iter()
            .filter(|record| still(record, words))
            .map(|r| (r.node(), *r)),
    );
    let all = join_strangers(&mut nodes, threads, o, words)?;
    let rings = rings(&all, |at| links(at, words));
    let mut lists = Lists::default();
    for ring in rings.complete {
        let members: Vec<&Record> = ring.nodes.iter().filter_map(|node| nodes.get(node)).collect();
        let Some(shape) = members
            .iter()
            .map(|record| record.shape)
            .max_by_key(|shape| shape.queue)
        else {
            continue;
        };
        // Waiters of one list wait for one thing, only that a mutex may be known to be a ww_mutex from some of them.
        if members.iter().any(|record| record.shape.head != shape.head) {
            lists.open.extend(members.iter().map(|record| record.thread));
            continue;
        }
        for (place, record) in (0..).zip(members) {
            lists.queued.push(Queued {
                thread: record.thread,
                object: ring.head.wrapping_sub(shape.head.into()),
                queue: shape.queue,
                mode: mode(record, o, words),
                place,
            });
        }
    }
    // A record none of whose neighbours points back is on no list: words that only look like one, or left over.
    let is_linked = |node: u64| {
        let (next, prev) = links(node, words)?;
        Some(words.get(prev) == Some(node) || words.get(next.wrapping_add(8)) == Some(node))
    };
    let linked = rings.open.keys().filter(|node| is_linked(**node) == Some(true));
    let open = linked.filter_map(|node| nodes.get(node));
    // On a wait queue there may be others than threads, epoll for one: that it cannot be walked round is no sign of change.
    let open = open.filter(|record| record.shape.queue != Queue::Event);
    lists.open.extend(open.map(|record| record.thread));
    let known: HashSet<ThreadIx> = lists.queued.iter().map(|queued| queued.thread).collect();
    lists.open.retain(|thread| !known.contains(thread));
    lists.open.sort_unstable();
    lists.open.dedup();
    Ok(lists)
}

/// Reads the neighbours of nodes that are no nodes themselves. A neighbour that turns out to be another waiter's record, of a
/// thread that came after the walk over all threads had passed it, joins the nodes.
fn join_strangers(
    nodes: &mut HashMap<u64, Record>,
    threads: &Threads,
    o: &KernelOffsets,
    words: &mut Words<'_>,
) -> Result<HashSet<u64>> {
    let mut all: HashSet<u64> = nodes.keys().copied().collect();
    let stacks: BTreeMap<u64, ThreadIx> = threads.iter().map(|(ix, t)| (t.record.stack_base, ix)).collect();
    for _ in 0..LOOKS {
        let beside: Vec<(u64, Record)> = strangers(&all, |at| links(at, words))
            .into_iter()
            .filter_map(|(at, beside)| Some((at, *nodes.get(&beside)?)))
            .collect();
        words.fetch(beside.iter().flat_map(|(at, record)| {
            let base = at.wrapping_sub(record.shape.list.into());
            [*at, at.wrapping_add(8), base.wrapping_add(record.shape.task.into())]
        }))?;
        let mut joined = Vec::new();
        for (at, record) in beside {
            let record = Record {
                at: at.wrapping_sub(record.shape.list.into()),
                ..record
            };
            let waiter = words.get(record.task_word()).and_then(|task| threads.by_task(task));
            let lies_on = stacks.range(..=at).next_back().map(|(_, ix)| *ix);
            if let Some(thread) = waiter.filter(|_| waiter == lies_on)
                && threads.get(thread).is_some_and(|t| contains(t, at))
            {
                joined.push(Record { thread, ..record });
            }
        }
        if joined.is_empty() {
            break;
        }
        words.fetch(joined.iter().flat_map(|record| wanted(record, o)))?;
        all.extend(joined.iter().map(Record::node));
        nodes.extend(joined.into_iter().map(|record| (record.node(), record)));
    }
    Ok(all)
}

/// Whether an address lies in the 64 KiB from the thread's stack base on; no kernel has larger stacks.
fn contains(thread: &Thread, at: u64) -> bool {
    at.wrapping_sub(thread.record.stack_base) < 1 << 16
}

fn links(at: u64, words: &Words<'_>) -> Option<(u64, u64)> {
    Some((words.get(at)?, words.get(at.wrapping_add(8))?))
}

fn wanted(record: &Record, o: &KernelOffsets) -> Vec<u64> {
    let node = record.node();
    let mut wanted = vec![node, node.wrapping_add(8), record.task_word()];
    wanted.extend(mode_at(record, o));
    wanted
}

fn mode_at(record: &Record, o: &KernelOffsets) -> Option<u64> {
    match record.shape.queue {
        Queue::Lock(LockKind::Rwsem) => o
            .rwsem_waiter
            .waits_as
            .map(|offset| record.at.wrapping_add(offset.into())),
        // `unsigned int flags` is the first member of wait_queue_entry (include/linux/wait.h).
        Queue::Lock(LockKind::PercpuRwsem) => Some(record.at),
        _ => None,
    }
}

fn mode(record: &Record, o: &KernelOffsets, words: &Words<'_>) -> Mode {
    let word = mode_at(record, o).and_then(|at| words.low(at));
    let reader = match (record.shape.queue, word) {
        (Queue::Lock(LockKind::Rwsem), Some(waits_as)) => waits_as == 1,
        (Queue::Lock(LockKind::PercpuRwsem), Some(flags)) => flags & WQ_FLAG_CUSTOM != 0,
        _ => false,
    };
    if reader { Mode::Shared } else { Mode::Exclusive }
}
