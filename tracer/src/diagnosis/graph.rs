//! The wait-for graph at one instant: who is held up by whom.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::event::{Evidence, Mode};
use crate::model::{ActorIx, Held, Index, LockEntry, LockIx, Model, WaitIx};

/// Why somebody is taken for the holder of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The owner word, as read, names it.
    Owner,
    /// An event newer than the last read of the owner word shows that it took the lock.
    Acquired,
    /// The lock has been handed to it.
    Handed,
    /// Other evidence; see the candidate.
    Candidate(Evidence, Mode),
    /// The last-reader hint names it.
    Hint,
}

/// A holder, sure or supposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub actor: ActorIx,
    /// Why.
    pub hold: Hold,
}

/// What an edge runs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// This wait for a lock, held in this way.
    Lock(WaitIx, LockIx, Hold),
    /// The waiter's dependency.
    Dependency,
}

/// `from` cannot go on before `to` acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who waits.
    pub from: ActorIx,
    /// Who has to act.
    pub to: ActorIx,
    /// Through what.
    pub via: Via,
}

/// What holds an actor up at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Nothing that is known.
    Free,
    /// A lock, with its most probable holder.
    Lock(WaitIx, LockIx, Option<Holder>),
    /// A dependency, with the actor that has to act.
    Dependency(Option<ActorIx>),
}

/// The end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// An actor that waits for nobody known.
    Actor(ActorIx),
    /// A lock of which no holder is known.
    Lock(LockIx),
    /// The chain runs into a cycle, which has its own finding.
    Cycle,
}

/// Index of the contended locks and their holders.
#[derive(Debug, Default)]
pub struct Graph {
    holders: FxHashMap<LockIx, Vec<Holder>>,
    primary: FxHashMap<LockIx, Holder>,
    held_by: FxHashMap<ActorIx, Vec<LockIx>>,
    depending_on: FxHashMap<ActorIx, Vec<ActorIx>>,
    blockers: Vec<ActorIx>,
    is_blocker: Vec<bool>,
}

fn is_there(model: &Model, actor: ActorIx) -> bool {
    model.actors().get(actor).is_some_and(|a| a.gone.is_none())
}

/// Known and supposed holders of a contended lock, best first.
fn holders(model: &Model, lock: &LockEntry) -> Vec<Holder> {
    let held = lock.held();
    match held {
        Held::By(actor) => {
            let hold = if lock.read_owner().is_some() {
                Hold::Owner
            } else {
                Hold::Acquired
            };
            return vec![Holder { actor, hold }];
        }
        Held::HandedTo(actor) => {
            return vec![Holder {
                actor,
                hold: Hold::Handed,
            }];
        }
        Held::Unreadable(_) | Held::Nobody => return Vec::new(),
        Held::Readers { .. } | Held::NotRecorded => {}
    }
    let mut all: Vec<Holder> = Vec::new();
    let mut add = |actor: ActorIx, hold: Hold| {
        if all.iter().all(|h| h.actor != actor) {
            all.push(Holder { actor, hold });
        }
    };
    // The source has ranked them, the hint among the others.
    for candidate in &lock.candidates {
        if candidate.evidence != Evidence::OwnerHint {
            add(candidate.holder, Hold::Candidate(candidate.evidence, candidate.mode));
        } else if is_there(model, candidate.holder) {
            add(candidate.holder, Hold::Hint);
        }
    }
    if let Held::Readers { hint: Some(hint), .. } = held
        && is_there(model, hint)
    {
        add(hint, Hold::Hint);
    }
    // Who waits for the lock itself is the worst candidate.
    if all.len() > 1 {
        all.sort_by_cached_key(|h| waits_for(model, h.actor, lock));
    }
    all
}

fn waits_for(model: &Model, actor: ActorIx, lock: &LockEntry) -> bool {
    let waits = model.actors().get(actor).map_or(&[][..], |a| &a.waits);
    waits.iter().any(|w| lock.waiters.contains(w))
}

