//! Who holds a spinlock: whoever is left when each other CPU cannot.

use super::super::percpu::Running;
use super::super::spin::LongSpin;
use super::{Board, SPINLOCKS, Sampled};
use crate::event::{Actor, Body, Event, Evidence, HolderCandidate, LockKind, Mode};
use crate::ids::{LockAddr, Timestamp};

impl Board {
    /// The only CPU that can hold a lock, if there is only one. Whoever holds a spinlock keeps its CPU. So a CPU that could have
    /// switched to another thread since the wait began holds none; and one that stands still holds no more than its preempt count
    /// says, less the lock that it waits for itself, and less the count with which it waits for another CPU's answer.
    #[expect(clippy::too_many_arguments, reason = "everything that is known of a round")]
    pub(super) fn holder(
        &self,
        lock: LockAddr,
        kind: LockKind,
        since: Timestamp,
        running: &[Running],
        sampled: &[Sampled],
        long: &[LongSpin],
        now: Timestamp,
    ) -> Option<Event> {
        let mut suspects = running.iter().filter(|r| {
            if self.free.get(&r.cpu).is_some_and(|&free| free > since) {
                return false;
            }
            let spins = self.spinning.contains_key(&r.cpu) || long.iter().any(|l| l.cpu == r.cpu);
            let asks = sampled.iter().any(|s| s.cpu == r.cpu && s.asks);
            let own = u32::from(spins) + u32::from(asks);
            let spinlocks = r.preempt_count.map(|count| count & SPINLOCKS);
            // Of a CPU that does not stand still the count is that of a moment.
            !(own > 0 && self.counted && spinlocks.is_some_and(|n| n <= own))
        });
        let (only, None) = (suspects.next()?, suspects.next()) else {
            return None;
        };
        let task = only.task.clone()?;
        let holder = match self.spinning.get(&only.cpu) {
            Some(s) if s.lock != lock => s.who,
            _ => Actor::Task(task.key),
        };
        Some(Event {
            time: now,
            body: Body::Holder(HolderCandidate {
                lock,
                kind,
                mode: Mode::Exclusive,
                holder,
                task: Some(task),
                rank: 0,
                evidence: Evidence::CpuSample,
            }),
        })
    }
}
