//! Which lock was wanted while which other one was held: the raw material of potential order inversions.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::Model;
use super::arena::WaitIx;
use super::locks::LockKey;
use crate::event::{LockKind, TaskRef};
use crate::ids::{StackId, Timestamp};

/// One sighting of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderSeen {
    /// Who held the one and wanted the other.
    pub task: TaskRef,
    /// When its wait was seen.
    pub time: Timestamp,
    /// Where it wanted the second lock.
    pub stack: StackId,
}

/// (held, wanted) pairs with at most two sightings each, by different tasks.
#[derive(Debug, Default)]
pub struct Orders {
    pairs: FxHashMap<(LockKey, LockKey), Vec<OrderSeen>>,
    age: VecDeque<(LockKey, LockKey)>,
}

impl Orders {
    fn note(&mut self, held: LockKey, wanted: LockKey, seen: OrderSeen, max: usize) {
        let known = self.pairs.entry((held, wanted)).or_insert_with(|| {
            self.age.push_back((held, wanted));
            Vec::new()
        });
        if known.len() < 2 && known.iter().all(|k| k.task.key != seen.task.key) {
            known.push(seen);
        }
        while self.age.len() > max {
            if let Some(oldest) = self.age.pop_front() {
                self.pairs.remove(&oldest);
            }
        }
    }

    /// Sightings of `wanted` being wanted while `held` was held.
    #[must_use]
    pub fn seen(&self, held: LockKey, wanted: LockKey) -> &[OrderSeen] {
        self.pairs.get(&(held, wanted)).map_or(&[], Vec::as_slice)
    }

    /// All pairs, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&(LockKey, LockKey), &Vec<OrderSeen>)> {
        self.pairs.iter()
    }
}

impl Model {
    /// Notes every lock that the waiter is known to have held at an instant of this wait, which is known up to `time`.
    pub(super) fn note_orders(&mut self, wait: WaitIx, time: Timestamp) {
        let Some(wait) = self.waits.get(wait) else { return };
        let Some(actor) = self.actors.get(wait.waiter) else {
            return;
        };
        let Some(task) = actor.name.as_ref().filter(|_| actor.task().is_some()) else {
            return;
        };
        if actor.holds.is_empty() {
            return;
        }
        let Some(wanted) = self.locks.get(wait.lock) else {
            return;
        };
        let since = wait.since.unwrap_or(wait.seen.first);
        for &held_ix in actor.holds.iter().filter(|&&held| held != wait.lock) {
            let Some(held) = self.locks.get(held_ix) else { continue };
            let Some(read) = held.read_owner() else { continue };
            let within = |t: Timestamp| since <= t && t <= time;
            let both_ww = held.kind == LockKind::WwMutex && wanted.kind == LockKind::WwMutex;
            if both_ww || !(within(read.span.first) || within(read.span.last)) {
                continue;
            }
            let seen = OrderSeen {
                task: task.clone(),
                time,
                stack: wait.stack,
            };
            self.orders
                .note(held.key(), wanted.key(), seen, self.settings.max_orders);
        }
    }
}
