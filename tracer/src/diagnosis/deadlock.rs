//! Rules `self-deadlock` and `cycle`: tasks that wait for themselves, directly or through others.

use rustc_hash::FxHashSet;

use super::finding::{Certainty, Finding, Kind, Severity, Source};
use super::graph::{Edge, Hold, Via};
use super::proof::Judgement;
use super::{Draft, Rule, View, acquired, links, phrase, proof, scc};
use crate::event::{Evidence, Mode};
use crate::model::{ActorIx, LockIx, Span};
use crate::view::units;

/// Finds every deadlock.
pub struct Deadlock;

impl Rule for Deadlock {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let mut seen = FxHashSet::default();
        for cycle in scc::cycles(&view.graph.edges(view.model)) {
            let cycle = canonical(view, cycle);
            if let Some(finding) = finding(view, &cycle)
                && seen.insert(finding.id.clone())
            {
                out.push(finding);
            }
        }
    }
}

/// The rotation that starts at the smallest actor, so that the same cycle is always told in the same way.
fn canonical(view: &View<'_>, mut cycle: Vec<Edge>) -> Vec<Edge> {
    let id = |edge: &Edge| view.model.actors().get(edge.from).map(|a| a.id);
    let first = (0..cycle.len()).min_by_key(|&i| cycle.get(i).map(id));
    cycle.rotate_left(first.unwrap_or(0));
    cycle
}

fn finding(view: &View<'_>, cycle: &[Edge]) -> Option<Finding> {
    let model = view.model;
    let Judgement { certainty, lines, span } = proof::judge(model, cycle)?;
    let members: Vec<ActorIx> = cycle.iter().map(|e| e.from).collect();
    let locks: Vec<LockIx> = cycle
        .iter()
        .filter_map(|e| {
            if let Via::Lock(_, lock, _) = e.via {
                Some(lock)
            } else {
                None
            }
        })
        .collect();
    let mut draft = Draft::new(
        view,
        if cycle.len() == 1 {
            Kind::SelfDeadlock
        } else {
            Kind::Cycle
        },
        &members,
        &locks,
    );
    draft.certainty(
        certainty,
        match certainty {
            Certainty::Proven => Severity::Critical,
            Certainty::Likely => Severity::Warning,
            Certainty::Possible => Severity::Info,
        },
    );
    let closed = cycle
        .iter()
        .filter_map(|e| proof::began(model, e))
        .max_by_key(|(since, _)| *since);
    if let Some((since, exact)) = closed {
        draft.since(
            since,
            exact
                && cycle
                    .iter()
                    .filter_map(|e| proof::began(model, e))
                    .all(|(_, exact)| exact),
        );
    }
    draft.title(title(view, cycle));
    draft.chain(cycle.iter().filter_map(|e| links::edge_link(model, e)).collect());
    let impact = view.graph.impact(model, &members, None);
    draft.victims(links::victims(model, view.graph, &impact));
    for edge in cycle {
        edge_evidence(view, edge, &mut draft);
    }
    if certainty == Certainty::Proven
        && let Some(span) = span
    {
        draft.evidence(Source::TaskSamples, unchanged(cycle, span));
    }
    draft.lines(lines);
    advice(view, cycle, certainty, &mut draft);
    Some(draft.finish())
}

/// `holds <lock>`, as far as it is known.
fn held(hold: Hold, lock: &str) -> String {
    match (hold, proof::hold_mode(hold)) {
        (Hold::Owner | Hold::Acquired | Hold::Handed, _) => format!("holds {lock}"),
        (Hold::Candidate(Evidence::Acquisition, _), Mode::Shared) => format!("holds {lock} for reading"),
        (Hold::Candidate(Evidence::Acquisition, _), Mode::Exclusive) => format!("holds {lock}"),
        (_, Mode::Shared) => format!("seems to hold {lock} for reading"),
        (_, Mode::Exclusive) => format!("seems to hold {lock}"),
    }
}

