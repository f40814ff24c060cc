//! What kernel memory adds: the words of the locks, and locks of CPUs that give no sample.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::percpu::Running;
use super::super::queue_search::QueuedOn;
use super::super::spin::LongSpin;
use super::super::{interrupt_stack, queue_search, standstill, thread_stack};
use super::candidates::{Seen, Sought};
use super::spins::pieced;
use super::{Board, SPINLOCKS, Sampled, Spinning};
use crate::event::{
    Actor, Body, Context, Event, Evidence, LockKind, LockSample, Mode, Owner, Phase, Queued, TaskRef, TaskSample,
    TaskState, WaitSample,
};
use crate::ids::{CpuId, KernelAddr, LockAddr, StackId, Timestamp};
use crate::kernel::stackscan::Memory;
use crate::spin_word;

/// Reads of a lock's word in one round: a lock that is free for a moment is not free every time.
const WORD_READS: usize = 4;

/// A spin that no probe and no sample has shown.
struct Unseen {
    who: Actor,
    lock: LockAddr,
    kind: LockKind,
    mode: Mode,
    frames: Vec<KernelAddr>,
}

impl Board {
    /// What kernel memory adds: the words of the locks, requests between CPUs, and who is left as a holder.
    pub(super) fn read(
        &mut self,
        memory: &mut dyn Memory,
        sampled: &[Sampled],
        long: &[LongSpin],
        now: Timestamp,
        from: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let online: Vec<CpuId> = self.times.online().collect();
        let running = match &mut self.places {
            Some(places) => places.read(memory, &online)?,
            None => Vec::new(),
        };
        if let Some(places) = &self.places {
            let areas = places.areas(online.iter().copied());
            self.stalls.look(memory, &running, &areas, now, out)?;
        }
        self.queued(memory, &running, long, now, out)?;
        let mut locks: BTreeMap<LockAddr, (LockKind, Timestamp)> = BTreeMap::new();
        let spins = self.spinning.values().map(|s| (s.lock, s.kind, s.since));
        for (lock, kind, since) in spins.chain(long.iter().map(|l| (l.lock, l.kind, l.since))) {
            let known = locks.entry(lock).or_insert((kind, since));
            known.1 = known.1.max(since);
        }
        self.answers(&running, sampled, long, now, out);
        let seen = Seen {
            running: &running,
            sampled,
            long,
            now,
        };
        for (lock, (kind, since)) in locks {
            let Some((word, owner)) = self.word(memory, lock, kind)? else {
                continue;
            };
            let (held, readers) = (owner != Owner::Nobody, matches!(owner, Owner::Readers { .. }));
            self.places_in_queue(memory, (lock, kind), word, &seen, from, out)?;
            out.push(Event {
                time: now,
                body: Body::Lock(LockSample {
                    lock,
                    kind,
                    owner_word: word.into(),
                    owner,
                }),
            });
            if held {
                let mode = if readers { Mode::Shared } else { Mode::Exclusive };
                let sought = Sought {
                    lock,
                    kind,
                    mode,
                    since,
                };
                self.holders(memory, &sought, &seen, out)?;
            }
        }
        Ok(())
    }

    /// What CPUs that take no interrupts spin on, where no probe has told.
    fn queued(
        &mut self,
        memory: &mut dyn Memory,
        running: &[Running],
        long: &[LongSpin],
        now: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        for r in running {
            let Some(since) = self.times.silent(r.cpu, now) else {
                continue;
            };
            if let Some(told) = long.iter().find(|l| l.cpu == r.cpu) {
                out.extend(self.told_at(memory, r, told, now)?.into_iter().flatten());
                continue;
            }
            let Some(count) = r.preempt_count else { continue };
            let Some(found) = self.spins_unseen(memory, r, count)? else {
                continue;
            };
            self.counted |= count & SPINLOCKS > 0;
            let stack = if found.frames.is_empty() {
                StackId(0)
            } else {
                let (stack, event) = pieced(&found.frames, now);
                out.push(event);
                stack
            };
            out.extend(r.task.as_ref().map(|task| runs(task, r.cpu, now)));
            out.push(Event {
                time: now,
                body: Body::Wait(WaitSample {
                    waiter: found.who,
                    task: r.task.clone(),
                    lock: found.lock,
                    kind: found.kind,
                    mode: found.mode,
                    phase: Phase::Spinning,
                    since: None,
                    owner_word: 0,
                    owner: Owner::NotRecorded,
                    queued: Queued::Unknown,
                    cpu: Some(r.cpu),
                    stack,
                    evidence: Evidence::CpuSample,
                }),
            });
            let spinning = Spinning {
                who: found.who,
                lock: found.lock,
                kind: found.kind,
                since,
                seen: now,
                behind: None,
            };
            self.spinning.insert(r.cpu, spinning);
        }
        Ok(())
    }

