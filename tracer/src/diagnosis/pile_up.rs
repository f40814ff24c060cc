//! Rule `reader-pile-up`: readers that could share the lock with its present readers, but queue behind a writer.

use super::finding::{Certainty, Finding, Kind, Severity, Source};
use super::graph::Hold;
use super::{Draft, Rule, View, links, phrase};
use crate::event::{LockKind, Mode, Queued};
use crate::model::{Held, LockEntry, LockIx, Wait};
use crate::view::units;

/// Finds readers behind a queued writer.
pub struct PileUp;

impl Rule for PileUp {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let model = view.model;
        let contended = model
            .locks()
            .iter()
            .filter(|(_, l)| l.waiters.len() > model.settings().pile_up_readers);
        out.extend(contended.filter_map(|(ix, lock)| finding(view, ix, lock)));
    }
}

fn held_by_readers(view: &View<'_>, ix: LockIx, lock: &LockEntry) -> bool {
    match lock.held() {
        Held::Readers { count, .. } => count != Some(0),
        Held::NotRecorded => {
            let shared = |hold| matches!(hold, Hold::Candidate(_, Mode::Shared));
            view.graph.holders(ix).iter().any(|h| shared(h.hold))
        }
        _ => false,
    }
}

fn finding(view: &View<'_>, ix: LockIx, lock: &LockEntry) -> Option<Finding> {
    let model = view.model;
    if !matches!(lock.kind, LockKind::Rwsem | LockKind::PercpuRwsem | LockKind::Rwlock)
        || !held_by_readers(view, ix, lock)
    {
        return None;
    }
    let queue: Vec<&Wait> = model
        .queue(lock)
        .into_iter()
        .filter_map(|w| model.waits().get(w))
        .collect();
    let first = queue.first().filter(|w| w.mode == Mode::Exclusive)?;
    let readers = queue.iter().filter(|w| w.mode == Mode::Shared).count();
    if readers < model.settings().pile_up_readers || model.lasted(first) < model.settings().long_wait {
        return None;
    }
    let head_known = first.queued == Queued::At(0);
    let mut draft = Draft::new(view, Kind::ReaderPileUp, &[first.waiter], &[ix]);
    draft.id(&[], &[ix]);
    draft.certainty(
        if head_known {
            Certainty::Likely
        } else {
            Certainty::Possible
        },
        Severity::Info,
    );
    let (since, exact) = model.wait_since(first);
    draft.since(since, exact);
    let writer = phrase::actor(model, first.waiter);
    let name = phrase::lock_ref(model, ix);
    draft.title(format!(
        "{} behind {writer}, which wants {name} for writing and waits for its present readers",
        if readers == 1 {
            "1 reader queues".to_owned()
        } else {
            format!("{readers} readers queue")
        }
    ));
    draft.chain(links::link(model, view.graph, first.waiter).into_iter().collect());
    let impact = view.graph.impact(model, &[first.waiter], Some(ix));
    draft.victims(links::victims(model, view.graph, &impact));
    let waited = units::duration(model.waited(first));
    let text = if head_known {
        format!("{writer} is first in the queue, a writer, for {waited}; {readers} readers stand behind it")
    } else {
        format!("{writer}, a writer, waits longest, for {waited}; {readers} readers wait as well")
    };
    draft.evidence(Source::Kernel(first.validated_by.unwrap_or(first.evidence)), text);
    if !head_known {
        draft.evidence(
            Source::Missing,
            format!("the order of the queue of {name} was not read"),
        );
    }
    if let Held::Readers { count: Some(count), .. } = lock.held() {
        draft.evidence(
            Source::OwnerWord,
            format!("{name} is held by {}", units::count(count as usize, "reader")),
        );
    }
    draft.next("The readers go on once the present readers release the lock and the writer has had its turn: find the reader that stays.");
    Some(draft.finish())
}
