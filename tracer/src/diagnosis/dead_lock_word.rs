//! Rule `dead-lock-word`: a CPU spins on a lock whose word says, read after read, that nobody holds it. A live lock that is free
//! is taken by its first waiter at once; this word was overwritten while the lock was in use.

use super::finding::{Certainty, Finding, Kind, Severity, Source};
use super::{Draft, Rule, View, links, phrase, proof};
use crate::event::{Dependency, Evidence, LockKind, Phase};
use crate::model::{ActorIx, Held, LockEntry, LockIx, Model, OwnerRead, Steady, Wait, is_begin};
use crate::view::units;

/// Frames that are shown of a stack.
const SHOWN: usize = 8;
/// Reads of the word that must agree.
const READS: u32 = 3;

/// Finds locks that nobody holds and nobody gets.
pub struct DeadLockWord;

impl Rule for DeadLockWord {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let spinning = view.model.locks().iter().filter(|(_, lock)| !lock.waiters.is_empty());
        out.extend(spinning.filter_map(|(ix, lock)| {
            let case = case(view.model, lock)?;
            Some(finding(view, ix, &case))
        }));
    }
}

struct Case<'m> {
    /// Who has waited longest.
    wait: &'m Wait,
    word: &'m Steady<OwnerRead>,
}

/// Whether this actor spins on a lock that nobody holds.
#[must_use]
pub fn spins_on_dead_word(model: &Model, actor: ActorIx) -> bool {
    let waits = model.actors().get(actor).map_or(&[][..], |a| &a.waits);
    let locks = waits
        .iter()
        .filter_map(|&w| model.locks().get(model.waits().get(w)?.lock));
    locks.into_iter().any(|lock| case(model, lock).is_some())
}

fn case<'m>(model: &'m Model, lock: &'m LockEntry) -> Option<Case<'m>> {
    if !matches!(lock.kind, LockKind::Spinlock | LockKind::Rwlock) || !matches!(lock.held(), Held::Nobody) {
        return None;
    }
    let word = lock.read_owner()?;
    let wait = lock
        .waiters
        .iter()
        .filter_map(|&w| model.waits().get(w))
        .filter(|w| w.phase == Phase::Spinning)
        .min_by_key(|w| model.wait_since(w).0)?;
    // The word said so all the time, with the waiter there before and after.
    let settings = model.settings();
    let together = word.span.intersect(wait.seen)?;
    let lasts = together.length() >= settings.proof_interval && model.waited(wait) >= settings.long_wait;
    (word.reads >= READS && lasts).then_some(Case { wait, word })
}

fn finding(view: &View<'_>, ix: LockIx, case: &Case<'_>) -> Finding {
    let model = view.model;
    let waiter = case.wait.waiter;
    let mut draft = Draft::new(view, Kind::DeadLockWord, &[waiter], &[ix]);
    draft.id(&[], &[ix]);
    let lost = model.losses().touching(case.word.span, proof::TOUCHES_REREADS);
    // Of a wait that a probe saw begin the lock's address is certain; a sampled one's was found in a register.
    let certainty = if is_begin(case.wait.evidence) && lost.is_none() {
        Certainty::Proven
    } else {
        Certainty::Likely
    };
    draft.certainty(certainty, Severity::Critical);
    let (since, exact) = model.wait_since(case.wait);
    draft.since(since, exact);
    let lock = phrase::lock_ref(model, ix);
    let who = phrase::actor(model, waiter);
    let cpu = case.wait.cpu.map_or_else(String::new, |cpu| format!("CPU {cpu}: "));
    let site = phrase::at(model, waiter);
    draft.title(format!(
        "{cpu}{who} spins on {lock}, whose word says that nobody holds it{site}: it was overwritten while in use"
    ));
    let impact = view.graph.impact(model, &[waiter], Some(ix));
    let chain = impact
        .deepest
        .map_or_else(|| vec![waiter], |deepest| view.graph.chain(model, deepest));
    draft.chain(links::chain(model, view.graph, &chain));
    draft.victims(links::victims(model, view.graph, &impact));
    draft.evidence(
        Source::Kernel(case.wait.evidence),
        format!(
            "{who} has spun on {lock} for {}",
            units::duration(model.waited(case.wait))
        ),
    );
    draft.evidence(
        Source::OwnerWord,
        format!(
            "word of {lock} is {:#x}: no holder in {} over {}",
            case.word.value.word,
            units::count(case.word.reads as usize, "read"),
            units::duration(case.word.span.length())
        ),
    );
    if let Some(text) = pieced_stack(model, waiter, case.wait) {
        draft.evidence(Source::Kernel(Evidence::StackFrames), text);
    }
    for &asking in view.graph.depending_on(waiter) {
        let Some(depends) = model.actors().get(asking).and_then(|a| a.dependency.as_deref()) else {
            continue;
        };
        if let Dependency::Ipi { cpu } = depends.dependency {
            let waited = units::duration(model.now().since(depends.since.unwrap_or(depends.seen.first)));
            let text = format!(
                "CPU {cpu} has not answered {} for {waited}: its interrupts are off",
                phrase::actor(model, asking)
            );
            draft.evidence(Source::Kernel(depends.evidence), text);
        }
    }
    if let Some((cause, total)) = lost {
        let text = format!("{total} {} so far, some while this was read", phrase::loss(cause));
        draft.evidence(Source::Loss(cause), text);
    }
    draft.next("Nobody can release it: look for an initialisation of the object after its first use, or a write past the end of its neighbour.");
    draft.next("Only a restart frees these CPUs: capture a dump first if one is needed.");
    draft.finish()
}

/// The stack of a thread on a CPU that could not be sampled, and how sure it is.
fn pieced_stack(model: &Model, waiter: ActorIx, wait: &Wait) -> Option<String> {
    let frames = model.names().frames(wait.stack)?;
    if !model.names().is_pieced(wait.stack) {
        return None;
    }
    let names: Vec<String> = frames
        .iter()
        .take(SHOWN)
        .map(|&frame| model.names().code(frame))
        .collect();
    let more = if frames.len() > SHOWN { " <- ..." } else { "" };
    Some(format!(
        "the words on the stack of {}, which cannot be sampled there, read as return addresses of calls: {}{more}",
        phrase::actor(model, waiter),
        names.join(" <- ")
    ))
}
