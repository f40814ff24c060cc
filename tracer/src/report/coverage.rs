//! The coverage line: of the tasks that wait, how many are explained, and where the others are.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use crate::diagnosis::{Blocked, Finding, Graph, Name, phrase, stack_id};
use crate::event::{Dependency, TaskState};
use crate::ids::{StackId, Tid};
use crate::model::{ActorEntry, ActorIx, Model};

/// Of the tasks that wait, how many are explained by a finding or an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Tasks in uninterruptible sleep, or waiting for a lock or something else that is known.
    pub waiting: usize,
    /// Of them: held up by somebody known, asleep in block I/O, or named in a finding.
    pub explained: usize,
    /// The others, by stack, largest group first.
    pub groups: Vec<Unexplained>,
}

/// Waiting tasks that nothing explains, with the same stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unexplained {
    /// How many.
    pub count: usize,
    /// Call site.
    pub site: Option<String>,
    /// Their stack.
    #[serde(serialize_with = "stack_id")]
    pub stack: StackId,
    /// At most four of them.
    pub tasks: Vec<Name>,
}

impl Coverage {
    /// How many are not explained.
    #[must_use]
    pub fn unexplained(&self) -> usize {
        self.waiting - self.explained
    }

    pub(super) fn build(model: &Model, graph: &Graph, findings: &[Finding]) -> Self {
        let named: FxHashSet<Tid> = findings
            .iter()
            .flat_map(|f| f.tasks.iter().map(|t| t.name.tid))
            .collect();
        let mut coverage = Self::default();
        let mut groups: FxHashMap<StackId, Vec<ActorIx>> = FxHashMap::default();
        for (ix, actor) in model.actors().iter() {
            if actor.gone.is_some() || !waits(model, actor) {
                continue;
            }
            coverage.waiting += 1;
            let edge = match graph.blocked(model, ix) {
                Blocked::Lock(_, _, holder) => holder.is_some(),
                Blocked::Dependency(on) => on.is_some() || tells_why(actor),
                Blocked::Free => false,
            };
            let in_io = actor.waits.is_empty() && actor.state() == TaskState::InIo;
            if edge
                || in_io
                || actor.task().is_some_and(|key| named.contains(&key.tid))
                || in_lock_finding(model, actor, findings)
            {
                coverage.explained += 1;
            } else {
                groups.entry(phrase::site_stack(model, ix)).or_default().push(ix);
            }
        }
        coverage.groups = groups
            .into_iter()
            .map(|(stack, mut members)| {
                members.sort_unstable_by_key(|&ix| model.actors().get(ix).map(|a| a.id));
                Unexplained {
                    count: members.len(),
                    site: model.names().site(stack),
                    stack,
                    tasks: members.iter().take(4).map(|&ix| phrase::name(model, ix)).collect(),
                }
            })
            .collect();
        coverage
            .groups
            .sort_by_cached_key(|g| (Reverse(g.count), g.tasks.first().cloned()));
        coverage
    }
}

/// Whether what it waits for explains the wait although nobody is known who has to act. A completion, a flush or a wait queue
/// may be completed by anybody.
fn tells_why(actor: &ActorEntry) -> bool {
    let dependency = actor.dependency.as_ref().map(|d| d.dependency);
    matches!(
        dependency,
        Some(
            Dependency::BlockIo
                | Dependency::PageLock
                | Dependency::RcuGracePeriod
                | Dependency::Stop
                | Dependency::Ipi { .. }
        )
    )
}

fn waits(model: &Model, actor: &ActorEntry) -> bool {
    if !actor.waits.is_empty() || actor.dependency.is_some() {
        return true;
    }
    actor.sample.is_some_and(|s| {
        let recent = model.now().since(s.time) <= model.settings().sample_age;
        // A walk over all threads tells of everybody who sleeps like that: who was not among them has woken up, or is gone.
        let passed_over = model.last_scan().is_some_and(|scan| s.time < scan);
        recent && !passed_over && matches!(s.state, TaskState::Uninterruptible | TaskState::InIo)
    })
}

/// A finding names the lock it waits for, though no holder.
fn in_lock_finding(model: &Model, actor: &ActorEntry, findings: &[Finding]) -> bool {
    let lock = actor
        .innermost()
        .and_then(|w| model.waits().get(w))
        .and_then(|w| model.locks().get(w.lock));
    lock.is_some_and(|lock| {
        findings
            .iter()
            .any(|f| f.tasks.is_empty() && f.locks.iter().any(|l| l.key() == lock.key()))
    })
}
