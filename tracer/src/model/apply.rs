//! Events that are no waits: states of threads, owner words, dependencies, candidates, re-initialisations.

use super::actors::Depends;
use super::arena::{ActorIx, LockIx};
use super::locks::{Candidate, Held, LockEntry, OwnerRead};
use super::steady::{Span, Steady};
use super::{MAX_REINITS, Model, ReinitSeen};
use crate::event::{
    DependencySample, Doing, Evidence, HolderCandidate, LockKind, LockSample, Owner, Reinit, Release, TaskSample,
    TimeSpent, UserStack,
};
use crate::ids::{Nanos, TaskKey, Timestamp};

const MUTEX_FLAG_PICKUP: u64 = 4;
/// What points to the holder of a spinning lock is told several times a second as long as it does.
const STALE_CANDIDATE: Nanos = Nanos::from_secs(2);

impl Model {
    /// Decodes an owner into the model's terms. A mutex with the PICKUP flag has been handed to a waiter that has not taken it
    /// yet (`MUTEX_FLAG_PICKUP`, kernel/locking/mutex.c, 4.10 and later): that waiter is no owner that waits for itself.
    pub(super) fn held(&mut self, time: Timestamp, kind: LockKind, word: u64, owner: &Owner) -> Held {
        match owner {
            Owner::Nobody => Held::Nobody,
            Owner::Task(task) => {
                let actor = self.task(time, task);
                let picked_up = matches!(kind, LockKind::Mutex | LockKind::WwMutex) && word & MUTEX_FLAG_PICKUP != 0;
                if picked_up {
                    Held::HandedTo(actor)
                } else {
                    Held::By(actor)
                }
            }
            Owner::Unreadable(addr) => Held::Unreadable(*addr),
            Owner::Readers { hint, count } => Held::Readers {
                hint: hint.as_ref().map(|task| self.task(time, task)),
                count: *count,
            },
            Owner::NotRecorded => Held::NotRecorded,
        }
    }

    pub(super) fn apply_task(&mut self, time: Timestamp, sample: &TaskSample) {
        let actor = self.task(time, &sample.task);
        let Some(entry) = self.actors.get_mut(actor) else {
            return;
        };
        if entry.gone.is_some_and(|gone| time <= gone) {
            return;
        }
        entry.gone = None;
        entry.take_sample(time, sample);
        if entry.has_left_dependency(time) {
            entry.dependency = None;
            self.depending.remove(&actor);
        }
    }

    /// A thread that is not known is none that anybody asks about.
    pub(super) fn apply_doing(&mut self, time: Timestamp, doing: &Doing) {
        if let Some(actor) = self.actors.find(doing.task)
            && let Some(entry) = self.actors.get_mut(actor)
            && entry.gone.is_none_or(|gone| time > gone)
        {
            entry.doing = Some(doing.activity.clone());
        }
    }

    /// It is told later than the sleep that it belongs to, which may be over by then.
    pub(super) fn apply_user_stack(&mut self, stack: &UserStack) {
        if let Some(actor) = self.actors.find(stack.task)
            && let Some(entry) = self.actors.get_mut(actor)
            && entry.asleep.is_some_and(|asleep| asleep.value == stack.switches)
        {
            entry.user_stack = Some(Box::new(stack.clone()));
        }
    }

    pub(super) fn apply_gone(&mut self, time: Timestamp, key: TaskKey) {
        if let Some(actor) = self.actors.find(key)
            && self
                .actors
                .get(actor)
                .is_some_and(|a| a.last_seen <= time || (key.start.0 != 0 && a.task() == Some(key)))
        {
            self.end_actor(actor, time);
        }
    }

    pub(super) fn end_actor(&mut self, actor: ActorIx, gone: Timestamp) {
        let Some(entry) = self.actors.get_mut(actor) else {
            return;
        };
        entry.gone = Some(entry.gone.map_or(gone, |known| known.max(gone)));
        entry.dependency = None;
        self.depending.remove(&actor);
        entry.asleep = None;
        for wait in entry.waits.clone() {
            self.end_wait(wait, gone);
        }
    }

    pub(super) fn apply_lock(&mut self, time: Timestamp, sample: &LockSample) {
        let lock = self.locks.resolve(sample.lock, sample.kind, time);
        let held = self.held(time, sample.kind, sample.owner_word, &sample.owner);
        self.read_owner(
            lock,
            time,
            OwnerRead {
                word: sample.owner_word,
                held,
            },
        );
    }

    pub(super) fn read_owner(&mut self, lock: LockIx, time: Timestamp, read: OwnerRead) {
        self.change_lock(lock, |entry| match &mut entry.owner {
            Some(owner) => {
                owner.read(read, time);
            }
            none => *none = Some(Steady::new(read, time)),
        });
    }

