//! Rule `orphaned-lock`: a lock with waiters, but nobody who could release it.

use super::finding::{Certainty, EvidenceLine, Finding, Kind, Severity, Source};
use super::{Draft, Rule, View, links, phrase, proof};
use crate::event::{LockKind, Queued, TaskState};
use crate::model::{ActorIx, Held, LockEntry, LockIx, Model, Span, Wait, is_asleep};
use crate::view::units;

/// Finds locks whose owner has exited, cannot be read, or is nobody.
pub struct Orphan;

impl Rule for Orphan {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let contended = view.model.locks().iter().filter(|(_, l)| !l.waiters.is_empty());
        out.extend(contended.filter_map(|(ix, lock)| finding(view, ix, lock)));
    }
}

/// What is wrong with the owner.
struct Orphaned {
    /// The owner that has exited.
    owner: Option<ActorIx>,
    /// In words that follow the name of the lock.
    what: String,
    /// Span over which it was read unchanged.
    span: Span,
    /// The waiters are known to be on its wait list.
    found: bool,
}

fn finding(view: &View<'_>, ix: LockIx, lock: &LockEntry) -> Option<Finding> {
    let model = view.model;
    let orphaned = orphaned(model, lock)?;
    let settings = model.settings();
    if orphaned.span.length() < settings.likely_interval {
        return None;
    }
    let (lost, touched) = match model.losses().touching(orphaned.span, proof::TOUCHES_REREADS) {
        Some((cause, total)) => (Some((cause, total)), true),
        None => (None, false),
    };
    let proven = orphaned.span.length() >= settings.proof_interval && orphaned.found && !touched;
    let members: Vec<ActorIx> = orphaned.owner.into_iter().collect();
    let mut draft = Draft::new(view, Kind::OrphanedLock, &members, &[ix]);
    draft.id(&[], &[ix]);
    if proven {
        draft.certainty(Certainty::Proven, Severity::Critical);
    } else {
        draft.certainty(Certainty::Likely, Severity::Warning);
    }
    // What the owner held is reached from the owner.
    let impact = view.graph.impact(model, &members, members.is_empty().then_some(ix));
    let oldest = lock
        .waiters
        .iter()
        .filter_map(|&w| model.waits().get(w))
        .map(|w| model.wait_since(w))
        .min();
    if let Some((since, exact)) = oldest {
        draft.since(since, exact);
    }
    let name = phrase::lock_ref(model, ix);
    let tasks = if impact.count == 1 {
        "1 task waits".to_owned()
    } else {
        format!("{} tasks wait", impact.count)
    };
    draft.title(format!("{tasks} for {name}, {}", orphaned.what));
    let chain = impact
        .deepest
        .map_or_else(Vec::new, |deepest| view.graph.chain(model, deepest));
    draft.chain(links::chain(model, view.graph, &chain));
    draft.victims(links::victims(model, view.graph, &impact));
    if let Some(read) = lock.read_owner() {
        let text = format!(
            "owner word of {name} is {:#x}, read {} over {}",
            read.value.word,
            if read.reads == 1 {
                "once".to_owned()
            } else {
                format!("{} times", read.reads)
            },
            units::duration(read.span.length())
        );
        draft.evidence(Source::OwnerWord, text);
    }
    if let Some(owner) = orphaned.owner {
        draft.evidence(
            Source::TaskSamples,
            format!("{} has exited", phrase::actor(model, owner)),
        );
    }
    let queue = model.queue(lock);
    if let Some(first) = queue.first().and_then(|&w| model.waits().get(w)) {
        let who = phrase::actor(model, first.waiter);
        let text = format!(
            "{who} waits longest or first, for {}",
            units::duration(model.waited(first))
        );
        draft.evidence(Source::Kernel(first.validated_by.unwrap_or(first.evidence)), text);
    }
    if let Some((cause, total)) = lost {
        let text = format!("{total} {} so far, some while this was read", phrase::loss(cause));
        draft.lines(vec![EvidenceLine {
            source: Source::Loss(cause),
            text,
        }]);
    } else if !proven {
        let text = if orphaned.found {
            "not yet read unchanged over the whole proof interval"
        } else {
            "no waiter was looked for on its wait list"
        };
        draft.evidence(Source::Missing, text.to_owned());
    }
    draft.next("Find the path that returns or exits without releasing the lock, or a wake-up that was lost.");
    Some(draft.finish())
}

