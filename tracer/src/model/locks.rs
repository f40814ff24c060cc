//! Locks: who holds them as far as their own words or other evidence tells, and who waits.

use rustc_hash::FxHashMap;

use super::arena::{ActorIx, Arena, LockIx, WaitIx};
use super::holds::Holds;
use super::stats::Contention;
use super::steady::{Span, Steady};
use crate::event::{Evidence, LockKind, Mode};
use crate::ids::{KernelAddr, LockAddr, Timestamp};

/// The decoded owner of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// By nobody.
    Nobody,
    /// By this thread, exclusively.
    By(ActorIx),
    /// Handed to this thread, which has not taken it yet.
    HandedTo(ActorIx),
    /// By somebody whose task structure could not be read.
    Unreadable(KernelAddr),
    /// By readers.
    Readers {
        /// The last one to acquire; it may have left.
        hint: Option<ActorIx>,
        /// How many, where known.
        count: Option<u32>,
    },
    /// This kind records no owner.
    NotRecorded,
}

impl Held {
    /// The exclusive owner.
    #[must_use]
    pub fn owner(self) -> Option<ActorIx> {
        match self {
            Self::By(actor) => Some(actor),
            _ => None,
        }
    }
}

/// One reading of the owner word.
#[derive(Clone, Copy, Debug, Eq)]
pub struct OwnerRead {
    /// The raw word.
    pub word: u64,
    /// Its meaning.
    pub held: Held,
}

/// Two readings are equal when they mean the same: flag bits of the word change while the owner stays (a mutex gets its WAITERS
/// flag right after its first waiter was seen to begin).
impl PartialEq for OwnerRead {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held
    }
}

/// Somebody who may hold a lock that does not record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub holder: ActorIx,
    /// How.
    pub mode: Mode,
    /// 0 = best.
    pub rank: u32,
    /// Who says so.
    pub evidence: Evidence,
    /// When this was seen.
    pub seen: Span,
    /// Times at which it was seen.
    pub reads: u32,
}

/// What is known about one lock.
#[derive(Debug)]
pub struct LockEntry {
    /// Its address.
    pub addr: LockAddr,
    /// Its kind, in the newest event.
    pub kind: LockKind,
    /// Its owner word and since when that has been unchanged.
    pub owner: Option<Steady<OwnerRead>>,
    /// A release or acquisition seen after the newest read: the read owner no longer counts.
    pub changed: Option<(Timestamp, Option<ActorIx>)>,
    /// Possible holders, best first.
    pub candidates: Vec<Candidate>,
    /// Pending waits, in no order; see [`super::Model::queue`].
    pub waiters: Vec<WaitIx>,
    /// Contention statistics.
    pub contention: Option<Box<Contention>>,
    /// When the newest event about it happened.
    pub last_seen: Timestamp,
    /// Releases seen.
    pub releases: u64,
    /// Holds that were seen from begin to end.
    pub holds: Holds,
}

/// Most candidates kept for one lock.
const MAX_CANDIDATES: usize = 4_096;

impl LockEntry {
    fn new(addr: LockAddr, kind: LockKind, time: Timestamp) -> Self {
        Self {
            addr,
            kind,
            owner: None,
            changed: None,
            candidates: Vec::new(),
            waiters: Vec::new(),
            contention: None,
            last_seen: time,
            releases: 0,
            holds: Holds::default(),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> LockKey {
        LockKey {
            addr: self.addr,
            spins: self.kind.spins(),
        }
    }

    /// Who holds it, as the newest evidence says; an exclusive acquisition or a release after the last read counts.
    #[must_use]
    pub fn held(&self) -> Held {
        let read = self.owner.as_ref();
        match self.changed {
            Some((time, actor)) if read.is_none_or(|r| r.span.last < time) => actor.map_or(Held::Nobody, Held::By),
            _ => read.map_or(Held::NotRecorded, |r| r.value.held),
        }
    }

    /// The owner as *read* from the lock, unless something newer contradicts it.
    #[must_use]
    pub fn read_owner(&self) -> Option<&Steady<OwnerRead>> {
        let read = self.owner.as_ref()?;
        match self.changed {
            Some((time, _)) if read.span.last < time => None,
            _ => Some(read),
        }
    }

    /// Adds or renews a possible holder.
    pub fn candidate(&mut self, new: Candidate) {
        let full = self.candidates.len() >= MAX_CANDIDATES;
        match self
            .candidates
            .iter_mut()
            .find(|c| c.holder == new.holder && c.evidence == new.evidence)
        {
            Some(known) => {
                if new.seen.last <= known.seen.last {
                    return;
                }
                known.reads = known.reads.saturating_add(1);
                known.seen.extend(new.seen.last);
                known.mode = new.mode;
                if known.rank == new.rank {
                    return;
                }
                known.rank = new.rank;
            }
            None if full => return,
            None => self.candidates.push(new),
        }
        // What was seen goes before what was inferred.
        self.candidates
            .sort_by_key(|c| (c.evidence != Evidence::Acquisition, c.rank, c.evidence));
    }
}

/// Identity of a lock: see [`LockKind::spins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey {
    /// Its address.
    pub addr: LockAddr,
    /// Whether it is a spinning lock.
    pub spins: bool,
}

impl LockKey {
    /// The sleeping lock at this address.
    #[must_use]
    pub fn sleeping(addr: LockAddr) -> Self {
        Self { addr, spins: false }
    }

