//! Workqueues: who waits for which work, and which worker executes it.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;

use super::code::{Class, CodeMap};
use super::memory::{Words, is_pointer};
use super::thread::{Thread, ThreadIx, Threads};
use crate::event::Dependency;
use crate::ids::KernelAddr;
use crate::kernel::offsets::KernelOffsets;

/// `PF_WQ_WORKER` (include/linux/sched.h), 5.10 to 6.18.
const PF_WQ_WORKER: u32 = 0x20;
/// Work items that may stand between a barrier and the head of its list before the walk gives up.
const MAX_STEPS: usize = 64;
/// Words of a stack that may be the workqueue being flushed.
const MAX_CANDIDATES: usize = 256;

/// A worker of a workqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its thread.
    pub thread: ThreadIx,
    /// The function it executes, 0 when it executes nothing.
    pub function: u64,
    /// The pool_workqueue of its work, 0 when it executes nothing.
    pub pwq: u64,
    /// Its pool.
    pub pool: u64,
}

/// All workers by the address of their `struct worker`.
pub type Workers = BTreeMap<u64, Worker>;

/// A wait for a workqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Who waits.
    pub thread: ThreadIx,
    /// For what.
    pub dependency: Dependency,
    /// The worker that has to get on, where known.
    pub on: Option<ThreadIx>,
}

fn add(at: u64, offset: Option<u32>) -> Option<u64> {
    offset.map(|offset| at.wrapping_add(offset.into()))
}

/// Finds the workers: `task->kthread->data`, checked by `worker->task`.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn workers(threads: &Threads, o: &KernelOffsets, words: &mut Words<'_>) -> Result<Workers> {
    let w = &o.worker;
    let all: Vec<(ThreadIx, &Thread)> = threads
        .iter()
        .filter(|(_, t)| t.record.task.pf_flags & PF_WQ_WORKER != 0 && is_pointer(t.record.kthread))
        .collect();
    words.fetch(all.iter().filter_map(|(_, t)| add(t.record.kthread, w.kthread_data)))?;
    let found: Vec<(u64, ThreadIx, u64)> = all
        .iter()
        .filter_map(|(ix, t)| {
            let worker = words.get(add(t.record.kthread, w.kthread_data)?)?;
            is_pointer(worker).then_some((worker, *ix, t.record.task.task))
        })
        .collect();
    let fields = [w.task, w.current_func, w.current_pwq, w.pool];
    words.fetch(
        found
            .iter()
            .flat_map(|(worker, ..)| fields.into_iter().filter_map(|field| add(*worker, field))),
    )?;
    let get = |worker, field| add(worker, field).and_then(|at| words.get(at)).unwrap_or(0);
    Ok(found
        .iter()
        .filter(|(worker, _, task)| get(*worker, w.task) == *task)
        .map(|&(worker, thread, _)| {
            let worker_of = Worker {
                thread,
                function: get(worker, w.current_func),
                pwq: get(worker, w.current_pwq),
                pool: get(worker, w.pool),
            };
            (worker, worker_of)
        })
        .collect())
}

/// Who waits for one work item: its barrier lies on the waiter's stack, and on the list of the worker that executes the work.
///
/// KERNEL: `insert_wq_barrier` (kernel/workqueue.c), 5.10 to 6.18: behind work that is being executed the barrier goes to the
/// front of `worker->scheduled`; behind pending work it follows that work on `pool->worklist`.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn flushes(
    threads: &Threads,
    workers: &Workers,
    o: &KernelOffsets,
    code: &CodeMap,
    words: &mut Words<'_>,
) -> Result<Vec<Flush>> {
    let (Some(function), Some(func), Some(entry), Some(work), Some(task)) = (
        code.pointers.barrier,
        o.work.func,
        o.work.entry,
        o.work.barrier_work,
        o.work.barrier_task,
    ) else {
        return Ok(Vec::new());
    };
    let mut barriers = Vec::new();
    for (ix, thread) in threads.iter().filter(|(_, thread)| thread.is_off_cpu()) {
        let (from, stack) = thread.stack();
        let places = (0u64..).zip(stack).filter(|(_, word)| **word == function);
        barriers.extend(places.map(|(i, _)| {
            (
                ix,
                from.wrapping_add(8 * i).wrapping_sub(u64::from(func) + u64::from(work)),
            )
        }));
    }
    let entry_of = |barrier: u64| barrier.wrapping_add(u64::from(work) + u64::from(entry));
    words.fetch(barriers.iter().flat_map(|&(_, barrier)| {
        [
            barrier.wrapping_add(task.into()),
            entry_of(barrier),
            entry_of(barrier).wrapping_add(8),
        ]
    }))?;
    barriers.retain(|&(ix, barrier)| {
        let own = threads.get(ix).map(|thread| thread.record.task.task);
        words.get(barrier.wrapping_add(task.into())) == own
    });
    let heads = Heads::new(workers, o);
    let mut walks: Vec<Walk> = barriers
        .iter()
        .map(|&(thread, barrier)| Walk {
            thread,
            at: entry_of(barrier),
            last_work: None,
        })
        .collect();
    // All walks advance as far as the known words allow, then what they need next is fetched in one go.
    for _ in 0..MAX_STEPS {
        for walk in &mut walks {
            walk.advance(&heads, words, barriers.len() + MAX_STEPS);
        }
        let ahead: Vec<u64> = walks
            .iter()
            .filter(|walk| !heads.has(walk.at))
            .map(|walk| walk.at)
            .collect();
        if ahead.is_empty() {
            break;
        }
        words.fetch(ahead.iter().map(|at| at.wrapping_add(8)))?;
    }
    let func_of = |entry_at: u64| entry_at.wrapping_sub(entry.into()).wrapping_add(func.into());
    words.fetch(walks.iter().filter_map(|walk| walk.last_work.map(func_of)))?;
    Ok(walks
        .iter()
        .filter_map(|walk| walk.end(&heads, workers, threads, |at| words.get(func_of(at))))
        .collect())
}