fn title(view: &View<'_>, cycle: &[Edge]) -> String {
    let model = view.model;
    if let [edge] = cycle {
        let who = phrase::actor(model, edge.from);
        let at = phrase::at(model, edge.from);
        return match edge.via {
            Via::Lock(wait, lock, hold) => {
                let lock = phrase::lock_ref(model, lock);
                let shared = proof::hold_mode(hold) == Mode::Shared;
                let wanted = match model.waits().get(wait).map(|w| w.mode) {
                    Some(Mode::Shared) => format!("waits for {lock} for reading,"),
                    _ if shared => format!("waits for {lock} for writing,"),
                    _ => format!("waits for {lock}"),
                };
                let has = match (hold, shared) {
                    (Hold::Candidate(Evidence::Acquisition, _), true) => "which it holds for reading itself",
                    (Hold::Owner | Hold::Acquired | Hold::Handed, _)
                    | (Hold::Candidate(Evidence::Acquisition, _), false) => "that it holds itself",
                    (_, true) => "which it seems to hold for reading itself",
                    (_, false) => "which it seems to hold itself",
                };
                format!("{who} {wanted} {has}{at}")
            }
            Via::Dependency => format!("{who} waits for itself{at}"),
        };
    }
    let names: Vec<String> = cycle.iter().map(|e| phrase::actor(model, e.from)).collect();
    let what: Vec<String> = cycle
        .iter()
        .filter_map(|e| match e.via {
            Via::Lock(_, lock, _) => Some(phrase::lock_ref(model, lock).to_string()),
            Via::Dependency => {
                let depends = model.actors().get(e.from)?.dependency.as_deref()?;
                Some(phrase::dependency(model, depends))
            }
        })
        .collect();
    match names.as_slice() {
        [a, b] => format!("{a} and {b} wait for each other: {}", what.join(" and ")),
        _ => format!(
            "{} tasks wait for each other in a circle: {}",
            names.len(),
            names.join(" -> ")
        ),
    }
}

fn edge_evidence(view: &View<'_>, edge: &Edge, draft: &mut Draft<'_, '_>) {
    let model = view.model;
    let who = phrase::actor(model, edge.from);
    match edge.via {
        Via::Lock(wait, lock, hold) => {
            let (Some(wait), Some(lock)) = (model.waits().get(wait), model.locks().get(lock)) else {
                return;
            };
            let name = phrase::lock(model, lock.addr, lock.kind);
            let source = Source::Kernel(wait.validated_by.unwrap_or(wait.evidence));
            let place = match wait.queued {
                crate::event::Queued::At(n) => format!(", number {} in its queue", n + 1),
                _ => String::new(),
            };
            let at = phrase::at(model, edge.from);
            draft.evidence(source, format!("{who} waits for {name}{place}{at}"));
            if let (Hold::Owner, Some(owner)) = (hold, lock.read_owner()) {
                let holder = phrase::actor(model, edge.to);
                let times = if owner.reads == 1 {
                    "read once".to_owned()
                } else {
                    format!("read {} times", owner.reads)
                };
                draft.evidence(
                    Source::OwnerWord,
                    format!("owner word of {name} is {:#x}: {holder}, {times}", owner.value.word),
                );
                draft.lines(acquired::line(model, lock, edge.to).into_iter().collect());
            } else if let Some(line) = acquired::line(model, lock, edge.to) {
                draft.lines(vec![line]);
            } else if let Some(evidence) = proof::hold_evidence(model, lock_ix(edge), hold) {
                let holder = phrase::actor(model, edge.to);
                draft.evidence(
                    Source::Kernel(evidence),
                    format!("{holder} {}: {}", held(hold, &name), phrase::evidence(evidence)),
                );
            }
        }
        Via::Dependency => {
            let Some(depends) = model.actors().get(edge.from).and_then(|a| a.dependency.as_deref()) else {
                return;
            };
            let what = phrase::dependency(model, depends);
            let on = phrase::actor(model, edge.to);
            draft.evidence(
                Source::Kernel(depends.evidence),
                format!("{who} waits for {what} by {on}{}", phrase::at(model, edge.from)),
            );
        }
    }
}

fn lock_ix(edge: &Edge) -> LockIx {
    match edge.via {
        Via::Lock(_, lock, _) => lock,
        Via::Dependency => crate::model::Index::from_slot(u32::MAX),
    }
}

fn unchanged(cycle: &[Edge], span: Span) -> String {
    let who = if cycle.len() == 1 {
        "it has not"
    } else {
        "none of them has"
    };
    let recorded = |edge: &Edge| !matches!(edge.via, Via::Lock(_, _, Hold::Candidate(..)));
    let owners = if cycle.iter().all(recorded) {
        "no owner word has changed"
    } else {
        "no owner has changed"
    };
    format!(
        "{who} run, and {owners}, over {} between two reads",
        units::duration(span.length())
    )
}

fn advice(view: &View<'_>, cycle: &[Edge], certainty: Certainty, draft: &mut Draft<'_, '_>) {
    if certainty != Certainty::Proven {
        draft
            .next("Look again after a second: it is proven once it was read unchanged, and it closes if it dissolves.");
    }
    if let [edge] = cycle {
        let at = phrase::site(view.model, edge.from)
            .1
            .map_or_else(String::new, |site| format!(" around {site}"));
        draft.next(&format!(
            "Read the code path{at}: the lock is taken a second time before it is released."
        ));
    } else {
        draft.next(
            "Compare the stacks of the tasks: the locks are taken in different orders; choose one order for all paths.",
        );
    }
    if certainty == Certainty::Proven {
        draft.next("It will not end by itself: capture a dump if one is needed, then restart the machine.");
    }
}