    /// The spinning lock at this address.
    #[must_use]
    pub fn spinning(addr: LockAddr) -> Self {
        Self { addr, spins: true }
    }
}

/// All locks.
#[derive(Debug, Default)]
pub struct Locks {
    entries: Arena<LockIx, LockEntry>,
    by_key: FxHashMap<LockKey, LockIx>,
}

impl Locks {
    /// The entry of a lock.
    #[must_use]
    pub fn get(&self, ix: LockIx) -> Option<&LockEntry> {
        self.entries.get(ix)
    }

    /// The entry of a lock.
    pub fn get_mut(&mut self, ix: LockIx) -> Option<&mut LockEntry> {
        self.entries.get_mut(ix)
    }

    /// The lock with this identity.
    #[must_use]
    pub fn find(&self, key: LockKey) -> Option<LockIx> {
        self.by_key.get(&key).copied()
    }

    /// The locks at this address: at most a sleeping and a spinning one, in this order.
    pub fn at(&self, addr: LockAddr) -> impl Iterator<Item = LockIx> + '_ {
        [LockKey::sleeping(addr), LockKey::spinning(addr)]
            .into_iter()
            .filter_map(|key| self.find(key))
    }

    /// All locks.
    pub fn iter(&self) -> impl Iterator<Item = (LockIx, &LockEntry)> {
        self.entries.iter()
    }

    /// Number of locks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Upper bound of the indices in use.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.entries.slots()
    }

    /// The lock of this kind at `addr`; creates it when it is new. A known kind is never replaced by [`LockKind::Unknown`], which
    /// stands for whatever lock is known at the address, and a ww_mutex stays one when a source that cannot tell calls it a mutex.
    pub fn resolve(&mut self, addr: LockAddr, kind: LockKind, time: Timestamp) -> LockIx {
        let Some(ix) = self.known(addr, kind) else {
            let entry = LockEntry::new(addr, kind, time);
            let key = entry.key();
            let ix = self.entries.insert(entry);
            self.by_key.insert(key, ix);
            return ix;
        };
        if let Some(entry) = self.entries.get_mut(ix) {
            let vaguer = kind == LockKind::Unknown
                || (kind == LockKind::Mutex && entry.kind == LockKind::WwMutex && !entry.waiters.is_empty());
            if entry.kind != kind && !vaguer && (time >= entry.last_seen || entry.kind == LockKind::Unknown) {
                if entry.waiters.is_empty() && entry.kind != LockKind::Unknown {
                    // The memory has become another lock.
                    entry.contention = None;
                }
                let (before, after) = (
                    entry.key(),
                    LockKey {
                        addr,
                        spins: kind.spins(),
                    },
                );
                entry.kind = kind;
                if before != after {
                    self.by_key.remove(&before);
                    self.by_key.insert(after, ix);
                }
            }
            entry.last_seen = entry.last_seen.max(time);
        }
        ix
    }

    /// The entry that `kind` at `addr` belongs to. One whose kind nobody has told yet may become either.
    fn known(&self, addr: LockAddr, kind: LockKind) -> Option<LockIx> {
        let sleeping = self.find(LockKey::sleeping(addr));
        if !kind.spins() && (sleeping.is_some() || kind != LockKind::Unknown) {
            return sleeping;
        }
        let unknown = |ix: &LockIx| self.get(*ix).is_some_and(|entry| entry.kind == LockKind::Unknown);
        self.find(LockKey::spinning(addr)).or_else(|| sleeping.filter(unknown))
    }

    /// Forgets a lock that nothing refers to.
    pub fn forget(&mut self, ix: LockIx) {
        if let Some(entry) = self.entries.remove(ix) {
            self.by_key.remove(&entry.key());
        }
    }
}