impl Graph {
    /// Indexes the model.
    #[must_use]
    pub fn build(model: &Model) -> Self {
        let mut graph = Self::default();
        let mut blockers = FxHashSet::default();
        for (ix, lock) in model.locks().iter() {
            if lock.waiters.is_empty() {
                continue;
            }
            let holders = holders(model, lock);
            blockers.extend(holders.iter().map(|h| h.actor));
            // A stale hint at somebody who now waits for the same lock explains nothing.
            let stale = |h: &Holder| h.hold == Hold::Hint && waits_for(model, h.actor, lock);
            if let Some(&first) = holders.first().filter(|h| !stale(h)) {
                graph.held_by.entry(first.actor).or_default().push(ix);
                graph.primary.insert(ix, first);
            }
            graph.holders.insert(ix, holders);
        }
        for (ix, actor) in model.depending() {
            let on = actor.dependency.as_ref().and_then(|d| d.on);
            if let Some(on) = on.filter(|_| actor.waits.is_empty()) {
                graph.depending_on.entry(on).or_default().push(ix);
                blockers.insert(on);
            }
        }
        graph.blockers = blockers.into_iter().collect();
        graph.blockers.sort_unstable();
        graph.is_blocker = vec![false; model.actors().slots()];
        for blocker in &graph.blockers {
            if let Some(cell) = graph.is_blocker.get_mut(blocker.slot()) {
                *cell = true;
            }
        }
        graph
    }

    /// Everybody who holds a contended lock or is depended upon, surely or supposedly.
    #[must_use]
    pub fn blockers(&self) -> &[ActorIx] {
        &self.blockers
    }

    /// Whether this actor is one of the blockers.
    #[must_use]
    pub fn is_blocker(&self, actor: ActorIx) -> bool {
        self.is_blocker.get(actor.slot()).copied().unwrap_or(false)
    }

