//! Watched locks: who holds them, and for how long they were held, from every acquisition and release.

use std::collections::BTreeMap;

use super::Model;
use super::arena::ActorIx;
use super::locks::Candidate;
use super::steady::Span;
use crate::event::{Act, Evidence, LockKind, Mode, Watched};
use crate::ids::{LockAddr, Nanos, StackId, Timestamp};

/// Holders kept of one lock; more readers are counted, not named.
const MAX_HOLDERS: usize = 256;

/// Who holds a watched lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Who.
    pub holder: ActorIx,
    /// How.
    pub mode: Mode,
    /// Since when.
    pub since: Timestamp,
    /// Where it was acquired, 0 when no stack was taken.
    pub stack: StackId,
    /// Whether no release was seen since that may have been its own: a thread may give back what another one has for reading.
    pub sure: bool,
}

/// The longest hold that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongestHold {
    /// How long.
    pub held: Nanos,
    /// By whom.
    pub holder: ActorIx,
    /// Where it was acquired.
    pub stack: StackId,
}

/// What is known of one watched lock.
#[derive(Clone, Debug)]
pub struct WatchedLock {
    /// Its kind.
    pub kind: LockKind,
    /// Acquisitions seen.
    pub acquisitions: u64,
    /// Releases of which the acquisition was seen, too.
    pub holds: u64,
    /// Releases of which it was not, and acquisitions whose release cannot have been seen.
    pub unmatched: u64,
    /// Summed time of the holds that have ended.
    pub total: Nanos,
    /// The longest of them.
    pub longest: Option<LongestHold>,
    /// Who holds it now.
    pub holding: Vec<Holding>,
}

/// All watched locks.
pub type WatchedLocks = BTreeMap<LockAddr, WatchedLock>;

impl WatchedLock {
    fn new(kind: LockKind) -> Self {
        Self {
            kind,
            acquisitions: 0,
            holds: 0,
            unmatched: 0,
            total: Nanos(0),
            longest: None,
            holding: Vec::new(),
        }
    }

    fn acquired(&mut self, new: Holding) {
        self.acquisitions += 1;
        let excluded = |held: &Holding| new.mode == Mode::Exclusive || held.mode == Mode::Exclusive;
        let before = self.holding.len();
        // Whoever it excludes has released it, and that was not seen.
        self.holding.retain(|held| !excluded(held));
        self.unmatched += (before - self.holding.len()) as u64;
        if self.holding.len() < MAX_HOLDERS {
            self.holding.push(new);
        }
    }

    fn released(&mut self, by: ActorIx, mode: Mode, time: Timestamp) {
        let own = self
            .holding
            .iter()
            .position(|held| held.holder == by && held.mode == mode);
        // A lock may be given back by another thread than the one that took it, if only one has it.
        let place = own.or_else(|| (self.holding.len() == 1 && mode == Mode::Exclusive).then_some(0));
        let Some(held) = place.map(|place| self.holding.remove(place)) else {
            self.unmatched += 1;
            self.holding
                .iter_mut()
                .filter(|held| held.mode == mode)
                .for_each(|held| held.sure = false);
            return;
        };
        let length = time.since(held.since);
        self.holds += 1;
        self.total += length;
        if self.longest.is_none_or(|longest| longest.held < length) {
            self.longest = Some(LongestHold {
                held: length,
                holder: held.holder,
                stack: held.stack,
            });
        }
    }
}

impl Model {
    /// Watched locks.
    #[must_use]
    pub fn watched(&self) -> &WatchedLocks {
        &self.watched
    }

