//! From what a walk found to events.

use tracer_common::record::TaskRecord;

use crate::event::{
    Actor, Body, DependencySample, Event, HolderCandidate, Owner, Phase, TaskRef, TaskState, WaitSample,
};
use crate::ids::{KernelAddr, LockAddr, StackId, Timestamp};
use crate::kernel::stackscan::{Depends, Found, Lock, Named, Thread, ThreadIx, Threads, Waiting};
use crate::owner_word;
use crate::wire::{self, Decoder};

/// Writes the events of one round.
pub struct Emitter<'r> {
    threads: &'r Threads,
    found: &'r Found,
    decoder: &'r mut Decoder,
    out: &'r mut Vec<Event>,
}

impl<'r> Emitter<'r> {
    /// For one round.
    pub fn new(threads: &'r Threads, found: &'r Found, decoder: &'r mut Decoder, out: &'r mut Vec<Event>) -> Self {
        Self {
            threads,
            found,
            decoder,
            out,
        }
    }

    /// Everybody who waits, holds or sleeps uninterruptibly, then who waits for what.
    pub fn events(mut self) {
        let found = self.found;
        for &ix in &found.involved {
            if let Some(thread) = self.threads.get(ix) {
                self.task(ix, thread);
            }
        }
        for lock in found.locks.values() {
            if let Named::Exited(record) = &lock.owner {
                self.out.extend(wire::task_event(record, StackId(0), self.found.time));
            }
        }
        for wait in &found.waits {
            self.wait(wait);
        }
        for candidate in &found.candidates {
            if let Some(holder) = self.task_ref(candidate.thread) {
                self.push(Body::Holder(HolderCandidate {
                    lock: LockAddr(candidate.lock),
                    kind: candidate.kind,
                    mode: candidate.mode,
                    holder: Actor::Task(holder.key),
                    task: Some(holder),
                    rank: candidate.rank,
                    evidence: candidate.evidence,
                }));
            }
        }
        for depends in &found.depends {
            self.depends(depends);
        }
    }

    fn push(&mut self, body: Body) {
        self.out.push(Event {
            time: self.found.time,
            body,
        });
    }

    fn stack(&mut self, ix: ThreadIx) -> StackId {
        let Some(thread) = self.threads.get(ix) else {
            return StackId(0);
        };
        let time = Timestamp(thread.record.header.time);
        self.decoder.announce(thread.frames.iter().copied(), time, self.out)
    }

    fn task(&mut self, ix: ThreadIx, thread: &Thread) {
        let restless = self.found.restless.contains(&ix) && thread.is_asleep();
        let stack = if restless { StackId(0) } else { self.stack(ix) };
        // Who slept was found not to have run up to then; what others did, and those who have gone, is known for one moment.
        let settled = thread.is_asleep() && self.found.comms.contains_key(&ix);
        let time = if settled {
            self.found.time
        } else {
            Timestamp(thread.record.header.time)
        };
        let Some(mut event) = wire::task_event(&self.record(ix, thread), stack, time) else {
            return;
        };
        if let Body::Task(sample) = &mut event.body {
            if restless {
                (sample.state, sample.switches) = (TaskState::Unknown, None);
            } else {
                self.decoder.meet(&thread.record.task);
                sample.last_switch = self.threads.last_switch(thread);
            }
            sample.work = self.found.work.get(&ix).map(|&function| KernelAddr(function));
        }
        self.out.push(event);
    }

    fn task_ref(&self, ix: ThreadIx) -> Option<TaskRef> {
        let thread = self.threads.get(ix)?;
        Some(wire::task_ref(&self.record(ix, thread)))
    }

    /// What was written down, with the name that the last look found.
    fn record(&self, ix: ThreadIx, thread: &Thread) -> TaskRecord {
        let record = thread.record.task;
        TaskRecord {
            comm: self.found.comms.get(&ix).copied().unwrap_or(record.comm),
            ..record
        }
    }