fn orphaned(model: &Model, lock: &LockEntry) -> Option<Orphaned> {
    let read = lock.read_owner()?;
    let found = lock
        .waiters
        .iter()
        .filter_map(|&w| model.waits().get(w))
        .any(|w| w.validated_by.is_some());
    match read.value.held {
        Held::By(owner) => {
            let actor = model.actors().get(owner).filter(|a| a.state() == TaskState::Exited)?;
            // A task that is exiting still takes locks: only what was read after it had exited counts.
            let exited = actor.gone.or(actor.sample.map(|s| s.time))?;
            let reads = [read.span.first, read.recent().first]
                .into_iter()
                .find(|&first| first >= exited)?;
            let span = Span::new(reads, read.span.last)?;
            let what = format!("whose owner {} has exited", phrase::actor(model, owner));
            Some(Orphaned {
                owner: Some(owner),
                what,
                span,
                found,
            })
        }
        Held::Unreadable(addr) => Some(Orphaned {
            owner: None,
            what: format!("whose owner word names {addr}, which is no task that can be read"),
            span: read.span,
            found: false,
        }),
        Held::Nobody if records_owner(lock.kind) => nobody(
            model,
            lock,
            read.span,
            "which nobody holds although they sleep".to_owned(),
        ),
        Held::Readers { count: Some(0), .. } => nobody(
            model,
            lock,
            read.span,
            "which no reader holds any more although they sleep".to_owned(),
        ),
        Held::HandedTo(to) => {
            let what = format!("which was handed to {} and never taken", phrase::actor(model, to));
            let wait = lock
                .waiters
                .iter()
                .filter_map(|&w| model.waits().get(w))
                .find(|w| w.waiter == to)?;
            let span = asleep_in(model, wait)?.intersect(read.span)?;
            Some(Orphaned {
                owner: None,
                what,
                span,
                found,
            })
        }
        _ => None,
    }
}

fn records_owner(kind: LockKind) -> bool {
    matches!(
        kind,
        LockKind::Mutex | LockKind::WwMutex | LockKind::Rwsem | LockKind::RtMutex | LockKind::RtSpinlock
    )
}

/// A lock is free for a moment whenever it is released, until its first waiter has woken up. Only a first waiter that sleeps
/// through, its context switch count unchanged, was not woken.
fn nobody(model: &Model, lock: &LockEntry, read: Span, what: String) -> Option<Orphaned> {
    let waits = || lock.waiters.iter().filter_map(|&w| model.waits().get(w));
    let (first, as_first) = waits().find_map(|w| Some((w, w.first_in_queue?))).or_else(|| {
        // The waiters of an rt_mutex have no places; an only one is the first.
        let only = waits().next().filter(|w| w.queued == Queued::Somewhere)?;
        (lock.waiters.len() == 1).then_some((only, only.seen))
    })?;
    // Who was not yet the first had no reason to wake up: a busy lock may be found free twice.
    let span = asleep_in(model, first)?.intersect(as_first)?.intersect(read)?;
    if span.length() < model.settings().proof_interval {
        return None;
    }
    Some(Orphaned {
        owner: None,
        what,
        span,
        found: true,
    })
}

/// Span over which this waiter was found on the wait list, asleep all the time.
fn asleep_in(model: &Model, wait: &Wait) -> Option<Span> {
    let actor = model.actors().get(wait.waiter)?;
    let asleep = actor
        .asleep
        .filter(|_| actor.sample.is_some_and(|s| is_asleep(s.state)))?;
    wait.validated_by?;
    wait.checked?.span.intersect(asleep.span)
}
