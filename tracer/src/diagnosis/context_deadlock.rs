//! Rule `context-deadlock`: an interrupt spins on a lock that the thread below it holds. The thread cannot go on before the
//! interrupt returns, and the interrupt cannot return before the thread has released the lock.

use super::finding::{Certainty, EvidenceLine, Finding, Kind, Severity, Source};
use super::{Draft, Rule, View, acquired, links, phrase};
use crate::event::{Actor, Context, Evidence, LockKind};
use crate::ids::{KernelAddr, StackId};
use crate::kernel::stacks::{FrameName, caller_position, interrupt_entry};
use crate::model::{ActorEntry, ActorIx, Candidate, Held, LockEntry, LockIx, Model, Wait};
use crate::view::units;

/// Finds self-deadlocks across contexts.
pub struct ContextDeadlock;

impl Rule for ContextDeadlock {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        out.extend(view.model.actors().iter().filter_map(|(ix, actor)| {
            let case = case(view.model, ix, actor)?;
            Some(finding(view, &case))
        }));
    }
}

/// An interrupt, the thread below it, and the lock between them.
struct Case<'m> {
    interrupt: ActorIx,
    context: Context,
    thread: ActorIx,
    wait: &'m Wait,
    ix: LockIx,
    lock: &'m LockEntry,
    holds: Candidate,
}

/// The thread that an interrupt of this kind spins above, when that thread holds what it spins on.
#[must_use]
pub fn deadlocked_below(model: &Model, interrupt: ActorIx) -> Option<ActorIx> {
    case(model, interrupt, model.actors().get(interrupt)?).map(|case| case.thread)
}

fn case<'m>(model: &'m Model, interrupt: ActorIx, actor: &'m ActorEntry) -> Option<Case<'m>> {
    let Actor::Interrupt { context, .. } = actor.id else {
        return None;
    };
    let thread = actor.interrupted?;
    let wait = model.waits().get(actor.innermost()?)?;
    let lock = model.locks().get(wait.lock)?;
    if matches!(lock.held(), Held::Nobody) || model.waited(wait) < model.settings().long_wait {
        return None;
    }
    let mut below = lock.candidates.iter().filter(|c| c.holder == thread);
    let seen = |c: &&Candidate| c.evidence == Evidence::Acquisition;
    let holds = below.clone().find(seen).or_else(|| below.next()).copied()?;
    // What was thought of an earlier wait says nothing of this one; what was seen holds until the release is seen.
    (seen(&&holds) || holds.seen.last >= wait.seen.first).then_some(Case {
        interrupt,
        context,
        thread,
        wait,
        ix: wait.lock,
        lock,
        holds,
    })
}

fn finding(view: &View<'_>, case: &Case<'_>) -> Finding {
    let model = view.model;
    let mut draft = Draft::new(view, Kind::ContextDeadlock, &[case.interrupt, case.thread], &[case.ix]);
    let seen = case.holds.evidence == Evidence::Acquisition;
    // Since the interrupt began, the thread cannot have released it. Before, its release may have been missed.
    let acquired = acquired::by(model, case.lock.addr, case.thread).filter(|_| seen);
    let lost = acquired.and_then(|held| acquired::unsure(model, case.lock, held, case.wait.seen.first));
    let certainty = if acquired.is_some() && lost.is_none() {
        Certainty::Proven
    } else {
        Certainty::Likely
    };
    draft.certainty(certainty, Severity::Critical);
    let (since, exact) = model.wait_since(case.wait);
    draft.since(since, exact);
    let interrupt = phrase::actor(model, case.interrupt);
    let thread = phrase::actor(model, case.thread);
    let lock = phrase::lock_ref(model, case.ix);
    let crossing = crossing(model, case.wait.stack);
    let taken = acquired.and_then(|held| model.names().site(held.stack));
    let at = |site: &Option<String>| site.as_ref().map_or_else(String::new, |site| format!(" at {site}"));
    draft.title(format!(
        "{interrupt}{} spins on {lock}{}, which {thread} {}: neither can go on",
        crossing.work.map_or_else(String::new, |work| format!(" ({work})")),
        at(&crossing.above),
        match &taken {
            Some(site) => format!("has taken at {site}"),
            None => format!("holds, interrupted{}", at(&crossing.below)),
        }
    ));
    let mut parties = vec![phrase::party(model, case.interrupt), phrase::party(model, case.thread)];
    let below = taken.clone().or(crossing.below);
    for (party, site) in parties.iter_mut().zip([crossing.above, below]) {
        party.site = site.or(party.site.take());
    }
    draft.parties(parties);
    draft.chain(links::chain(model, view.graph, &[case.interrupt]));
    let impact = view.graph.impact(model, &[case.interrupt, case.thread], None);
    draft.victims(links::victims(model, view.graph, &impact));
    let waited = units::duration(model.waited(case.wait));
    draft.evidence(
        Source::Kernel(case.wait.evidence),
        format!(
            "{interrupt} has spun on {lock} for {waited}, seen {} times",
            case.wait.reads
        ),
    );
    draft.lines(vec![
        holder_line(case, &thread, at(&taken)),
        word_line(case, &lock.to_string()),
    ]);
    if let Some(order) = phrase::spin_queue(model, case.lock) {
        draft.evidence(Source::OwnerWord, order);
    }
    if let Some((cause, total)) = lost {
        let text = format!(
            "{total} {} so far, some between its acquisition and the interrupt: a release may have been missed",
            phrase::loss(cause)
        );
        draft.evidence(Source::Loss(cause), text);
    } else if !seen {
        draft.evidence(
            Source::Missing,
            format!("{lock} does not record its holder and its acquisition was not seen: the holder is inferred"),
        );
    }
    draft.next(&cure(case, &thread, &lock.to_string()));
    draft.finish()
}