    pub(super) fn apply_watched(&mut self, time: Timestamp, event: &Watched) {
        let by = self.actor(time, event.by, event.task.as_ref());
        let lock = self.locks.resolve(event.lock, event.kind, time);
        let watched = self
            .watched
            .entry(event.lock)
            .or_insert_with(|| WatchedLock::new(event.kind));
        let new = match event.act {
            Act::Acquired => {
                watched.acquired(Holding {
                    holder: by,
                    mode: event.mode,
                    since: time,
                    stack: event.stack,
                    sure: true,
                });
                Some(by)
            }
            Act::Released => {
                watched.released(by, event.mode, time);
                None
            }
        };
        let Some(entry) = self.locks.get_mut(lock) else { return };
        let exclusive = event.mode == Mode::Exclusive;
        // A reader may have it several times.
        let has = |actor: ActorIx| watched.holding.iter().any(|held| held.holder == actor && held.sure);
        entry.candidates.retain(|c| {
            let over = !has(c.holder) || (new.is_some() && exclusive);
            c.evidence != Evidence::Acquisition || !over
        });
        if let Some(holder) = new {
            entry.candidate(Candidate {
                holder,
                mode: event.mode,
                rank: 0,
                evidence: Evidence::Acquisition,
                seen: Span::at(time),
                reads: 1,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Actor, Body, Event};
    use crate::ids::{CpuId, TaskKey, Tid};
    use crate::model::Settings;

    fn event(time: u64, act: Act, tid: u32, mode: Mode) -> Event {
        Event {
            time: Timestamp(time),
            body: Body::Watch(Watched {
                lock: LockAddr(0x1000),
                kind: LockKind::Rwlock,
                mode,
                act,
                by: Actor::Task(TaskKey {
                    tid: Tid(tid),
                    start: Timestamp(1),
                }),
                task: None,
                cpu: CpuId(0),
                stack: StackId(0),
            }),
        }
    }

    /// Acquisitions, holds, unmatched, time held, holders, candidates.
    fn after(events: &[(u64, Act, u32, Mode)]) -> (u64, u64, u64, u64, usize, usize) {
        let mut model = Model::new(Settings::default());
        for &(time, act, tid, mode) in events {
            model.apply(&event(time, act, tid, mode));
        }
        let watched = &model.watched()[&LockAddr(0x1000)];
        let lock = model
            .locks()
            .at(LockAddr(0x1000))
            .next()
            .and_then(|ix| model.locks().get(ix))
            .unwrap();
        (
            watched.acquisitions,
            watched.holds,
            watched.unmatched,
            watched.total.0,
            watched.holding.len(),
            lock.candidates.len(),
        )
    }

    #[test]
    fn holds_last_from_acquisition_to_release() {
        use Act::{Acquired, Released};
        use Mode::{Exclusive, Shared};
        let whole = [
            (10, Acquired, 1, Exclusive),
            (15, Released, 1, Exclusive),
            (20, Acquired, 2, Exclusive),
        ];
        assert_eq!(after(&whole), (2, 1, 0, 5, 1, 1));
        let readers = [
            (10, Acquired, 1, Shared),
            (12, Acquired, 2, Shared),
            (15, Released, 1, Shared),
        ];
        assert_eq!(after(&readers), (2, 1, 0, 5, 1, 1));
        let twice = [
            (10, Acquired, 1, Shared),
            (12, Acquired, 1, Shared),
            (15, Released, 1, Shared),
        ];
        assert_eq!(after(&twice), (2, 1, 0, 5, 1, 1), "it still has it once");
    }

    #[test]
    fn what_was_not_seen_is_counted_and_never_made_up() {
        use Act::{Acquired, Released};
        use Mode::{Exclusive, Shared};
        assert_eq!(after(&[(10, Released, 1, Exclusive)]), (0, 0, 1, 0, 0, 0));
        let missed = [(10, Acquired, 1, Exclusive), (20, Acquired, 2, Exclusive)];
        assert_eq!(after(&missed), (2, 0, 1, 0, 1, 1));
        let another = [(10, Acquired, 1, Shared), (12, Released, 2, Shared)];
        assert_eq!(after(&another), (1, 0, 1, 0, 1, 0), "it may have been the first one's");
    }
}
