//! Who holds a watched lock, because it was seen to take it and not to give it back.

use super::finding::{EvidenceLine, Source};
use super::phrase;
use crate::event::{Evidence, LossCause, Mode};
use crate::ids::{LockAddr, Timestamp};
use crate::model::{ActorIx, Holding, LockEntry, Model, Span};
use crate::view::units;

/// Losses among which the release of a spinning lock may be. Not among them: runs that the kernel skipped because the program was
/// running on that CPU already. A thread that gives a spinning lock back has preemption off, so nothing that it has interrupted runs
/// there below it.
const TOUCHES_SPIN_RELEASE: &[LossCause] = &[LossCause::Overrun, LossCause::Malformed];
/// Losses among which the release of a sleeping lock may be.
const TOUCHES_RELEASE: &[LossCause] = &[LossCause::Overrun, LossCause::Malformed, LossCause::ProgramSkipped];

/// The acquisition of a watched lock by `holder`, the first one, that is not over as far as was seen.
#[must_use]
pub fn by(model: &Model, lock: LockAddr, holder: ActorIx) -> Option<&Holding> {
    let held = model.watched().get(&lock)?.holding.iter();
    held.filter(|held| held.holder == holder && held.sure)
        .min_by_key(|held| held.since)
}

/// Where it was taken: ` at SITE`, if a stack says so.
#[must_use]
pub fn at(model: &Model, held: &Holding) -> String {
    let site = model.names().site(held.stack);
    site.map_or_else(String::new, |site| format!(" at {site}"))
}

/// What was lost between the acquisition and `until`, and may be the release.
#[must_use]
pub fn unsure(model: &Model, lock: &LockEntry, held: &Holding, until: Timestamp) -> Option<(LossCause, u64)> {
    let causes = if lock.kind.spins() {
        TOUCHES_SPIN_RELEASE
    } else {
        TOUCHES_RELEASE
    };
    let span = Span {
        first: held.since,
        last: until.max(held.since),
    };
    model.losses().touching(span, causes)
}

/// That it was seen, if the lock is watched.
#[must_use]
pub fn line(model: &Model, lock: &LockEntry, holder: ActorIx) -> Option<EvidenceLine> {
    let held = by(model, lock.addr, holder)?;
    let mode = if held.mode == Mode::Shared { " for reading" } else { "" };
    let text = format!(
        "{} was seen to take {}{mode}{}, {} ago, and not to release it",
        phrase::actor(model, holder),
        phrase::lock(model, lock.addr, lock.kind),
        at(model, held),
        units::duration(model.now().since(held.since)),
    );
    Some(EvidenceLine {
        source: Source::Kernel(Evidence::Acquisition),
        text,
    })
}

/// What is said of a loss that may hide a release.
#[must_use]
pub fn doubt((cause, total): (LossCause, u64)) -> String {
    format!(
        "{total} {} so far, some since its acquisition: a release may have been missed",
        phrase::loss(cause)
    )
}
