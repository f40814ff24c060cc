//! Who is held up, directly or through others, in numbers.

use rustc_hash::FxHashSet;

use super::graph::Graph;
use crate::event::Dependency;
use crate::ids::{CgroupId, Nanos, Timestamp};
use crate::model::{ActorIx, LockIx, Model};

/// Everybody held up, in numbers.
#[derive(Debug, Default)]
pub struct Impact {
    /// How many.
    pub count: usize,
    /// Summed wait so far.
    pub total: Nanos,
    /// Begin of the longest wait.
    pub earliest: Option<Timestamp>,
    /// The longest wait as it was last *seen* to last: what began and was never looked at again may be long over.
    pub lasted: Nanos,
    /// The same of the waits that keep a CPU busy: on a spinning lock, or for another CPU's answer.
    pub spun: Nanos,
    /// cgroups, sorted, without the unknown one.
    pub cgroups: Vec<CgroupId>,
    /// The longest waiting with the begin of their wait, longest first.
    pub victims: Vec<(Timestamp, ActorIx)>,
    /// The one with most others between it and the members.
    pub deepest: Option<ActorIx>,
    seen_cgroups: FxHashSet<CgroupId>,
}

impl Impact {
    fn add(&mut self, now: Timestamp, who: ActorIx, held_up: &HeldUp) {
        let &HeldUp {
            since,
            seen,
            cgroup,
            spins,
        } = held_up;
        self.count += 1;
        self.total += now.since(since);
        self.lasted = self.lasted.max(seen.since(since));
        if spins {
            self.spun = self.spun.max(seen.since(since));
        }
        self.earliest = Some(self.earliest.map_or(since, |e| e.min(since)));
        if cgroup.0 != 0 {
            self.seen_cgroups.insert(cgroup);
        }
        self.victims.push((since, who));
    }

    /// Keeps the `n` longest waiting victims, longest first.
    fn finish(&mut self, n: usize) {
        self.cgroups = self.seen_cgroups.drain().collect();
        self.cgroups.sort_unstable();
        if n < self.victims.len() {
            if n > 0 {
                self.victims.select_nth_unstable(n - 1);
            }
            self.victims.truncate(n);
        }
        self.victims.sort_unstable();
    }
}

/// How somebody is held up.
struct HeldUp {
    since: Timestamp,
    /// When that was last seen.
    seen: Timestamp,
    cgroup: CgroupId,
    /// On its CPU, which can do nothing else.
    spins: bool,
}

impl Graph {
    /// Everybody held up behind `members` (or behind the lock), the members themselves left out.
    #[must_use]
    pub fn impact(&self, model: &Model, members: &[ActorIx], lock: Option<LockIx>) -> Impact {
        let mut search = Search {
            graph: self,
            model,
            impact: Impact::default(),
            reached: members.iter().copied().collect(),
            leaves: members.iter().copied().filter(|&m| !self.is_blocker(m)).collect(),
            todo: members.iter().map(|&m| (m, 0)).collect(),
            deepest: 0,
        };
        if let Some(lock) = lock {
            search.waiters(lock, 0);
        }
        while let Some((actor, depth)) = search.todo.pop() {
            for &lock in self.held_by(actor) {
                search.waiters(lock, depth);
            }
            for &waiter in self.depending_on(actor) {
                let Some(entry) = model.actors().get(waiter) else {
                    continue;
                };
                let Some(depends) = entry.dependency.as_deref() else {
                    continue;
                };
                let held_up = HeldUp {
                    since: entry.depends_since().map_or(depends.seen.first, |(since, _)| since),
                    seen: depends.seen.last,
                    cgroup: entry.sample.map_or(CgroupId(0), |s| s.cgroup),
                    spins: matches!(depends.dependency, Dependency::Ipi { .. }),
                };
                search.reach(waiter, &held_up, depth + 1);
            }
        }
        search.impact.finish(model.settings().max_victims_listed.max(1));
        search.impact
    }
}

/// A walk from holders to everybody behind them.
struct Search<'a> {
    graph: &'a Graph,
    model: &'a Model,
    impact: Impact,
    /// Members and blockers that were reached. Others wait once and are reached once.
    reached: FxHashSet<ActorIx>,
    /// Members that hold nobody up.
    leaves: Vec<ActorIx>,
    todo: Vec<(ActorIx, u32)>,
    deepest: u32,
}

impl Search<'_> {
    fn waiters(&mut self, lock: LockIx, depth: u32) {
        let Some(entry) = self.model.locks().get(lock) else {
            return;
        };
        for &ix in &entry.waiters {
            let Some(wait) = self.model.waits().get(ix).filter(|w| w.innermost) else {
                continue;
            };
            let cgroup = self
                .model
                .actors()
                .get(wait.waiter)
                .and_then(|a| a.sample)
                .map_or(CgroupId(0), |s| s.cgroup);
            let held_up = HeldUp {
                since: self.model.wait_since(wait).0,
                seen: wait.seen.last,
                cgroup,
                spins: entry.kind.spins(),
            };
            self.reach(wait.waiter, &held_up, depth + 1);
        }
    }

    fn reach(&mut self, who: ActorIx, held_up: &HeldUp, depth: u32) {
        if self.graph.is_blocker(who) {
            if !self.reached.insert(who) {
                return;
            }
            self.todo.push((who, depth));
        } else if self.leaves.contains(&who) {
            return;
        }
        self.impact.add(self.model.now(), who, held_up);
        if depth > self.deepest {
            self.deepest = depth;
            self.impact.deepest = Some(who);
        }
    }
}
