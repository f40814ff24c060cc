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

use super::finding::{Certainty, EvidenceLine, Source};
use super::graph::{Edge, Hold, Via};
use super::phrase;
use crate::event::{Evidence, LockKind, LossCause, Mode, Phase, TaskState};
use crate::ids::Nanos;
use crate::model::{ActorEntry, Depends, LockEntry, LockIx, Model, Span, Wait, WaitIx, is_asleep, is_begin};

/// Losses that may touch any re-read: the source may have dropped or garbled a read that differed.
const TOUCHES_REREADS: &[LossCause] = &[LossCause::ReadFailed, LossCause::Malformed, LossCause::Overrun];

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

/// What is known about one edge.
#[derive(Debug, Default)]
struct Checked {
    /// The edge existed over this span, as far as events tell.
    seen: Option<Span>,
    /// The edge existed over this span by re-read words and unchanged switch counts.
    proof: Option<Span>,
    /// The same for the most recent pair of reads.
    recent: Option<Span>,
    /// The proof rests on the begin event.
    from_begin: bool,
    /// The holder is known from a hint only.
    hint: bool,
    /// What keeps it from being proven.
    missing: Option<String>,
}

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

fn is_sleeping_lock(kind: LockKind) -> bool {
    !matches!(kind, LockKind::Spinlock | LockKind::Rwlock | LockKind::Unknown)
}

fn and(a: Option<Span>, b: Option<Span>) -> Option<Span> {
    a.zip(b).and_then(|(a, b)| a.intersect(b))
}

/// Span over which a wait is known to have lasted, ignoring times at which the waiter is known to have run.
fn wait_span(actor: &ActorEntry, since_known: bool, span: Span) -> Option<Span> {
    if since_known {
        return Some(span);
    }
    match (&actor.asleep, actor.sample) {
        (Some(asleep), _) => span.intersect(asleep.span),
        (None, _) => Some(span),
    }
}

fn check_lock(model: &Model, edge: &Edge, ix: WaitIx, lock: LockIx, hold: Hold) -> Checked {
    let (Some(wait), Some(lock)) = (model.waits().get(ix), model.locks().get(lock)) else {
        return Checked::default();
    };
    let Some(actor) = model.actors().get(edge.from) else {
        return Checked::default();
    };
    let self_wait = edge.from == edge.to;
    let who = || phrase::actor(model, edge.from);
    let running = actor
        .sample
        .is_some_and(|s| s.time >= wait.seen.last && !is_asleep(s.state) && s.state != TaskState::Unknown);
    let spins = wait.phase == Phase::Spinning && is_sleeping_lock(lock.kind) && actor.task().is_some();
    if (running || spins) && !self_wait {
        // It is about to take the lock, or looks whether it can: no wait that lasts.
        return Checked {
            missing: Some(format!("{} is not asleep", who())),
            ..Checked::default()
        };
    }
    let lasting = Span::new(
        wait.since.unwrap_or(wait.seen.first).min(wait.seen.last),
        wait.seen.last,
    )
    .and_then(|span| wait_span(actor, wait.since.is_some(), span));
    match hold {
        Hold::Owner => check_owner(model, wait, lock, actor, lasting, self_wait, who),
        Hold::Candidate(evidence, _) => {
            let seen = lock
                .candidates
                .iter()
                .filter(|c| c.holder == edge.to && c.evidence == evidence)
                .map(|c| c.seen)
                .next();
            let missing = format!(
                "{} records no holder; that {} holds it is inferred ({})",
                phrase::lock(model, lock.addr, lock.kind),
                phrase::actor(model, edge.to),
                phrase::evidence(evidence)
            );
            Checked {
                seen: and(lasting, seen),
                missing: Some(missing),
                ..Checked::default()
            }
        }
        Hold::Hint => {
            let seen = lock.owner.as_ref().map(|o| o.span);
            let missing = format!(
                "{} is the last reader that took {}, which does not prove that it still holds it",
                phrase::actor(model, edge.to),
                phrase::lock(model, lock.addr, lock.kind)
            );
            Checked {
                seen: and(lasting, seen),
                hint: true,
                missing: Some(missing),
                ..Checked::default()
            }
        }
        Hold::Acquired | Hold::Handed => Checked {
            missing: Some(format!(
                "the owner of {} was not re-read",
                phrase::lock(model, lock.addr, lock.kind)
            )),
            ..Checked::default()
        },
    }
}