    fn owner(&self, lock: &Lock, waiter: ThreadIx) -> Owner {
        let is_waiter = lock.owner == Named::Thread(waiter);
        let pointer = owner_word::task(lock.kind, lock.owner_word);
        owner_word::meaning(lock.kind, lock.owner_word, lock.count, is_waiter, || {
            match &lock.owner {
                Named::Thread(ix) => self
                    .task_ref(*ix)
                    .map_or(Owner::Unreadable(KernelAddr(pointer)), Owner::Task),
                Named::Exited(record) => Owner::Task(wire::task_ref(record)),
                Named::Nobody | Named::Unreadable(_) => Owner::Unreadable(KernelAddr(pointer)),
            }
        })
    }

    fn wait(&mut self, wait: &Waiting) {
        let Some(lock) = self.found.locks.get(&wait.lock) else {
            return;
        };
        let Some(waiter) = self.task_ref(wait.thread) else {
            return;
        };
        let owner = self.owner(lock, wait.thread);
        let owner_word = lock.owner_word;
        let stack = self.stack(wait.thread);
        self.push(Body::Wait(WaitSample {
            waiter: actor(&waiter),
            task: Some(waiter),
            lock: LockAddr(wait.lock),
            kind: wait.kind,
            mode: wait.mode,
            phase: Phase::Sleeping,
            // Its last switch says since when at least; a waiter may be woken and sleep on.
            since: None,
            owner_word,
            owner,
            queued: wait.queued,
            cpu: None,
            stack,
            evidence: wait.evidence,
        }));
    }

    fn depends(&mut self, depends: &Depends) {
        let Some(waiter) = self.task_ref(depends.thread) else {
            return;
        };
        let on = depends.on.and_then(|on| self.task_ref(on));
        let stack = self.stack(depends.thread);
        self.push(Body::Dependency(DependencySample {
            waiter: actor(&waiter),
            task: Some(waiter),
            dependency: depends.dependency,
            on: on.as_ref().map(actor),
            on_task: on,
            since: None,
            stack,
            evidence: depends.evidence,
        }));
    }
}

fn actor(task: &TaskRef) -> Actor {
    Actor::Task(task.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stackscan::code::Class;
    use crate::kernel::stackscan::tests::rig::{Rig, UNINTERRUPTIBLE, comm};

    /// Times and names that a walk tells of a thread.
    fn told(rig: &mut Rig) -> Vec<(u64, String)> {
        let (threads, found) = rig.walk();
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        Emitter::new(&threads, &found, &mut decoder, &mut out).events();
        let name = |event: &Event| match &event.body {
            Body::Task(sample) => Some((event.time.0, sample.task.comm.to_string())),
            Body::Dependency(sample) => Some((event.time.0, sample.task.as_ref()?.comm.to_string())),
            _ => None,
        };
        out.iter().filter_map(name).collect()
    }

    #[test]
    fn no_name_is_told_with_a_time_at_which_the_thread_may_have_had_another() {
        const WRITTEN: u64 = 1_000_000_000_000;
        const LOOKED: u64 = 2_000_000_000_000;
        // A kernel thread that was just made sleeps, under its parent's name.
        let mut rig = Rig::default();
        let made = rig.task(10, UNINTERRUPTIBLE);
        rig.tasks[made].record.task.comm = comm("kthreadd");
        rig.frame(made, Class::BlockIo);
        let task = rig.tasks[made].addr;
        rig.rename(task, "own name");
        let own = || (LOOKED, "own name".to_owned());
        assert_eq!(told(&mut rig), [own(), own()], "it sleeps on, and for what");
        rig.words.insert(task + 0x130, 8);
        assert_eq!(told(&mut rig), [own()], "it has run");
        // And exited, and its memory is another's.
        rig.words.insert(task + 0x120, 5000);
        rig.rename(task, "a stranger");
        assert_eq!(told(&mut rig), [(WRITTEN, "kthreadd".to_owned())]);
    }
}