    /// Notes an acquisition or release that an event, not the owner word, has shown.
    pub(super) fn ownership_changed(&mut self, lock: LockIx, time: Timestamp, owner: Option<ActorIx>) {
        self.change_lock(lock, |entry| {
            if entry.changed.is_none_or(|(known, _)| known <= time) {
                entry.changed = Some((time, owner));
            }
        });
    }

    /// Changes a lock and keeps the list of what its owner holds true.
    pub(super) fn change_lock(&mut self, ix: LockIx, change: impl FnOnce(&mut LockEntry)) {
        let Some(entry) = self.locks.get_mut(ix) else { return };
        let before = entry.held().owner();
        change(entry);
        let after = entry.held().owner();
        if before == after {
            return;
        }
        if let Some(owner) = before.and_then(|o| self.actors.get_mut(o)) {
            owner.holds.retain(|&l| l != ix);
        }
        if let Some(owner) = after.and_then(|o| self.actors.get_mut(o)) {
            owner.holds.push(ix);
        }
    }

    pub(super) fn apply_dependency(&mut self, time: Timestamp, sample: &DependencySample) {
        let waiter = self.actor(time, sample.waiter, sample.task.as_ref());
        let on = sample.on.map(|on| self.actor(time, on, sample.on_task.as_ref()));
        let Some(entry) = self.actors.get_mut(waiter) else {
            return;
        };
        if entry.gone.is_some_and(|gone| time <= gone) {
            return;
        }
        if let Some(addr) = sample.dependency.object() {
            let again = self.reinits.iter_mut().filter(|r| r.event.lock.0 == addr.0);
            again.for_each(|r| {
                r.awaited.get_or_insert(sample.dependency);
            });
        }
        let asleep = entry.asleep.map(|a| a.value);
        match entry.dependency.as_deref_mut() {
            Some(known) if known.dependency == sample.dependency && known.on == on => {
                known.since = match (known.since, sample.since) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                if time > known.seen.last {
                    known.seen.extend(time);
                    known.reads = known.reads.saturating_add(1);
                    known.evidence = sample.evidence;
                    known.asleep = asleep;
                    if sample.stack.0 != 0 {
                        known.stack = sample.stack;
                    }
                }
            }
            Some(known) if time < known.seen.last => {}
            _ => {
                self.depending.insert(waiter);
                entry.dependency = Some(Box::new(Depends {
                    dependency: sample.dependency,
                    on,
                    since: sample.since,
                    seen: Span::at(time),
                    reads: 1,
                    asleep,
                    stack: sample.stack,
                    evidence: sample.evidence,
                }));
            }
        }
    }

    pub(super) fn apply_holder(&mut self, time: Timestamp, candidate: &HolderCandidate) {
        let holder = self.actor(time, candidate.holder, candidate.task.as_ref());
        let lock = self.locks.resolve(candidate.lock, candidate.kind, time);
        if let Some(entry) = self.locks.get_mut(lock) {
            if candidate.kind.spins() {
                // Of CPUs all that can hold it are told each time.
                let newer = |c: &Candidate| time.since(c.seen.last) < STALE_CANDIDATE;
                entry
                    .candidates
                    .retain(|c| c.evidence == Evidence::Acquisition || newer(c));
            }
            entry.candidate(Candidate {
                holder,
                mode: candidate.mode,
                rank: candidate.rank,
                evidence: candidate.evidence,
                seen: Span::at(time),
                reads: 1,
            });
        }
    }

    pub(super) fn apply_reinit(&mut self, time: Timestamp, reinit: &Reinit) {
        self.task(time, &reinit.task);
        let known_waiters = self
            .locks
            .at(reinit.lock)
            .filter_map(|l| self.locks.get(l))
            .map(|l| l.waiters.len())
            .sum();
        let seen = ReinitSeen {
            time,
            event: reinit.clone(),
            known_waiters,
            awaited: None,
        };
        if self.reinits.iter().any(|r| r.time == time && r.event == seen.event) {
            return;
        }
        if self.reinits.len() >= MAX_REINITS {
            self.reinits.remove(0);
        }
        self.reinits.push(seen);
    }

    pub(super) fn apply_spent(&mut self, time: Timestamp, spent: &TimeSpent) {
        let actor = self.task(time, &spent.task);
        if let Some(entry) = self.actors.get_mut(actor)
            && entry.spent.as_ref().is_none_or(|known| known.1 <= time)
        {
            entry.spent = Some(Box::new((spent.clone(), time)));
        }
    }

    pub(super) fn apply_release(&mut self, time: Timestamp, release: &Release) {
        let task = self.task(time, &release.task);
        let lock = self.locks.resolve(release.lock, release.kind, time);
        let Some(entry) = self.locks.get_mut(lock) else { return };
        entry.releases = entry.releases.saturating_add(1);
        entry.holds.released(task, time);
        entry.candidates.retain(|c| c.holder != task || c.seen.last > time);
        if entry.held().owner() == Some(task) {
            self.ownership_changed(lock, time, None);
        }
    }
}