fn check_owner(
    model: &Model,
    wait: &Wait,
    lock: &LockEntry,
    actor: &ActorEntry,
    lasting: Option<Span>,
    self_wait: bool,
    who: impl Fn() -> String,
) -> Checked {
    let Some(owner) = lock.read_owner() else {
        return Checked::default();
    };
    let seen = and(lasting, Some(owner.span));
    let asleep = actor
        .asleep
        .filter(|_| actor.sample.is_some_and(|s| is_asleep(s.state)));
    let missing = if owner.reads < 2 {
        Some(format!(
            "the owner of {} was read only once",
            phrase::lock(model, lock.addr, lock.kind)
        ))
    } else if wait.validated_by.is_none() {
        Some(format!(
            "{} was not looked for on the wait list of {}",
            who(),
            phrase::lock(model, lock.addr, lock.kind)
        ))
    } else if wait.checked.is_none_or(|c| c.reads < 2) {
        Some(format!("{} was found waiting only once", who()))
    } else if asleep.is_none_or(|a| a.reads < 2) && !self_wait {
        Some(format!(
            "the context switches of {} were not counted twice while it slept",
            who()
        ))
    } else {
        None
    };
    let mut checked = Checked {
        seen,
        missing,
        ..Checked::default()
    };
    if checked.missing.is_some() {
        return checked;
    }
    let Some(found) = wait.checked else { return checked };
    let reads = found.span.intersect(owner.span);
    let recent = found.recent().intersect(owner.recent());
    match asleep.filter(|a| a.reads >= 2) {
        Some(asleep) => {
            checked.proof = and(reads, Some(asleep.span));
            checked.recent = and(recent, Some(asleep.recent()));
        }
        None => {
            checked.missing = Some(format!(
                "{} was not seen asleep with an unchanged context switch count",
                who()
            ))
        }
    }
    checked.from_begin = wait.checked_from_begin && checked.proof.is_some_and(|p| p.first <= found.span.first);
    checked
}

fn check_dependency(model: &Model, edge: &Edge) -> Checked {
    let Some(actor) = model.actors().get(edge.from) else {
        return Checked::default();
    };
    let Some(depends) = actor.dependency.as_deref() else {
        return Checked::default();
    };
    let lasting = Span::new(
        depends.since.unwrap_or(depends.seen.first).min(depends.seen.last),
        depends.seen.last,
    )
    .and_then(|span| wait_span(actor, depends.since.is_some(), span));
    let mut checked = Checked {
        seen: lasting,
        ..Checked::default()
    };
    checked.missing = missing_of(model, edge, actor, depends);
    if checked.missing.is_none() {
        checked.proof = and(Some(depends.seen), actor.asleep.map(|a| a.span));
        checked.recent = and(Some(depends.seen), actor.asleep.map(|a| a.recent()));
    }
    checked
}

fn missing_of(model: &Model, edge: &Edge, actor: &ActorEntry, depends: &Depends) -> Option<String> {
    let who = phrase::actor(model, edge.from);
    if depends.evidence != Evidence::WaiterRecord {
        return Some(format!(
            "whom {who} waits for is inferred ({})",
            phrase::evidence(depends.evidence)
        ));
    }
    if depends.reads < 2 {
        return Some(format!("what {who} waits for was read only once"));
    }
    let slept = actor.sample.is_some_and(|s| is_asleep(s.state)) && actor.asleep.is_some_and(|a| a.reads >= 2);
    (!slept).then(|| format!("the context switches of {who} were not counted twice while it slept"))
}

/// The span over which all of `spans` hold.
fn common(spans: impl Iterator<Item = Option<Span>>) -> Option<Span> {
    spans.reduce(and).flatten()
}

/// Judges a cycle by its edges. `None`: it is not known that its edges ever existed at the same time.
#[must_use]
pub fn judge(model: &Model, edges: &[Edge]) -> Option<Judgement> {
    let settings = model.settings();
    let checks: Vec<Checked> = edges
        .iter()
        .map(|edge| match edge.via {
            Via::Lock(wait, lock, hold) => check_lock(model, edge, wait, lock, hold),
            Via::Dependency => check_dependency(model, edge),
        })
        .collect();
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
        let from_begin = checks.iter().any(|c| c.from_begin);
        let causes = if from_begin { TOUCHES_BEGIN } else { TOUCHES_REREADS };
        let loss = model.losses().touching(span, causes);
        let clean = match (loss, recent) {
            (None, _) => Some(span),
            (Some(_), Some(recent)) => model
                .losses()
                .touching(recent, TOUCHES_REREADS)
                .is_none()
                .then_some(recent),
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
    let hint = checks.iter().any(|c| c.hint);
    if let Some(span) = seen.filter(|s| long(s, settings.likely_interval)) {
        let certainty = if hint { Certainty::Possible } else { Certainty::Likely };
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
pub fn holding(model: &Model, lock: LockIx, hold: Hold) -> Certainty {
    let Some(entry) = model.locks().get(lock) else {
        return Certainty::Possible;
    };
    match hold {
        Hold::Owner => {
            let twice = entry
                .read_owner()
                .filter(|o| o.span.length() >= model.settings().proof_interval);
            let touched = twice.is_none_or(|o| {
                model.losses().touching(o.span, TOUCHES_REREADS).is_some()
                    && model.losses().touching(o.recent(), TOUCHES_REREADS).is_some()
            });
            let found = entry
                .waiters
                .iter()
                .filter_map(|&w| model.waits().get(w))
                .any(|w| w.validated_by.is_some());
            if twice.is_some() && !touched && found {
                Certainty::Proven
            } else {
                Certainty::Likely
            }
        }
        Hold::Acquired | Hold::Handed | Hold::Candidate(..) => Certainty::Likely,
        Hold::Hint => Certainty::Possible,
    }
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