fn holder_line(case: &Case<'_>, thread: &str, taken: String) -> EvidenceLine {
    let text = match case.holds.evidence {
        Evidence::Acquisition => format!("{thread} was seen to take it{taken} and not to release it"),
        Evidence::StackWord | Evidence::RegisterWord => {
            format!("the registers or the stack of {thread}, as interrupted, hold the lock's address")
        }
        Evidence::StackNear | Evidence::RegisterNear => {
            format!(
                "the registers or the stack of {thread}, as interrupted, hold a pointer into the object around the lock"
            )
        }
        _ => format!(
            "{thread} was interrupted with a spinlock held, and no other CPU can hold it: each was seen without one since, or with \
             no more than it waits for"
        ),
    };
    EvidenceLine {
        source: Source::Kernel(case.holds.evidence),
        text,
    }
}

fn word_line(case: &Case<'_>, lock: &str) -> EvidenceLine {
    let text = match &case.lock.owner {
        Some(read) => format!(
            "word of {lock} is {:#x}: held, in {} over {}",
            read.value.word,
            units::count(read.reads as usize, "read"),
            units::duration(read.span.length())
        ),
        None => format!("word of {lock} was not read"),
    };
    EvidenceLine {
        source: Source::OwnerWord,
        text,
    }
}

/// What a stack that shows both contexts tells.
#[derive(Default)]
struct Crossing {
    /// What kind of work the interrupt does.
    work: Option<&'static str>,
    /// Call site of the interrupt.
    above: Option<String>,
    /// Call site of the thread below it.
    below: Option<String>,
}

/// KERNEL: who calls a callback in interrupt context (kernel/time/timer.c, hrtimer.c, kernel/rcu/tree.c, kernel/softirq.c,
/// net/core/dev.c, block/blk-mq.c, kernel/irq/handle.c; 5.10 to 6.18). The innermost one on the stack counts.
const WORK: &[(&str, &str)] = &[
    ("call_timer_fn", "a timer"),
    ("__hrtimer_run_queues", "a high-resolution timer"),
    ("rcu_do_batch", "an RCU callback"),
    ("tasklet_action_common", "a tasklet"),
    ("net_rx_action", "network receive"),
    ("net_tx_action", "network transmit"),
    ("blk_done_softirq", "block I/O completion"),
    ("irq_work_single", "irq work"),
    ("__handle_irq_event_percpu", "a device's interrupt handler"),
    ("__flush_smp_call_function_queue", "a function called from another CPU"),
    ("flush_smp_call_function_queue", "a function called from another CPU"),
];

fn crossing(model: &Model, stack: StackId) -> Crossing {
    let Some(frames) = model.names().frames(stack) else {
        return Crossing::default();
    };
    let name = |&frame: &KernelAddr| {
        model.names().symbol_at(frame).map(|s| FrameName {
            name: &s.name,
            module: s.module.as_deref(),
        })
    };
    let site = |part: &[KernelAddr]| {
        let caller = caller_position(part.iter().map(name));
        part.get(caller).map(|&frame| model.names().code(frame))
    };
    let Some(entry) = interrupt_entry(frames.iter().map(|f| name(f).map(|n| n.name))) else {
        return Crossing {
            above: site(frames),
            ..Crossing::default()
        };
    };
    let above = frames.get(..entry).unwrap_or_default();
    let work = above.iter().filter_map(name).find_map(|frame| {
        let known = WORK
            .iter()
            .find(|(function, _)| frame.name.split('.').next() == Some(function));
        known.map(|&(_, work)| work)
    });
    // The thread was interrupted wherever it was, in a clock read or a memcpy. Whoever took the lock lives where the lock does:
    // in the module of the interrupt's call site.
    let caller = above.get(caller_position(above.iter().map(name))).and_then(name);
    let below = frames.get(entry + 1..).unwrap_or_default();
    let kin = caller.and_then(|caller| {
        let module = Some(caller.module?);
        below.iter().find(|&f| name(f).is_some_and(|n| n.module == module))
    });
    Crossing {
        work,
        above: site(above),
        below: kin.map(|&frame| model.names().code(frame)).or_else(|| site(below)),
    }
}

/// What has to change in the source.
fn cure(case: &Case<'_>, thread: &str, lock: &str) -> String {
    let stem = if case.lock.kind == LockKind::Rwlock {
        "write_lock"
    } else {
        "spin_lock"
    };
    match case.context {
        Context::Softirq => format!(
            "{lock} is also taken in softirq: process context ({thread}) must disable softirqs while it holds it, with {stem}_bh()."
        ),
        _ => format!(
            "{lock} is also taken in a hard interrupt: process context ({thread}) must disable interrupts while it holds it, with \
             {stem}_irqsave()."
        ),
    }
}
