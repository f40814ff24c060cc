//! What threads wait for that is no lock.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{Class, CodeMap};
use super::thread::{Thread, ThreadIx, Threads};
use super::work::Flush;
use crate::event::{Dependency, Evidence, TaskState};
use crate::ids::KernelAddr;

/// A wait for something that is no lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depends {
    /// Who waits.
    pub thread: ThreadIx,
    /// For what.
    pub dependency: Dependency,
    /// Who has to act, where known.
    pub on: Option<ThreadIx>,
    /// Who says so.
    pub evidence: Evidence,
}

/// What is known of those who wait.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// Who is stopped or frozen, with its tracer.
    pub stops: &'k BTreeMap<ThreadIx, Option<ThreadIx>>,
    /// Who waits for a workqueue.
    pub flushes: &'k [Flush],
    /// Who stands on the lists of which completions.
    pub completions: &'k [(ThreadIx, u64)],
    /// Who has to complete them.
    pub completers: &'k BTreeMap<u64, ThreadIx>,
    /// Who stands on the lists of which wait queue heads.
    pub wait_queues: &'k [(ThreadIx, u64)],
}

/// Names what the `sleepers` wait for, each by the best of: what stopped it, a barrier or flusher record, a completion on whose
/// list it stands, the functions on its stack, its I/O flag, a wait queue on whose list it stands.
#[must_use]
pub fn depends(sleepers: &BTreeSet<ThreadIx>, known: Known<'_>, threads: &Threads, code: &CodeMap) -> Vec<Depends> {
    let flushes: BTreeMap<ThreadIx, &Flush> = known.flushes.iter().map(|flush| (flush.thread, flush)).collect();
    let completions: BTreeMap<ThreadIx, u64> = known.completions.iter().copied().collect();
    let wait_queues: BTreeMap<ThreadIx, u64> = known.wait_queues.iter().copied().collect();
    sleepers
        .iter()
        .filter_map(|&ix| {
            let thread = threads.get(ix)?;
            let depends = |dependency, on, evidence| Depends {
                thread: ix,
                dependency,
                on,
                evidence,
            };
            if let Some(&tracer) = known.stops.get(&ix) {
                return Some(depends(Dependency::Stop, tracer, Evidence::BlockedOnField));
            }
            if let Some(flush) = flushes.get(&ix) {
                return Some(depends(flush.dependency, flush.on, Evidence::WaiterRecord));
            }
            let called = classes(thread, code);
            if called.contains(&Class::Rcu) {
                return Some(depends(Dependency::RcuGracePeriod, None, Evidence::StackFrames));
            }
            if let Some(&completion) = completions.get(&ix) {
                let on = known.completers.get(&completion).copied();
                let completion = KernelAddr(completion);
                return Some(depends(
                    Dependency::Completion { completion },
                    on,
                    Evidence::WaiterRecord,
                ));
            }
            if called.contains(&Class::Page) && !called.contains(&Class::BlockIo) {
                return Some(depends(Dependency::PageLock, None, Evidence::StackFrames));
            }
            let in_io = thread.state() == TaskState::InIo || called.contains(&Class::BlockIo);
            if in_io {
                return Some(depends(Dependency::BlockIo, None, Evidence::StackFrames));
            }
            let queue = KernelAddr(*wait_queues.get(&ix)?);
            Some(depends(
                Dependency::WaitQueueHead { queue },
                None,
                Evidence::WaiterRecord,
            ))
        })
        .collect()
}

/// What the functions on a stack wait for. The frames are those that the kernel's unwinder gives, which may leave out some, but
/// adds none; the raw words, among which old return addresses are, serve only where it gives nothing.
fn classes(thread: &Thread, code: &CodeMap) -> BTreeSet<Class> {
    let of = |words: &[u64]| words.iter().filter_map(|&word| code.class(word)).collect();
    if thread.frames.is_empty() {
        of(thread.stack().1)
    } else {
        of(&thread.frames)
    }
}