    /// Where a thread spins that a probe has seen begin, on a CPU that gives no sample: the wait with its stack.
    fn told_at(
        &self,
        memory: &mut dyn Memory,
        r: &Running,
        told: &LongSpin,
        now: Timestamp,
    ) -> Result<Option<[Event; 2]>> {
        let (Some(task), Some(symbols), true) = (&r.task, self.symbols.as_deref(), told.in_task) else {
            return Ok(None);
        };
        let frames = thread_stack::spinning_at(memory, r, (told.lock, told.kind), symbols)?;
        if frames.is_empty() {
            return Ok(None);
        }
        let (stack, event) = pieced(&frames, now);
        let wait = WaitSample {
            waiter: Actor::Task(task.key),
            task: Some(task.clone()),
            lock: told.lock,
            kind: told.kind,
            mode: told.mode,
            phase: Phase::Spinning,
            since: Some(told.since),
            owner_word: 0,
            owner: Owner::NotRecorded,
            queued: Queued::Unknown,
            cpu: Some(r.cpu),
            stack,
            evidence: Evidence::Tracepoint,
        };
        let wait = Event {
            time: now,
            body: Body::Wait(wait),
        };
        Ok(Some([event, wait]))
    }

    /// What one CPU that gives no sample spins on: its thread, or the hard interrupt above it.
    fn spins_unseen(&self, memory: &mut dyn Memory, r: &Running, count: u32) -> Result<Option<Unseen>> {
        if !standstill::serves_interrupt(count) {
            let Some(task) = &r.task else { return Ok(None) };
            let symbols = self.symbols.as_deref();
            let Some(found) = queue_search::queued_on(memory, r, symbols, self.locks)? else {
                return Ok(None);
            };
            let QueuedOn { lock, kind, mode } = found;
            let frames = match symbols {
                Some(symbols) => thread_stack::spinning_at(memory, r, (lock, kind), symbols)?,
                None => Vec::new(),
            };
            return Ok(Some(Unseen {
                who: Actor::Task(task.key),
                lock,
                kind,
                mode,
                frames,
            }));
        }
        let Some(symbols) = self.symbols.as_deref().filter(|_| standstill::in_hard_interrupt(count)) else {
            return Ok(None);
        };
        let found = interrupt_stack::spins_on(memory, r, symbols, self.locks.cpus)?;
        Ok(found.map(|found| Unseen {
            who: Actor::Interrupt {
                cpu: r.cpu,
                context: Context::Hardirq,
                interrupted: r.task.as_ref().map(|task| task.key),
            },
            lock: found.lock,
            kind: found.kind,
            mode: found.mode,
            frames: found.frames,
        }))
    }

    /// The word of a spinning lock; of several reads one that says "held", if there is one.
    fn word(&self, memory: &mut dyn Memory, lock: LockAddr, kind: LockKind) -> Result<Option<(u32, Owner)>> {
        let mut last = None;
        for _ in 0..WORD_READS {
            let Some(word) = memory.read(&[lock.0])?.first().copied().flatten() else {
                return Ok(None);
            };
            #[expect(clippy::cast_possible_truncation, reason = "the lock word is the lower half")]
            let word = word as u32;
            let owner = match kind {
                LockKind::Rwlock => spin_word::rwlock(word),
                _ => spin_word::spinlock(word, self.locks.cpus).owner(),
            };
            let held = owner != Owner::Nobody;
            last = Some((word, owner));
            if held {
                break;
            }
        }
        Ok(last)
    }
}

/// The run queue says that this thread has the CPU.
fn runs(task: &TaskRef, cpu: CpuId, time: Timestamp) -> Event {
    Event {
        time,
        body: Body::Task(TaskSample {
            cpu: Some(cpu),
            ..TaskSample::of(task.clone(), TaskState::Running)
        }),
    }
}
