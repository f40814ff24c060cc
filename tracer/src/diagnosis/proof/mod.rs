//! How certain an edge is, and over which span of time: the two-sample proof.
//!
//! Events come late, twice or never, and a sampling round is not atomic: two edges seen a microsecond apart need never have
//! existed together. So each edge carries the span of time over which it is known to have existed, and a cycle is believed
//! only where the spans of all its edges overlap:
//!
//! - *likely*: every edge was valid over a common span of [`Settings::likely_interval`];
//! - *proven*: over a common span of [`Settings::proof_interval`] every lock's owner word was read unchanged, every waiter was
//!   found on its lock's wait list (or the kernel's own pointer names the lock), every waiter was asleep with an unchanged
//!   context switch count at both ends, so that it has not run in between, and no loss touches those reads.
//!
//! [`Settings::likely_interval`]: crate::model::Settings::likely_interval
//! [`Settings::proof_interval`]: crate::model::Settings::proof_interval

mod edge;

use edge::{Checked, and, check};

use std::collections::BTreeSet;

use super::finding::{Certainty, EvidenceLine, Source};
use super::graph::{Edge, Hold, Holder, Via};
use super::{acquired, phrase};
use crate::event::{Evidence, LockKind, LossCause, Mode};
use crate::ids::{Nanos, Timestamp};
use crate::model::{ActorIx, LockEntry, LockIx, Model, Span, is_begin};

/// Losses that may touch any re-read: the source may have dropped or garbled a read that differed.
pub const TOUCHES_REREADS: &[LossCause] = &[LossCause::ReadFailed, LossCause::Malformed, LossCause::Overrun];

/// Losses that may touch a proof whose first read is the begin of the wait: its end, and another begin, may have been lost.
const TOUCHES_BEGIN: &[LossCause] = &[
    LossCause::ReadFailed,
    LossCause::Malformed,
    LossCause::Overrun,
    LossCause::RingFull,
    LossCause::Busy,
    LossCause::WaitTableFull,
    LossCause::SpinNesting,
    LossCause::MissedEnd,
    LossCause::ProgramSkipped,
];

/// How certain a cycle is.
#[derive(Debug)]
pub struct Judgement {
    /// How certain.
    pub certainty: Certainty,
    /// What keeps it from being more certain, or what weakens it.
    pub lines: Vec<EvidenceLine>,
    /// The span over which everything was unchanged, where there is one.
    pub span: Option<Span>,
}

/// The span over which all of `spans` hold.
fn common(spans: impl Iterator<Item = Option<Span>>) -> Option<Span> {
    spans.reduce(and).flatten()
}

/// Judges a cycle by its edges. `None`: it is not known that its edges ever existed at the same time.
#[must_use]
pub fn judge(model: &Model, edges: &[Edge]) -> Option<Judgement> {
    let settings = model.settings();
    let checks: Vec<Checked> = edges.iter().map(|edge| check(model, edge)).collect();
    let may_dissolve = edges.len() > 1 && edges.iter().any(|e| is_ww(model, e));
    let interval = if may_dissolve {
        settings.ww_interval
    } else {
        settings.proof_interval
    };
    let long = |span: &Span, at_least: Nanos| span.length() >= at_least;
    let proof = common(checks.iter().map(|c| c.proof)).filter(|s| long(s, interval));
    let recent = common(checks.iter().map(|c| c.recent)).filter(|s| long(s, interval));
    let mut lines = Vec::new();
    if let Some(span) = proof {
        let touching = |from_begin, span| {
            let causes = if from_begin { TOUCHES_BEGIN } else { TOUCHES_REREADS };
            model.losses().touching(span, causes)
        };
        let loss = touching(checks.iter().any(|c| c.from_begin), span);
        let clean = match (loss, recent) {
            (None, _) => Some(span),
            (Some(_), Some(recent)) => {
                let from_begin = checks.iter().any(|c| c.recent_from_begin);
                touching(from_begin, recent).is_none().then_some(recent)
            }
            (Some(_), None) => None,
        };
        if let Some(span) = clean {
            if may_dissolve {
                lines.push(EvidenceLine {
                    source: Source::OwnerWord,
                    text: "a ww_mutex may dissolve such a cycle with -EDEADLK; it has not".to_owned(),
                });
            }
            return Some(Judgement {
                certainty: Certainty::Proven,
                lines,
                span: Some(span),
            });
        }
        if let Some((cause, total)) = loss {
            lines.push(EvidenceLine {
                source: Source::Loss(cause),
                text: format!(
                    "{total} {} so far, some while this was read: something may have been missed, so it is not called proven",
                    phrase::loss(cause)
                ),
            });
        }
    } else if may_dissolve && common(checks.iter().map(|c| c.proof)).is_some() {
        lines.push(missing(
            "a ww_mutex may still dissolve this cycle with -EDEADLK".to_owned(),
        ));
    }
    lines.extend(checks.iter().filter_map(|c| c.missing.clone()).map(missing));
    let seen = common(checks.iter().map(|c| c.seen));
    if proof.is_none() && lines.is_empty() {
        lines.push(missing(
            "not yet read unchanged over the whole proof interval".to_owned(),
        ));
    }
    let inferred = checks.iter().any(|c| c.inferred);
    if inferred && lasted(model, edges) < settings.long_wait {
        return None;
    }
    if let Some(span) = seen.filter(|s| long(s, settings.likely_interval)) {
        let weak = checks.iter().any(|c| c.hint) || (inferred && lasted(model, edges) < settings.warn_wait);
        let certainty = if weak { Certainty::Possible } else { Certainty::Likely };
        return Some(Judgement {
            certainty,
            lines,
            span: Some(span),
        });
    }
    if let ([edge], Some(span)) = (edges, seen)
        && begins_on_itself(model, edge)
    {
        return Some(Judgement {
            certainty: Certainty::Likely,
            lines,
            span: Some(span),
        });
    }
    None
}

