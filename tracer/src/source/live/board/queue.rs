//! The places of CPUs in the queue of a spinlock, or in that inside of a rwlock.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::percpu::Running;
use super::super::{spin_queue, standstill};
use super::candidates::Seen;
use super::{Board, Spinning};
use crate::event::{Actor, Body, Context, Event, Evidence, LockKind, Mode, Owner, Phase, Queued, WaitSample};
use crate::ids::{CpuId, LockAddr, StackId, Timestamp};
use crate::kernel::stackscan::Memory;
use crate::spin_word::{self, WordState};

impl Board {
    /// Gives the waits that were told in this round their places in the queue of this lock, and tells those of CPUs that stand in it
    /// and were not seen to wait.
    pub(super) fn places_in_queue(
        &mut self,
        memory: &mut dyn Memory,
        (lock, kind): (LockAddr, LockKind),
        word: u32,
        seen: &Seen<'_>,
        from: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let Some((nodes, areas)) = self.places.as_ref().and_then(|p| p.queue(self.times.online())) else {
            return Ok(());
        };
        let inner = match kind {
            LockKind::Rwlock => match self.rwlock_queue(memory, lock)? {
                Some(inner) => Some(inner),
                None => return Ok(()),
            },
            _ => None,
        };
        let word = inner.unwrap_or(word);
        let Some(order) = spin_queue::order(memory, nodes, &areas, word, self.locks.cpus)? else {
            return Ok(());
        };
        let decoded = spin_word::spinlock(word, self.locks.cpus);
        let mut outside = self.outside(lock, &order, seen);
        let mut place = 0;
        // The first waiter of a rwlock holds the inner spinlock; the others stand in the queue of that.
        if inner.is_some() && decoded.state == WordState::Held {
            if let Some(first) = only(&outside, |behind| behind != Some(true)) {
                outside.remove(&first);
                give_place(lock, first, place, from, out);
            }
            place += 1;
        }
        // Whoever spins on the pending flag comes before the queue. The word does not name it; but if a single CPU spins on the
        // lock and stands in no queue, it is that one.
        if decoded.pending {
            if let Some(only) = only(&outside, |behind| inner.is_none() || behind != Some(false)) {
                give_place(lock, only, place, from, out);
            }
            place += 1;
        }
        for (place, cpu) in (place..).zip(order) {
            let told = give_place(lock, cpu, place, from, out);
            if let Some(known) = self.spinning.get_mut(&cpu).filter(|s| s.lock == lock) {
                known.seen = seen.now;
            }
            // What a probe has seen begin is told by that probe, and so is its end.
            let by_probe = seen.long.iter().any(|l| l.cpu == cpu && l.lock == lock);
            if !told
                && !by_probe
                && let Some(r) = seen.running.iter().find(|r| r.cpu == cpu)
            {
                self.stands_in_queue(r, (lock, kind), place, seen.now, out);
            }
        }
        Ok(())
    }

    /// The word of the spinlock inside of a rwlock.
    fn rwlock_queue(&self, memory: &mut dyn Memory, lock: LockAddr) -> Result<Option<u32>> {
        let Some(offset) = self.locks.rwlock_queue else {
            return Ok(None);
        };
        let read = memory.read(&[lock.0 + u64::from(offset)])?.first().copied().flatten();
        #[expect(clippy::cast_possible_truncation, reason = "the lock word is the lower half")]
        Ok(read.map(|word| word as u32))
    }

    /// CPUs that spin on this lock and stand in no queue, with whether they stand behind the first waiter of a rwlock.
    fn outside(&self, lock: LockAddr, order: &[CpuId], seen: &Seen<'_>) -> BTreeMap<CpuId, Option<bool>> {
        let told = seen.long.iter().filter(|l| l.lock == lock).map(|l| (l.cpu, None));
        let spinning = self.spinning.iter().filter(|(_, s)| s.lock == lock);
        let spinning = spinning.map(|(&cpu, s)| (cpu, s.behind));
        let sampled = seen.sampled.iter().filter_map(|s| Some((s.cpu, s.spin.as_ref()?)));
        let sampled = sampled.filter(|(_, spin)| spin.lock == lock);
        let sampled = sampled.map(|(cpu, spin)| (cpu, Some(spin.behind)));
        let mut outside: BTreeMap<CpuId, Option<bool>> = told.chain(spinning).collect();
        // A sample says it of those that are known to spin; of itself it says too little.
        for (cpu, behind) in sampled {
            outside.entry(cpu).and_modify(|known| *known = behind);
        }
        outside.retain(|cpu, _| !order.contains(cpu));
        outside
    }

