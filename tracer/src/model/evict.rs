//! Memory bounds: what nothing refers to and was not seen for longest is forgotten first.

use super::Model;
use super::arena::{ActorIx, Index, LockIx};
use super::locks::Held;
use crate::ids::Timestamp;

impl Model {
    /// Keeps the tables within their bounds. Cheap unless a bound is exceeded; then at least an eighth of the table goes, so
    /// that the cost is spread over that many insertions.
    pub(super) fn keep_bounds(&mut self) {
        if self.locks.len() > self.lock_bound {
            self.evict_locks();
            self.lock_bound = next_bound(self.settings.max_locks, self.locks.len());
        }
        if self.actors.len() > self.actor_bound {
            self.evict_actors();
            self.actor_bound = next_bound(self.settings.max_tasks, self.actors.len());
        }
    }

    fn evict_locks(&mut self) {
        let idle: Vec<(Timestamp, LockIx)> = self
            .locks
            .iter()
            .filter(|(_, l)| l.waiters.is_empty())
            .map(|(ix, l)| (l.last_seen, ix))
            .collect();
        for ix in oldest(idle, self.locks.len(), self.settings.max_locks) {
            self.forget_owner(ix);
            self.locks.forget(ix);
        }
    }

    /// Drops what is believed about the owner of a lock.
    fn forget_owner(&mut self, ix: LockIx) {
        let Some(lock) = self.locks.get_mut(ix) else { return };
        let owner = lock.held().owner();
        lock.owner = None;
        lock.changed = None;
        lock.candidates.clear();
        if let Some(owner) = owner.and_then(|o| self.actors.get_mut(o)) {
            owner.holds.retain(|&l| l != ix);
        }
    }

    fn evict_actors(&mut self) {
        // A lock without waiters explains nothing: what is believed about its owner must not keep the owner.
        let idle: Vec<LockIx> = self
            .locks
            .iter()
            .filter(|(_, l)| l.waiters.is_empty())
            .map(|(ix, _)| ix)
            .collect();
        for ix in idle {
            self.forget_owner(ix);
        }
        let mut needed = vec![false; self.actors.slots()];
        let mut need = |ix: ActorIx| {
            if let Some(cell) = needed.get_mut(ix.slot()) {
                *cell = true;
            }
        };
        for (_, lock) in self.locks.iter() {
            for held in lock.owner.iter().map(|o| o.value.held) {
                match held {
                    Held::By(a) | Held::HandedTo(a) | Held::Readers { hint: Some(a), .. } => need(a),
                    _ => {}
                }
            }
            if let Some((_, Some(actor))) = lock.changed {
                need(actor);
            }
            lock.candidates.iter().for_each(|c| need(c.holder));
        }
        for (ix, actor) in self.actors.iter() {
            if !actor.waits.is_empty() {
                need(ix);
            }
            if let Some(dependency) = &actor.dependency {
                need(ix);
                dependency.on.into_iter().for_each(&mut need);
            }
            actor.interrupted.into_iter().for_each(&mut need);
        }
        for watched in self.watched.values() {
            watched.holding.iter().for_each(|held| need(held.holder));
            watched.longest.into_iter().for_each(|longest| need(longest.holder));
        }
        let idle: Vec<(Timestamp, ActorIx)> = self
            .actors
            .iter()
            .filter(|(ix, _)| !needed.get(ix.slot()).copied().unwrap_or(true))
            .map(|(ix, a)| (a.last_seen, ix))
            .collect();
        for ix in oldest(idle, self.actors.len(), self.settings.max_tasks) {
            self.actors.forget(ix);
        }
    }
}

/// The oldest of `idle`, so many that 7/8 of `max` remain of `len`.
fn oldest<I: Copy + Ord>(mut idle: Vec<(Timestamp, I)>, len: usize, max: usize) -> Vec<I> {
    let surplus = len.saturating_sub(max - max / 8).min(idle.len());
    if surplus == 0 {
        return Vec::new();
    }
    idle.select_nth_unstable(surplus - 1);
    idle.iter().take(surplus).map(|&(_, ix)| ix).collect()
}

/// When to look again: not before the table has grown by an eighth, where everything left is in use.
fn next_bound(max: usize, len: usize) -> usize {
    max.max(len.saturating_add(max / 8))
}
