//! Rule `order-inversion`: two locks that different tasks were seen to take in both orders. Nothing hangs; it might.

use super::finding::{Certainty, Finding, Kind, Name, Party, Severity, Source};
use super::{Draft, Rule, View, phrase};
use crate::event::{Context, LockKind, TaskState};
use crate::ids::{CgroupId, LockAddr};
use crate::model::{LockIx, Model, OrderSeen};
use crate::view::units;

/// Finds potential AB-BA deadlocks.
pub struct Inversion;

impl Rule for Inversion {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let orders = view.model.orders();
        for (&(a, b), there) in orders.iter().filter(|((a, b), _)| a < b) {
            let back = orders.seen(b, a);
            // The same task alone cannot deadlock with itself.
            let pair = there
                .iter()
                .flat_map(|t| back.iter().map(move |k| (t, k)))
                .find(|(t, k)| t.task.key != k.task.key);
            if let Some((there, back)) = pair {
                out.extend(finding(view, [a, b], [there, back]));
            }
        }
    }
}

fn finding(view: &View<'_>, locks: [LockAddr; 2], seen: [&OrderSeen; 2]) -> Option<Finding> {
    let model = view.model;
    let known: Vec<LockIx> = locks.iter().filter_map(|&l| model.locks().find(l)).collect();
    let &[first, second] = known.as_slice() else {
        return None;
    };
    let mut draft = Draft::new(view, Kind::OrderInversion, &[], &known);
    draft.certainty(Certainty::Possible, Severity::Info);
    let [there, back] = seen;
    draft.since(there.time.max(back.time), true);
    draft.parties(seen.iter().map(|s| party(model, s)).collect());
    let (a, b) = (phrase::lock_ref(model, first), phrase::lock_ref(model, second));
    draft.title(format!(
        "{a} and {b} were taken in both orders: two tasks that do so at the same time would deadlock"
    ));
    for (seen, held, wanted) in [(there, &a, &b), (back, &b, &a)] {
        let site = model
            .names()
            .site(seen.stack)
            .map_or_else(|| " (no stack)".to_owned(), |site| format!(" at {site}"));
        let text = format!(
            "{} ({}) wanted {wanted}{site} while it held {held}, seen at {}",
            seen.task.comm,
            seen.task.key.tid,
            units::instant(seen.time)
        );
        draft.evidence(Source::OwnerWord, text);
    }
    if [first, second]
        .iter()
        .any(|&l| model.locks().get(l).is_some_and(|l| l.kind == LockKind::WwMutex))
    {
        draft.evidence(
            Source::Missing,
            "one of them is a ww_mutex, whose users back off".to_owned(),
        );
    }
    draft.evidence(
        Source::Missing,
        "another lock held around both orders, or other timing, may make this harmless".to_owned(),
    );
    draft.next("Compare the two call sites: choose one order for both, or show that they exclude each other.");
    Some(draft.finish())
}

fn party(model: &Model, seen: &OrderSeen) -> Party {
    let actor = model.actors().find(seen.task.key).and_then(|ix| model.actors().get(ix));
    let sample = actor.and_then(|a| a.sample);
    Party {
        name: Name {
            tid: seen.task.key.tid,
            tgid: seen.task.tgid,
            comm: seen.task.comm.clone(),
            context: Context::Task,
            interrupt_cpu: None,
        },
        start: seen.task.key.start,
        state: actor.map_or(TaskState::Unknown, |a| a.state()),
        cpu: sample.and_then(|s| s.cpu),
        cgroup: sample.map_or(CgroupId(0), |s| s.cgroup),
        site: model.names().site(seen.stack),
        stack: seen.stack,
    }
}