/// Begin of a wait, and whether that is exact.
#[must_use]
pub fn began(model: &Model, edge: &Edge) -> Option<(Timestamp, bool)> {
    match edge.via {
        Via::Lock(wait, ..) => model.waits().get(wait).map(|w| model.wait_since(w)),
        Via::Dependency => model.actors().get(edge.from)?.depends_since(),
    }
}

/// How long each of these waits was seen to last, at least.
fn lasted(model: &Model, edges: &[Edge]) -> Nanos {
    let each = edges.iter().map(|edge| match edge.via {
        Via::Lock(wait, ..) => model.waits().get(wait).map(|w| model.lasted(w)),
        Via::Dependency => model.actors().get(edge.from).and_then(|actor| {
            let seen = actor.dependency.as_deref()?.seen.last;
            Some(seen.since(actor.depends_since()?.0))
        }),
    });
    each.map(Option::unwrap_or_default).min().unwrap_or_default()
}

fn missing(text: String) -> EvidenceLine {
    EvidenceLine {
        source: Source::Missing,
        text,
    }
}

fn is_ww(model: &Model, edge: &Edge) -> bool {
    let Via::Lock(_, lock, _) = edge.via else { return false };
    model.locks().get(lock).is_some_and(|l| l.kind == LockKind::WwMutex)
}

/// At the begin of a wait the owner word that names the waiter itself was written by nobody else: one read is enough to take
/// it for a self-deadlock.
fn begins_on_itself(model: &Model, edge: &Edge) -> bool {
    let Via::Lock(wait, lock, Hold::Owner) = edge.via else {
        return false;
    };
    let (Some(wait), Some(lock)) = (model.waits().get(wait), model.locks().get(lock)) else {
        return false;
    };
    is_begin(wait.evidence) && lock.owner.as_ref().is_some_and(|o| o.span.last == wait.seen.last)
}

/// How certain it is that the first holder of a lock holds it up, for findings that claim no deadlock.
#[must_use]
pub fn holding(model: &Model, lock: LockIx, holder: Holder) -> Certainty {
    let Some(entry) = model.locks().get(lock) else {
        return Certainty::Possible;
    };
    let found = || {
        let mut waits = entry.waiters.iter().filter_map(|&w| model.waits().get(w));
        waits.any(|w| w.validated_by.is_some())
    };
    match holder.hold {
        Hold::Owner => {
            let twice = entry
                .read_owner()
                .filter(|o| o.span.length() >= model.settings().proof_interval);
            let touched = twice.is_none_or(|o| {
                model.losses().touching(o.span, TOUCHES_REREADS).is_some()
                    && model.losses().touching(o.recent(), TOUCHES_REREADS).is_some()
            });
            if twice.is_some() && !touched && found() {
                Certainty::Proven
            } else {
                Certainty::Likely
            }
        }
        Hold::Candidate(Evidence::Acquisition, _) => {
            let held = acquired::by(model, entry.addr, holder.actor);
            let sure = held.is_some_and(|held| acquired::unsure(model, entry, held, model.now()).is_none());
            if sure && (entry.kind.spins() || found()) {
                Certainty::Proven
            } else {
                Certainty::Likely
            }
        }
        // A pointer to the neighbourhood of a lock, where others could hold it as well, is little.
        Hold::Candidate(Evidence::StackNear | Evidence::RegisterNear, _)
            if entry.kind.spins() && candidates(entry) > 1 =>
        {
            Certainty::Possible
        }
        Hold::Acquired | Hold::Handed | Hold::Candidate(..) => Certainty::Likely,
        Hold::Hint => Certainty::Possible,
    }
}

fn candidates(lock: &LockEntry) -> usize {
    let holders: BTreeSet<ActorIx> = lock.candidates.iter().map(|c| c.holder).collect();
    holders.len()
}

/// How a holder is known, for links of a chain.
#[must_use]
pub fn hold_evidence(model: &Model, lock: LockIx, hold: Hold) -> Option<Evidence> {
    match hold {
        Hold::Owner => {
            let waiters = &model.locks().get(lock)?.waiters;
            let waits = waiters.iter().filter_map(|&w| model.waits().get(w));
            waits.max_by_key(|w| (w.seen.last, w.evidence)).map(|w| w.evidence)
        }
        Hold::Acquired | Hold::Handed => Some(Evidence::Tracepoint),
        Hold::Candidate(evidence, _) => Some(evidence),
        Hold::Hint => Some(Evidence::OwnerHint),
    }
}

/// How the holder has the lock.
#[must_use]
pub fn hold_mode(hold: Hold) -> Mode {
    match hold {
        Hold::Candidate(_, mode) => mode,
        Hold::Hint => Mode::Shared,
        Hold::Owner | Hold::Acquired | Hold::Handed => Mode::Exclusive,
    }
}