    /// The contended locks, in no order.
    pub fn contended(&self) -> impl Iterator<Item = LockIx> + '_ {
        self.holders.keys().copied()
    }

    /// Holders of a contended lock, best first.
    #[must_use]
    pub fn holders(&self, lock: LockIx) -> &[Holder] {
        self.holders.get(&lock).map_or(&[], Vec::as_slice)
    }

    /// The most probable holder of a contended lock.
    #[must_use]
    pub fn primary(&self, lock: LockIx) -> Option<Holder> {
        self.primary.get(&lock).copied()
    }

    /// The contended locks of which this actor is the most probable holder.
    #[must_use]
    pub fn held_by(&self, actor: ActorIx) -> &[LockIx] {
        self.held_by.get(&actor).map_or(&[], Vec::as_slice)
    }

    /// Who waits for the contended locks of which this actor is the most probable holder.
    #[must_use]
    pub fn waiting_behind(&self, model: &Model, actor: ActorIx) -> Vec<ActorIx> {
        let locks = self.held_by(actor).iter().filter_map(|&l| model.locks().get(l));
        let waits = locks.flat_map(|l| &l.waiters).filter_map(|&w| model.waits().get(w));
        waits.map(|w| w.waiter).collect()
    }

    /// Who depends on this actor other than through a lock.
    #[must_use]
    pub fn depending_on(&self, actor: ActorIx) -> &[ActorIx] {
        self.depending_on.get(&actor).map_or(&[], Vec::as_slice)
    }

    /// What holds `actor` up: its innermost wait, or else its dependency.
    #[must_use]
    pub fn blocked(&self, model: &Model, actor: ActorIx) -> Blocked {
        let Some(entry) = model.actors().get(actor) else {
            return Blocked::Free;
        };
        if let Some(ix) = entry.innermost()
            && let Some(wait) = model.waits().get(ix)
        {
            return match self.primary(wait.lock) {
                // Handed to it: it only has to wake up.
                Some(h) if h.hold == Hold::Handed && h.actor == actor => Blocked::Free,
                holder => Blocked::Lock(ix, wait.lock, holder),
            };
        }
        match &entry.dependency {
            Some(dependency) => Blocked::Dependency(dependency.on),
            None => Blocked::Free,
        }
    }

    /// The end of the chain that starts at `actor`.
    #[must_use]
    pub fn root(&self, model: &Model, actor: ActorIx, known: &mut FxHashMap<ActorIx, Root>) -> Root {
        let mut path = Vec::new();
        let mut on_path = FxHashSet::default();
        let mut at = actor;
        let root = loop {
            if let Some(&root) = known.get(&at) {
                break root;
            }
            if !on_path.insert(at) {
                break Root::Cycle;
            }
            path.push(at);
            match self.blocked(model, at) {
                Blocked::Lock(_, _, Some(holder)) => at = holder.actor,
                Blocked::Lock(_, lock, None) => break Root::Lock(lock),
                Blocked::Dependency(Some(on)) => at = on,
                Blocked::Dependency(None) | Blocked::Free => break Root::Actor(at),
            }
        };
        known.extend(path.into_iter().map(|a| (a, root)));
        root
    }

    /// All ends of chains, each once.
    #[must_use]
    pub fn roots(&self, model: &Model) -> Vec<Root> {
        let mut known = FxHashMap::default();
        let mut roots: Vec<Root> = self.blockers.iter().map(|&b| self.root(model, b, &mut known)).collect();
        let without_holder = self
            .holders
            .keys()
            .filter(|l| !self.primary.contains_key(l))
            .map(|&l| Root::Lock(l));
        roots.extend(without_holder);
        roots.sort_unstable();
        roots.dedup();
        roots.retain(|r| *r != Root::Cycle);
        roots
    }

    /// The cycles of the graph of most probable holders, each from its smallest actor on.
    #[must_use]
    pub fn cycles(&self, model: &Model) -> Vec<Vec<ActorIx>> {
        let mut done = FxHashSet::default();
        let mut cycles = Vec::new();
        for &start in &self.blockers {
            let mut path = Vec::new();
            let mut place = FxHashMap::default();
            let mut at = start;
            while done.insert(at) {
                place.insert(at, path.len());
                path.push(at);
                at = match self.blocked(model, at) {
                    Blocked::Lock(_, _, Some(holder)) => holder.actor,
                    Blocked::Dependency(Some(on)) => on,
                    _ => break,
                };
                if let Some(&first) = place.get(&at) {
                    let mut cycle = path.split_off(first);
                    let id = |&a: &ActorIx| model.actors().get(a).map(|a| a.id);
                    let smallest = (0..cycle.len()).min_by_key(|&i| cycle.get(i).and_then(id));
                    cycle.rotate_left(smallest.unwrap_or(0));
                    cycles.push(cycle);
                    break;
                }
            }
        }
        cycles
    }

    /// All edges that may be part of a cycle: those between blockers, through every supposed holder.
    #[must_use]
    pub fn edges(&self, model: &Model) -> Vec<Edge> {
        let mut edges = Vec::new();
        for &from in &self.blockers {
            let Some(actor) = model.actors().get(from) else {
                continue;
            };
            for &ix in &actor.waits {
                let Some(wait) = model.waits().get(ix) else { continue };
                if wait.absent {
                    continue;
                }
                let holders = self.holders(wait.lock).iter().filter(|h| h.hold != Hold::Handed);
                edges.extend(holders.map(|h| Edge {
                    from,
                    to: h.actor,
                    via: Via::Lock(ix, wait.lock, h.hold),
                }));
            }
            if let Some(on) = actor
                .dependency
                .as_ref()
                .filter(|_| actor.waits.is_empty())
                .and_then(|d| d.on)
            {
                edges.push(Edge {
                    from,
                    to: on,
                    via: Via::Dependency,
                });
            }
        }
        edges
    }

    /// The chain from `actor` to its root, as far as it goes without a repetition.
    #[must_use]
    pub fn chain(&self, model: &Model, actor: ActorIx) -> Vec<ActorIx> {
        let mut chain = vec![actor];
        let mut at = actor;
        loop {
            let next = match self.blocked(model, at) {
                Blocked::Lock(_, _, Some(holder)) => holder.actor,
                Blocked::Dependency(Some(on)) => on,
                _ => return chain,
            };
            if chain.contains(&next) {
                return chain;
            }
            chain.push(next);
            at = next;
        }
    }
}
