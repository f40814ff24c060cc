//! Chains and victims, put into the words of a finding.

use super::finding::{Link, On, Victim, Victims};
use super::graph::{Blocked, Edge, Graph, Hold, Via};
use super::impact::Impact;
use super::{phrase, proof};
use crate::ids::CgroupId;
use crate::model::{ActorIx, LockIx, Model, WaitIx};

fn lock_link(
    model: &Model,
    waiter: ActorIx,
    wait: WaitIx,
    lock: LockIx,
    holder: Option<(ActorIx, Hold)>,
) -> Option<Link> {
    let wait = model.waits().get(wait)?;
    let (since, exact) = model.wait_since(wait);
    Some(Link {
        waiter: phrase::name(model, waiter),
        on: On::Lock {
            lock: phrase::lock_ref(model, lock),
            mode: wait.mode,
        },
        waited: model.now().since(since),
        waited_is_lower_bound: !exact,
        holder: holder.map(|(actor, _)| phrase::name(model, actor)),
        holder_evidence: holder.and_then(|(_, hold)| proof::hold_evidence(model, lock, hold)),
    })
}

fn dependency_link(model: &Model, waiter: ActorIx, on: Option<ActorIx>) -> Option<Link> {
    let actor = model.actors().get(waiter)?;
    let depends = actor.dependency.as_deref()?;
    let (since, exact) = actor.depends_since()?;
    Some(Link {
        waiter: phrase::name(model, waiter),
        on: On::Dependency {
            dependency: phrase::dependency_kind(depends.dependency),
            text: phrase::dependency(model, depends),
        },
        waited: model.now().since(since),
        waited_is_lower_bound: !exact,
        holder: on.map(|on| phrase::name(model, on)),
        holder_evidence: on.map(|_| depends.evidence),
    })
}

/// What holds `actor` up at present, as a link.
#[must_use]
pub fn link(model: &Model, graph: &Graph, actor: ActorIx) -> Option<Link> {
    match graph.blocked(model, actor) {
        Blocked::Free => None,
        Blocked::Lock(wait, lock, holder) => lock_link(model, actor, wait, lock, holder.map(|h| (h.actor, h.hold))),
        Blocked::Dependency(on) => dependency_link(model, actor, on),
    }
}

/// An edge of a cycle as a link.
#[must_use]
pub fn edge_link(model: &Model, edge: &Edge) -> Option<Link> {
    match edge.via {
        Via::Lock(wait, lock, hold) => lock_link(model, edge.from, wait, lock, Some((edge.to, hold))),
        Via::Dependency => dependency_link(model, edge.from, Some(edge.to)),
    }
}

/// The chain of `actors`, each held up by the next, and what holds up the last.
#[must_use]
pub fn chain(model: &Model, graph: &Graph, actors: &[ActorIx]) -> Vec<Link> {
    actors.iter().filter_map(|&actor| link(model, graph, actor)).collect()
}

/// The victims of a finding, the longest waiting by name.
#[must_use]
pub fn victims(model: &Model, graph: &Graph, impact: &Impact) -> Victims {
    let tasks = impact
        .victims
        .iter()
        .take(model.settings().max_victims_listed)
        .filter_map(|&(_, actor)| {
            let (stack, site) = phrase::site(model, actor);
            Some(Victim {
                link: link(model, graph, actor)?,
                cgroup: model
                    .actors()
                    .get(actor)
                    .and_then(|a| a.sample)
                    .map_or(CgroupId(0), |s| s.cgroup),
                site,
                stack,
            })
        })
        .collect();
    Victims {
        count: impact.count,
        total_wait: impact.total,
        longest_wait: impact.earliest.map(|e| model.now().since(e)).unwrap_or_default(),
        cgroups: impact.cgroups.clone(),
        tasks,
    }
}