/// The heads of the lists that barriers stand on.
struct Heads {
    scheduled: HashMap<u64, u64>,
    worklists: HashMap<u64, u64>,
}

impl Heads {
    fn new(workers: &Workers, o: &KernelOffsets) -> Self {
        let scheduled = workers
            .keys()
            .filter_map(|&worker| Some((add(worker, o.worker.scheduled)?, worker)));
        let pools = workers.values().filter(|worker| is_pointer(worker.pool));
        let worklists = pools.filter_map(|worker| Some((add(worker.pool, o.worker_pool.worklist)?, worker.pool)));
        Self {
            scheduled: scheduled.collect(),
            worklists: worklists.collect(),
        }
    }

    fn has(&self, at: u64) -> bool {
        self.scheduled.contains_key(&at) || self.worklists.contains_key(&at)
    }
}

/// The way back from a barrier to the head of its list.
struct Walk {
    thread: ThreadIx,
    at: u64,
    /// The first entry met that is followed backwards: the work before the barrier.
    last_work: Option<u64>,
}

impl Walk {
    fn advance(&mut self, heads: &Heads, words: &Words<'_>, at_most: usize) {
        for _ in 0..at_most {
            if heads.has(self.at) {
                return;
            }
            let Some(prev) = words.get(self.at.wrapping_add(8)).filter(|&prev| is_pointer(prev)) else {
                return;
            };
            self.at = prev;
            if !heads.has(prev) {
                self.last_work.get_or_insert(prev);
            }
        }
    }

    fn end(
        &self,
        heads: &Heads,
        workers: &Workers,
        threads: &Threads,
        function: impl Fn(u64) -> Option<u64>,
    ) -> Option<Flush> {
        let (function, on) = if let Some(worker) = heads.scheduled.get(&self.at).and_then(|worker| workers.get(worker))
        {
            (worker.function, Some(worker.thread))
        } else {
            // Not begun: it waits for one of the pool's workers to become free.
            let pool = heads.worklists.get(&self.at)?;
            (
                function(self.last_work?)?,
                longest_asleep(threads, workers, |worker| worker.pool == *pool),
            )
        };
        Some(Flush {
            thread: self.thread,
            dependency: Dependency::WorkFlush {
                function: KernelAddr(function),
            },
            on,
        })
    }
}

/// Of the busy workers that are meant, the one that has not run for longest.
fn longest_asleep(threads: &Threads, workers: &Workers, meant: impl Fn(&Worker) -> bool) -> Option<ThreadIx> {
    workers
        .values()
        .filter(|worker| worker.function != 0 && meant(worker))
        .filter_map(|worker| {
            let thread = threads.get(worker.thread)?;
            Some((!thread.is_off_cpu(), thread.record.exec_start, worker.thread))
        })
        .min()
        .map(|(.., thread)| thread)
}

/// Who waits for all work of a workqueue: `struct wq_flusher` lies on the waiter's stack, around the completion it waits for,
/// and the workqueue points to it. `waiting` names completions with their waiters.
///
/// KERNEL: `__flush_workqueue` (kernel/workqueue.c), 5.10 to 6.18.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn queue_flushes(
    waiting: &[(ThreadIx, u64)],
    threads: &Threads,
    workers: &Workers,
    o: &KernelOffsets,
    code: &CodeMap,
    words: &mut Words<'_>,
) -> Result<Vec<Flush>> {
    let q = &o.workqueue;
    let Some(done) = q.flusher_done else {
        return Ok(Vec::new());
    };
    let mut candidates = Vec::new();
    for &(ix, completion) in waiting {
        let Some(thread) = threads.get(ix) else { continue };
        let (_, stack) = thread.stack();
        if !stack
            .iter()
            .any(|&word| code.class(word) == Some(Class::FlushWorkqueue))
        {
            continue;
        }
        let flusher = completion.wrapping_sub(done.into());
        let pointers = stack
            .iter()
            .copied()
            .filter(|&word| is_pointer(word) && code.class(word).is_none());
        candidates.extend(pointers.take(MAX_CANDIDATES).map(|wq| (ix, flusher, wq)));
    }
    // The first flusher is pointed to; those who came later stand on a list, whose first and last are.
    let fields = |wq| {
        [
            add(wq, q.first_flusher),
            add(wq, q.flusher_queue),
            add(wq, q.flusher_queue.map(|at| at + 8)),
        ]
    };
    words.fetch(candidates.iter().flat_map(|&(.., wq)| fields(wq)).flatten())?;
    candidates.retain(|&(_, flusher, wq)| fields(wq).iter().flatten().any(|&at| words.get(at) == Some(flusher)));
    words.fetch(
        workers
            .values()
            .filter(|w| w.pwq != 0)
            .filter_map(|w| add(w.pwq, q.pwq_wq)),
    )?;
    let mut found: BTreeMap<ThreadIx, Flush> = BTreeMap::new();
    for (thread, _, wq) in candidates {
        let works_for = |worker: &Worker| add(worker.pwq, q.pwq_wq).and_then(|at| words.get(at)) == Some(wq);
        found.entry(thread).or_insert(Flush {
            thread,
            dependency: Dependency::WorkqueueFlush {
                workqueue: KernelAddr(wq),
            },
            on: longest_asleep(threads, workers, |worker| worker.pwq != 0 && works_for(worker)),
        });
    }
    Ok(found.into_values().collect())
}