    /// A CPU of which nothing but its place in the queue is known.
    fn stands_in_queue(
        &mut self,
        r: &Running,
        (lock, kind): (LockAddr, LockKind),
        place: u32,
        now: Timestamp,
        out: &mut Vec<Event>,
    ) {
        let before = self.spinning.get(&r.cpu).filter(|s| s.lock == lock).map(|s| s.who);
        let Some(who) = stands(r, before) else {
            return;
        };
        let known = self.spinning.get(&r.cpu).filter(|s| s.lock == lock && s.who == who);
        let since = known.map_or(now, |s| s.since);
        out.push(Event {
            time: now,
            body: Body::Wait(WaitSample {
                waiter: who,
                task: r.task.clone(),
                lock,
                kind,
                mode: Mode::Exclusive,
                phase: Phase::Spinning,
                since: None,
                owner_word: 0,
                owner: Owner::NotRecorded,
                queued: Queued::At(place),
                cpu: Some(r.cpu),
                stack: StackId(0),
                evidence: Evidence::CpuSample,
            }),
        });
        let spinning = Spinning {
            who,
            lock,
            kind,
            since,
            seen: now,
            behind: (kind == LockKind::Rwlock).then_some(true),
        };
        self.spinning.insert(r.cpu, spinning);
    }
}

/// The only CPU of which this is true.
fn only(outside: &BTreeMap<CpuId, Option<bool>>, fits: impl Fn(Option<bool>) -> bool) -> Option<CpuId> {
    let mut fitting = outside.iter().filter(|&(_, &behind)| fits(behind));
    match (fitting.next(), fitting.next()) {
        (Some((&cpu, _)), None) => Some(cpu),
        _ => None,
    }
}

/// Gives the waits of this CPU for this lock that were told since `from` this place; whether there are any.
fn give_place(lock: LockAddr, cpu: CpuId, place: u32, from: usize, out: &mut [Event]) -> bool {
    let mut told = false;
    for event in out.iter_mut().skip(from) {
        if let Body::Wait(wait) = &mut event.body
            && wait.lock == lock
            && wait.cpu == Some(cpu)
        {
            wait.queued = Queued::At(place);
            told = true;
        }
    }
    told
}

/// Who stands in the queue of a lock, if `before` was seen to spin on it there: a CPU that spins with interrupts on is in one now and
/// then, and the place is that of the thread below.
fn stands(r: &Running, before: Option<Actor>) -> Option<Actor> {
    let now = runs(r, r.preempt_count?)?;
    match (before, now) {
        (Some(Actor::Task(waiter)), Actor::Interrupt { interrupted, .. }) if interrupted == Some(waiter) => before,
        _ => Some(now),
    }
}

/// Who runs on a CPU with this preempt count: its thread, or an interrupt above it.
fn runs(r: &Running, count: u32) -> Option<Actor> {
    let interrupted = r.task.as_ref().map(|task| task.key);
    let context = standstill::context_of(count);
    if context == Context::Task {
        return interrupted.map(Actor::Task);
    }
    Some(Actor::Interrupt {
        cpu: r.cpu,
        context,
        interrupted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TaskRef;
    use crate::ids::{TaskKey, Tgid, Tid};

    const HARDIRQ: u32 = 0x0001_0000;

    fn key(tid: u32) -> TaskKey {
        TaskKey {
            tid: Tid(tid),
            start: Timestamp(1),
        }
    }

    fn running(tid: u32, preempt_count: u32) -> Running {
        Running {
            cpu: CpuId(3),
            task: Some(TaskRef {
                key: key(tid),
                tgid: Tgid(tid),
                comm: "t".into(),
            }),
            preempt_count: Some(preempt_count),
            stack: (0, 0),
            interrupt_stack: None,
            requests: Vec::new(),
            sends: None,
        }
    }

    #[test]
    fn an_interrupt_above_a_waiter_does_not_wait() {
        let waiter = Some(Actor::Task(key(7)));
        let interrupt = |tid| {
            Some(Actor::Interrupt {
                cpu: CpuId(3),
                context: Context::Hardirq,
                interrupted: Some(key(tid)),
            })
        };
        assert_eq!(stands(&running(7, HARDIRQ), waiter), waiter);
        assert_eq!(stands(&running(7, 1), waiter), waiter);
        // Above a thread that was not seen to wait, it may be the interrupt that does.
        assert_eq!(stands(&running(7, HARDIRQ), None), interrupt(7));
        assert_eq!(stands(&running(8, HARDIRQ), waiter), interrupt(8));
        // An interrupt that waited is over when the thread runs.
        assert_eq!(stands(&running(7, 1), interrupt(7)), waiter);
    }
}
