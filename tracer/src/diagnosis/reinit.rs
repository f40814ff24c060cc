//! Rule `reinit-in-use`: somebody initialised a lock again while others held it or waited for it.

use super::finding::{Certainty, Finding, Kind, Severity, Source};
use super::{Draft, Rule, View, links, phrase};
use crate::event::{Dependency, Evidence, LockKind, Owner};
use crate::model::{ActorIx, LockIx, Model, ReinitSeen};
use crate::view::units;

/// Finds locks that were initialised again.
pub struct ReinitInUse;

impl Rule for ReinitInUse {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        out.extend(view.model.reinits().iter().filter_map(|seen| finding(view, seen)));
    }
}

fn finding(view: &View<'_>, seen: &ReinitSeen) -> Option<Finding> {
    let model = view.model;
    let event = &seen.event;
    // Only what the lock itself said counts: a wait that the model still knows may have ended unseen.
    let waiters = event.waiters as usize;
    let owner = match &event.owner {
        Owner::Task(task) => Some(format!("{} ({}) held it", task.comm, task.key.tid)),
        Owner::Readers { count: Some(0), .. } | Owner::Nobody | Owner::NotRecorded => None,
        Owner::Readers { .. } => Some("readers held it".to_owned()),
        Owner::Unreadable(addr) => Some(format!("its owner word named {addr}")),
    };
    let waited = format!("{} waited for it", units::count(waiters, "task"));
    let use_text = match (waiters, owner) {
        (0, None) => return None,
        (0, Some(owner)) => owner,
        (_, None) => waited,
        (_, Some(owner)) => format!("{owner} and {waited}"),
    };
    let actor = model.actors().find(event.task.key);
    let locks: Vec<LockIx> = model.locks().at(event.lock).take(1).collect();
    let mut draft = Draft::new(view, Kind::ReinitInUse, actor.as_slice(), &locks);
    // Waits that were told of only later had begun by then, too.
    let known = seen.known_waiters.max(waiting_then(model, &locks, seen));
    // That others wait is known from elsewhere, or only from the memory that is about to be overwritten.
    let certainty = if waiters > 0 && known > 0 {
        Certainty::Proven
    } else {
        Certainty::Likely
    };
    draft.id_of(&actor, event.lock);
    draft.certainty(
        certainty,
        if waiters > 0 {
            Severity::Critical
        } else {
            Severity::Warning
        },
    );
    draft.since(seen.time, true);
    let who = format!("{} ({})", event.task.comm, event.task.key.tid);
    let name = match (event.kind, seen.awaited) {
        (LockKind::Unknown, Some(Dependency::Completion { completion })) => {
            phrase::object(model, "completion", completion)
        }
        (LockKind::Unknown, Some(Dependency::WaitQueueHead { queue })) => phrase::object(model, "wait queue", queue),
        (LockKind::Unknown, _) => format!("the completion or wait queue {}", event.lock),
        (kind, _) => phrase::lock(model, event.lock, kind),
    };
    let at = model
        .names()
        .site(event.stack)
        .map_or_else(String::new, |site| format!("; at {site}"));
    draft.title(format!("{who} initialised {name} again while {use_text}{at}"));
    let text = format!("{who} initialised {name} at {}; {use_text}", units::instant(seen.time));
    draft.evidence(Source::Kernel(Evidence::Kprobe), text);
    if known > 0 {
        let text = format!(
            "{} for it pending at that time by other evidence",
            units::count(known, "wait")
        );
        draft.evidence(Source::Kernel(Evidence::Reread), text);
    } else {
        draft.evidence(Source::Missing, "no wait for it was known by other evidence".to_owned());
    }
    let members = lost(model, seen);
    if let Some(&lock) = locks.first() {
        let impact = view.graph.impact(model, &[], Some(lock));
        draft.victims(links::victims(model, view.graph, &impact));
    } else if !members.is_empty() {
        draft.chain(links::chain(model, view.graph, &members));
        let impact = view.graph.impact(model, &members, None);
        draft.victims(links::victims(model, view.graph, &impact));
    }
    draft.next(
        "Find out why it is initialised a second time: a reused object, or an initialisation after its first use.",
    );
    Some(draft.finish())
}

/// Waits for the lock that had begun when it was initialised, and still last.
fn waiting_then(model: &Model, locks: &[LockIx], seen: &ReinitSeen) -> usize {
    let waits = locks.iter().filter_map(|&lock| model.locks().get(lock));
    waits
        .flat_map(|lock| &lock.waiters)
        .filter_map(|&wait| model.waits().get(wait))
        .filter(|wait| wait.since.is_some_and(|since| since <= seen.time))
        .count()
}

/// Who waits for the completion or the wait queue that was initialised again.
fn lost(model: &Model, seen: &ReinitSeen) -> Vec<ActorIx> {
    let waits = |dependency: Dependency| dependency.object().is_some_and(|addr| addr.0 == seen.event.lock.0);
    model
        .depending()
        .filter(|(_, actor)| actor.dependency.as_deref().is_some_and(|d| waits(d.dependency)))
        .map(|(ix, _)| ix)
        .collect()
}
