//! Rule `hot-lock`: a lock that is released again and again, and still costs much waiting.

use super::finding::{Certainty, Finding, Kind, Severity, Source};
use super::{Draft, Rule, View, links, phrase};
use crate::event::LossCause;
use crate::ids::Nanos;
use crate::model::{LockEntry, LockIx, Span};
use crate::view::units;

/// Finds hot locks.
pub struct HotLock;

/// Seconds over which rates are taken: long enough that a burst alone does not make a lock hot.
const SECONDS: u64 = 5;
/// Waiters at one moment from which on a hot lock is called a convoy.
const CONVOY: usize = 4;

impl Rule for HotLock {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        out.extend(
            view.model
                .locks()
                .iter()
                .filter_map(|(ix, lock)| finding(view, ix, lock)),
        );
    }
}

fn finding(view: &View<'_>, ix: LockIx, lock: &LockEntry) -> Option<Finding> {
    let model = view.model;
    let settings = model.settings();
    let contention = lock.contention.as_deref()?;
    let now = model.now();
    let (rate, waited) = contention.window().rate(now, SECONDS);
    if rate < settings.hot_rate || waited < settings.hot_wait_per_second {
        return None;
    }
    let span = Span::new(now - Nanos::from_secs(SECONDS), now)?;
    let mut draft = Draft::new(view, Kind::HotLock, &[], &[ix]);
    draft.certainty(Certainty::Likely, Severity::Info);
    draft.since(span.first, false);
    let name = phrase::lock_ref(model, ix);
    let per_second = units::duration(waited);
    draft.title(format!(
        "{name} is hot: {rate} waits a second, {per_second} waited a second"
    ));
    let impact = view.graph.impact(model, &[], Some(ix));
    draft.victims(links::victims(model, view.graph, &impact));
    let totals = contention.totals();
    let percentile = |p| {
        totals
            .percentile(p)
            .map_or_else(|| "unknown".to_owned(), units::duration)
    };
    draft.evidence(
        Source::Statistics,
        format!(
            "{} waits so far, {} in all; half of them at most {}, 99 % at most {}, the longest {}",
            totals.waits,
            units::duration(totals.total),
            percentile(50),
            percentile(99),
            units::duration(totals.max)
        ),
    );
    if lock.waiters.len() >= CONVOY {
        let text = format!(
            "a convoy: {} tasks queue at this moment although it is released all the time",
            lock.waiters.len()
        );
        draft.evidence(Source::Statistics, text);
    }
    if let Some((cause, total)) = model
        .losses()
        .touching(span, &[LossCause::LockTableFull, LossCause::Overrun])
    {
        draft.evidence(
            Source::Loss(cause),
            format!("{total} {} so far: the numbers are lower bounds", phrase::loss(cause)),
        );
    }
    draft.next("Look at the call sites of the waiters: hold it for less, take it less often, or split it.");
    Some(draft.finish())
}
