//! The places of CPUs in the queue of a spinlock.

use std::collections::BTreeSet;

use anyhow::Result;

use super::super::percpu::Running;
use super::super::{spin_queue, standstill};
use super::candidates::Seen;
use super::{Board, Spinning};
use crate::event::{Actor, Body, Context, Event, Evidence, LockKind, Mode, Owner, Phase, Queued, WaitSample};
use crate::ids::{CpuId, LockAddr, StackId, Timestamp};
use crate::kernel::stackscan::Memory;
use crate::spin_word;

impl Board {
    /// Gives the waits that were told in this round their places in the queue of this lock, and tells those of CPUs that stand in it
    /// and were not seen to wait.
    pub(super) fn places_in_queue(
        &mut self,
        memory: &mut dyn Memory,
        lock: LockAddr,
        word: u32,
        seen: &Seen<'_>,
        from: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let Some((nodes, areas)) = self.places.as_ref().and_then(|p| p.queue(self.times.online())) else {
            return Ok(());
        };
        let Some(order) = spin_queue::order(memory, nodes, &areas, word, self.cpus)? else {
            return Ok(());
        };
        let mut place = 0;
        if spin_word::spinlock(word, self.cpus).pending {
            // Whoever spins on the pending flag comes before the queue. The word does not name it; but if a single CPU spins on the
            // lock and stands in no queue, it is that one.
            let spinning = self
                .spinning
                .iter()
                .filter(|(_, s)| s.lock == lock)
                .map(|(&cpu, _)| cpu);
            let told = seen.long.iter().filter(|l| l.lock == lock).map(|l| l.cpu);
            let outside: BTreeSet<CpuId> = spinning.chain(told).filter(|cpu| !order.contains(cpu)).collect();
            if let (Some(&only), 1) = (outside.first(), outside.len()) {
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
                self.stands_in_queue(r, lock, place, seen.now, out);
            }
        }
        Ok(())
    }

    /// A CPU of which nothing but its place in the queue is known.
    fn stands_in_queue(&mut self, r: &Running, lock: LockAddr, place: u32, now: Timestamp, out: &mut Vec<Event>) {
        let Some(who) = r.preempt_count.and_then(|count| runs(r, count)) else {
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
                kind: LockKind::Spinlock,
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
            kind: LockKind::Spinlock,
            since,
            seen: now,
        };
        self.spinning.insert(r.cpu, spinning);
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
