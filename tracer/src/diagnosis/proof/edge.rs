//! What is known about one edge of the wait-for graph, and over which spans of time.

use super::super::graph::{Edge, Hold, Via};
use super::super::{acquired, phrase};
use crate::event::{Evidence, LockKind, Phase, TaskState};
use crate::model::{ActorEntry, Depends, Held, LockEntry, LockIx, Model, Span, Wait, WaitIx, is_asleep, is_begin};

/// What is known about one edge.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The edge existed over this span, as far as events tell.
    pub seen: Option<Span>,
    /// The edge existed over this span by re-read words and unchanged switch counts.
    pub proof: Option<Span>,
    /// The same for the most recent pair of reads.
    pub recent: Option<Span>,
    /// The proof rests on the begin event.
    pub from_begin: bool,
    /// So does the most recent pair.
    pub recent_from_begin: bool,
    /// The holder is inferred, and nothing but a hint speaks for it.
    pub hint: bool,
    /// The holder is inferred: such an edge counts only when the wait is long.
    pub inferred: bool,
    /// What keeps it from being proven.
    pub missing: Option<String>,
}

/// Looks at one edge.
pub(super) fn check(model: &Model, edge: &Edge) -> Checked {
    match edge.via {
        Via::Lock(wait, lock, hold) => check_lock(model, edge, wait, lock, hold),
        Via::Dependency => check_dependency(model, edge),
    }
}

fn is_sleeping_lock(kind: LockKind) -> bool {
    !matches!(kind, LockKind::Spinlock | LockKind::Rwlock | LockKind::Unknown)
}

pub(super) fn and(a: Option<Span>, b: Option<Span>) -> Option<Span> {
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
    if !may_last(wait, lock, actor, self_wait) {
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
        Hold::Owner => match lock.read_owner() {
            Some(owner) => {
                let once = || {
                    format!(
                        "the owner of {} was read only once",
                        phrase::lock(model, lock.addr, lock.kind)
                    )
                };
                let reads = Reads {
                    span: owner.span,
                    recent: owner.recent(),
                    missing: (owner.reads < 2).then(once),
                };
                check_reads(model, wait, lock, actor, lasting, self_wait, who, reads)
            }
            None => Checked::default(),
        },
        Hold::Candidate(Evidence::Acquisition, _) if !lock.kind.spins() => {
            let Some(held) = acquired::by(model, lock.addr, edge.to) else {
                return Checked::default();
            };
            // Its own releases cannot have come later than its wait began.
            let until = if self_wait { wait.seen.first } else { wait.seen.last };
            let span = Span {
                first: held.since,
                last: wait.seen.last.max(held.since),
            };
            let reads = Reads {
                span,
                recent: span,
                missing: acquired::unsure(model, lock, held, until).map(acquired::doubt),
            };
            check_reads(model, wait, lock, actor, lasting, self_wait, who, reads)
        }
        Hold::Candidate(evidence, _) => {
            let known = lock
                .candidates
                .iter()
                .find(|c| c.holder == edge.to && c.evidence == evidence);
            let missing = format!(
                "{} records no holder; that {} holds it is inferred ({})",
                phrase::lock(model, lock.addr, lock.kind),
                phrase::actor(model, edge.to),
                phrase::evidence(evidence)
            );
            Checked {
                seen: and(lasting, known.map(|c| c.seen)),
                inferred: evidence != Evidence::Acquisition,
                missing: Some(missing),
                ..Checked::default()
            }
        }
        Hold::Hint => {
            let missing = format!(
                "{} is the last reader that took {}, which does not prove that it still holds it",
                phrase::actor(model, edge.to),
                phrase::lock(model, lock.addr, lock.kind)
            );
            Checked {
                seen: and(lasting, lock.owner.as_ref().map(|o| o.span)),
                hint: !only_reader(model, wait, lock, self_wait),
                inferred: true,
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

/// Whether the waiter is stuck in its wait, as far as is known. One that runs is about to take the lock, has just taken it, or
/// looks whether it can.
fn may_last(wait: &Wait, lock: &LockEntry, actor: &ActorEntry, self_wait: bool) -> bool {
    let awake = |state| !is_asleep(state) && state != TaskState::Unknown;
    let running = actor.sample.is_some_and(|s| s.time >= wait.seen.last && awake(s.state));
    let spins = wait.phase == Phase::Spinning && is_sleeping_lock(lock.kind) && actor.task().is_some();
    // A thread that spins on what it owns itself spins for ever.
    let on_itself = self_wait && (wait.phase == Phase::Spinning || is_begin(wait.evidence));
    !(running || spins) || on_itself
}

/// Whether nobody else can be the reader that a waiter waits for: there is one reader, the hint names the waiter itself, and a
/// complete walk over all threads during the wait has found no other candidate.
fn only_reader(model: &Model, wait: &Wait, lock: &LockEntry, self_wait: bool) -> bool {
    let one = matches!(lock.held(), Held::Readers { count: Some(1), .. });
    let searched = model.last_scan().is_some_and(|scan| scan >= model.wait_since(wait).0);
    self_wait && one && searched && lock.candidates.iter().all(|c| c.evidence == Evidence::OwnerHint)
}

/// How long it is known who holds a lock.
struct Reads {
    span: Span,
    /// Of the most recent two reads.
    recent: Span,
    /// What keeps this from being sure.
    missing: Option<String>,
}

#[expect(clippy::too_many_arguments, reason = "everything that is known about one edge")]
fn check_reads(
    model: &Model,
    wait: &Wait,
    lock: &LockEntry,
    actor: &ActorEntry,
    lasting: Option<Span>,
    self_wait: bool,
    who: impl Fn() -> String,
    held: Reads,
) -> Checked {
    let seen = and(lasting, Some(held.span));
    let asleep = actor
        .asleep
        .filter(|_| actor.sample.is_some_and(|s| is_asleep(s.state)));
    let missing = if held.missing.is_some() {
        held.missing
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
    let reads = found.span.intersect(held.span);
    let recent = found.recent().intersect(held.recent);
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
    // The pair of the lock's reads is no wider than that of the wait: the wait's first read decides.
    let begins = |span: Option<Span>| wait.checked_from_begin && span.is_some_and(|s| s.first <= found.span.first);
    checked.from_begin = begins(checked.proof);
    checked.recent_from_begin = begins(checked.recent);
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
        inferred: !is_read(depends.evidence),
        ..Checked::default()
    };
    checked.missing = missing_of(model, edge, actor, depends);
    if checked.missing.is_none() {
        checked.proof = and(Some(depends.seen), actor.asleep.map(|a| a.span));
        checked.recent = and(Some(depends.seen), actor.asleep.map(|a| a.recent()));
    }
    checked
}

/// Whether the kernel's own words name who has to act.
fn is_read(evidence: Evidence) -> bool {
    matches!(evidence, Evidence::WaiterRecord | Evidence::BlockedOnField)
}

fn missing_of(model: &Model, edge: &Edge, actor: &ActorEntry, depends: &Depends) -> Option<String> {
    let who = phrase::actor(model, edge.from);
    if !is_read(depends.evidence) {
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
