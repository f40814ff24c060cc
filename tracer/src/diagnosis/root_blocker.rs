//! Rule `root-blocker`: who stands at the end of the chain, who waits behind it, and why it does not get on.

use super::finding::{Certainty, Finding, Kind, Severity, Source};
use super::graph::{Holder, Root};
use super::impact::Impact;
use super::{Draft, Rule, View, acquired, context_deadlock, dead_lock_word, links, phrase, proof};
use crate::event::{Dependency, Evidence, Mode, Queued, TaskState};
use crate::ids::Nanos;
use crate::model::{ActorIx, Candidate, Depends, Held, LockIx, Model};
use crate::view::units;

/// What was told of a thread's time counts for this long.
const FRESH: Nanos = Nanos::from_secs(5);

/// Finds long holders.
pub struct RootBlocker;

impl Rule for RootBlocker {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let model = view.model;
        for root in view.graph.roots(model) {
            let (members, lock): (Vec<ActorIx>, Option<LockIx>) = match root {
                Root::Actor(actor) => (vec![actor], None),
                Root::Lock(lock) => (Vec::new(), Some(lock)),
                Root::Cycle => continue,
            };
            let impact = view.graph.impact(model, &members, lock);
            if impact.count == 0 || impact.lasted < model.settings().long_wait {
                continue;
            }
            match (members.first(), lock) {
                (Some(&actor), _) => out.extend(actor_root(view, actor, &impact)),
                (None, Some(lock)) => out.extend(lock_root(view, lock, &impact)),
                (None, None) => {}
            }
        }
    }
}

fn severity(view: &View<'_>, impact: &Impact) -> Severity {
    let settings = view.model.settings();
    let long = impact.lasted >= settings.warn_wait || impact.spun >= settings.warn_spin;
    if long || impact.count >= settings.warn_victims {
        Severity::Warning
    } else {
        Severity::Info
    }
}

fn tasks(n: usize) -> String {
    if n == 1 {
        "1 task waits".to_owned()
    } else {
        format!("{n} tasks wait")
    }
}

fn actor_root(view: &View<'_>, root: ActorIx, impact: &Impact) -> Option<Finding> {
    let model = view.model;
    let entry = model.actors().get(root)?;
    let stopped = stopped_by(view, root);
    let locks: Vec<LockIx> = std::iter::once(&root)
        .chain(&stopped)
        .flat_map(|&holder| view.graph.held_by(holder))
        .copied()
        .collect();
    let locks = locks.as_slice();
    if entry.state() == TaskState::Exited && !locks.is_empty() {
        // An owner that has exited is another rule's business.
        return None;
    }
    if dead_lock_word::spins_on_dead_word(model, root) {
        return None;
    }
    let waiters = view.graph.waiting_behind(model, root);
    if waiters
        .into_iter()
        .any(|w| context_deadlock::deadlocked_below(model, w) == Some(root))
    {
        // It cannot go on before the interrupt above it does: `context-deadlock` tells.
        return None;
    }
    let mut certainty = Certainty::Proven;
    for &lock in locks {
        if let Some(holder) = view.graph.primary(lock) {
            certainty = certainty.min(proof::holding(model, lock, holder));
        }
    }
    let once = |&ix: &ActorIx| depends(model, ix).is_none_or(|depends| depends.reads < 2);
    if locks.is_empty() || stopped.iter().any(once) {
        certainty = Certainty::Likely;
    }
    let mut draft = Draft::new(view, Kind::RootBlocker, &[root], locks);
    draft.id(&[root], &[]);
    draft.certainty(certainty, severity(view, impact));
    since(&mut draft, view, impact);
    let who = phrase::actor(model, root);
    let why = phrase::why_slow(model, view.graph, root);
    let held = match locks {
        [] => None,
        [lock] => Some(holds(view, *lock)),
        [lock, ..] => Some(format!(
            "{} and {} more",
            holds(view, *lock),
            units::count(locks.len() - 1, "lock")
        )),
    };
    let what = match (stopped.first(), held) {
        (Some(&first), held) => keeps_stopped(model, first, stopped.len(), held),
        (None, Some(held)) => held,
        (None, None) => "is waited for".to_owned(),
    };
    draft.title(format!("{who} {what} and {why}; {} behind it", tasks(impact.count)));
    let chain = impact
        .deepest
        .map_or_else(|| vec![root], |deepest| view.graph.chain(model, deepest));
    draft.chain(links::chain(model, view.graph, &chain));
    draft.victims(links::victims(model, view.graph, impact));
    for &lock in locks {
        holder_evidence(view, lock, &mut draft);
        queue_evidence(view, lock, &mut draft);
    }
    for &waiter in view.graph.depending_on(root) {
        if let Some(depends) = model.actors().get(waiter).and_then(|a| a.dependency.as_deref()) {
            let text = format!(
                "{} waits for {} by {who}",
                phrase::actor(model, waiter),
                phrase::dependency(model, depends)
            );
            draft.evidence(Source::Kernel(depends.evidence), text);
        }
    }
    if let Some(depends) = &entry.dependency {
        let text = format!("{who} waits for {}", phrase::dependency(model, depends));
        draft.evidence(Source::Kernel(depends.evidence), text);
    }
    if entry.sample.is_some() {
        let site = phrase::at(model, root);
        draft.evidence(
            Source::TaskSamples,
            format!("{who} {}{site}", phrase::why_slow(model, view.graph, root)),
        );
    } else {
        draft.evidence(Source::Missing, format!("the state of {who} was not sampled"));
    }
    if let Some(text) = time_spent(model, root) {
        draft.evidence(Source::TaskSamples, text);
    }
    draft.next(&format!(
        "Find out why {who} does not get on: it {why}. What waits behind it goes on when it does."
    ));
    Some(draft.finish())
}

/// Where it has spent its time, if it was followed up to lately.
fn time_spent(model: &Model, actor: ActorIx) -> Option<String> {
    let (spent, until) = model.actors().get(actor)?.spent.as_deref()?;
    let watched = until.since(spent.since);
    if watched.0 == 0 || model.now().since(*until) > FRESH {
        return None;
    }
    let shares = [
        ("running", spent.running),
        ("runnable without a CPU", spent.runnable),
        ("asleep", spent.sleeping),
        ("asleep in I/O", spent.io),
    ];
    let mut words: Vec<String> = shares
        .iter()
        .filter(|(_, time)| time.0 > 0)
        .map(|(what, time)| format!("{} {what}", units::duration(*time)))
        .collect();
    let known = shares
        .iter()
        .fold(Nanos(0), |sum, (_, time)| Nanos(sum.0.saturating_add(time.0)));
    let unknown = Nanos(watched.0.saturating_sub(known.0));
    // Readings of two clocks differ by a little.
    if unknown.0 > watched.0 / 100 {
        words.push(format!("{} unknown", units::duration(unknown)));
    }
    Some(format!(
        "{} was followed through the scheduler for {}: {}",
        phrase::actor(model, actor),
        units::duration(watched),
        words.join(", ")
    ))
}

fn depends(model: &Model, ix: ActorIx) -> Option<&Depends> {
    model.actors().get(ix)?.dependency.as_deref()
}

/// Whom a tracer keeps stopped, if nobody waits for it for another reason.
fn stopped_by(view: &View<'_>, tracer: ActorIx) -> Vec<ActorIx> {
    let all = view.graph.depending_on(tracer);
    let is_stopped = |&ix: &ActorIx| depends(view.model, ix).is_some_and(|d| d.dependency == Dependency::Stop);
    if view.graph.held_by(tracer).is_empty() && all.iter().all(is_stopped) {
        all.to_vec()
    } else {
        Vec::new()
    }
}

/// `keeps <task> stopped as its tracer, which holds <lock>,`
fn keeps_stopped(model: &Model, first: ActorIx, count: usize, held: Option<String>) -> String {
    let more = if count > 1 {
        format!(" and {} more", count - 1)
    } else {
        String::new()
    };
    let held = held.map_or_else(String::new, |held| format!(", which {held},"));
    format!(
        "keeps {}{more} stopped as its tracer{held}",
        phrase::actor(model, first)
    )
}

/// `holds <lock>`, as far as it is known.
fn holds(view: &View<'_>, lock: LockIx) -> String {
    let holder = view.graph.primary(lock);
    let known = holder.map(|h| (proof::holding(view.model, lock, h), proof::hold_mode(h.hold)));
    let lock = phrase::lock_ref(view.model, lock);
    match known {
        Some((Certainty::Possible, Mode::Shared)) => format!("may hold {lock} for reading"),
        Some((Certainty::Possible, Mode::Exclusive)) => format!("may hold {lock}"),
        Some((_, Mode::Shared)) => format!("holds {lock} for reading"),
        _ => format!("holds {lock}"),
    }
}

/// It lasts since the earliest wait behind it.
fn since(draft: &mut Draft<'_, '_>, view: &View<'_>, impact: &Impact) {
    let first = impact.victims.first().map(|v| v.1);
    if let (Some(first), Some(earliest)) = (first, impact.earliest) {
        draft.since(earliest, is_exact(view, first));
    }
}

fn is_exact(view: &View<'_>, actor: ActorIx) -> bool {
    let model = view.model;
    let Some(entry) = model.actors().get(actor) else {
        return false;
    };
    match entry.innermost().and_then(|w| model.waits().get(w)) {
        Some(wait) => wait.since.is_some(),
        None => entry.dependency.as_ref().is_some_and(|d| d.since.is_some()),
    }
}

/// A lock which nobody is known to hold. That its owner word says "nobody" is the business of `orphaned-lock`.
fn lock_root(view: &View<'_>, lock: LockIx, impact: &Impact) -> Option<Finding> {
    let model = view.model;
    let entry = model.locks().get(lock)?;
    let (why, certainty) = match entry.held() {
        Held::Nobody | Held::Unreadable(_) => return None,
        Held::Readers { count: Some(0), .. } => return None,
        Held::Readers { count: Some(n), .. } => (
            format!(
                "its count says {}, but the lock does not record which tasks",
                units::count(n as usize, "reader")
            ),
            Certainty::Likely,
        ),
        Held::Readers { count: None, .. } => (
            "readers hold it, but the lock does not record which tasks".to_owned(),
            Certainty::Likely,
        ),
        _ => ("it records no holder, and none was found".to_owned(), Certainty::Likely),
    };
    let mut draft = Draft::new(view, Kind::RootBlocker, &[], &[lock]);
    draft.certainty(certainty, severity(view, impact));
    since(&mut draft, view, impact);
    draft.title(format!(
        "{} for {}; {why}",
        tasks(impact.count),
        phrase::lock_ref(model, lock)
    ));
    let chain = impact
        .deepest
        .map_or_else(Vec::new, |deepest| view.graph.chain(model, deepest));
    draft.chain(links::chain(model, view.graph, &chain));
    draft.victims(links::victims(model, view.graph, impact));
    queue_evidence(view, lock, &mut draft);
    draft.evidence(
        Source::Missing,
        format!("no holder of {} is known: {why}", phrase::lock_ref(model, lock)),
    );
    let searched = impact
        .earliest
        .is_some_and(|since| model.last_scan().is_some_and(|scan| scan >= since));
    draft.next(if searched {
        "Every thread was searched: its holder keeps no trace of it on its stack, or nobody will release it."
    } else {
        "Take a snapshot: it looks for the lock's address on every stack to find who holds it."
    });
    Some(draft.finish())
}

fn holder_evidence(view: &View<'_>, lock: LockIx, draft: &mut Draft<'_, '_>) {
    let model = view.model;
    let Some(entry) = model.locks().get(lock) else { return };
    let name = phrase::lock(model, entry.addr, entry.kind);
    let holders = view.graph.holders(lock);
    if let (Held::By(owner), Some(read)) = (entry.held(), entry.read_owner()) {
        let times = if read.reads == 1 {
            "read once".to_owned()
        } else {
            format!("read {} times", read.reads)
        };
        let who = phrase::actor(model, owner);
        draft.evidence(
            Source::OwnerWord,
            format!("owner word of {name} is {:#x}: {who}, {times}", read.value.word),
        );
        draft.lines(acquired::line(model, entry, owner).into_iter().collect());
        return;
    }
    for &Holder { actor, hold } in holders.iter().take(3) {
        let who = phrase::actor(model, actor);
        if entry.kind.spins() {
            // Of a CPU every sign is told, the best one first.
            draft.lines(acquired::line(model, entry, actor).into_iter().collect());
            let inferred = |c: &&Candidate| c.holder == actor && c.evidence != Evidence::Acquisition;
            for sign in entry.candidates.iter().filter(inferred) {
                let text = format!("{who} may hold {name}: {}", phrase::spin_holder(sign.evidence));
                draft.evidence(Source::Kernel(sign.evidence), text);
            }
        } else if let Some(line) = acquired::line(model, entry, actor) {
            draft.lines(vec![line]);
        } else if let Some(evidence) = proof::hold_evidence(model, lock, hold) {
            draft.evidence(
                Source::Kernel(evidence),
                format!("{who} may hold {name}: {}", phrase::evidence(evidence)),
            );
        }
    }
    if holders.len() > 3 {
        draft.evidence(Source::Missing, format!("{} more may hold {name}", holders.len() - 3));
    }
    if let Some(word) = phrase::rwlock_word(entry) {
        draft.evidence(Source::OwnerWord, word);
    } else if let Held::Readers { count: Some(count), .. } = entry.held() {
        draft.evidence(
            Source::OwnerWord,
            format!("{name} counts {count} reader{}", if count == 1 { "" } else { "s" }),
        );
    }
    match holders
        .first()
        .and_then(|first| acquired::by(model, entry.addr, first.actor))
    {
        Some(held) => {
            if let Some(lost) = acquired::unsure(model, entry, held, model.now()) {
                draft.evidence(Source::Loss(lost.0), acquired::doubt(lost));
            }
        }
        None => draft.evidence(
            Source::Missing,
            format!("{name} does not record who holds it: the holder is inferred"),
        ),
    }
}

fn queue_evidence(view: &View<'_>, lock: LockIx, draft: &mut Draft<'_, '_>) {
    let model = view.model;
    let Some(entry) = model.locks().get(lock) else { return };
    let queue = model.queue(entry);
    let Some(first) = queue.first().and_then(|&w| model.waits().get(w)) else {
        return;
    };
    let who = phrase::actor(model, first.waiter);
    let mode = if first.mode == Mode::Shared { " for reading" } else { "" };
    let known = if matches!(first.queued, Queued::At(0)) {
        "first in the queue of"
    } else {
        "longest waiting for"
    };
    let name = phrase::lock(model, entry.addr, entry.kind);
    let evidence = Source::Kernel(first.validated_by.unwrap_or(first.evidence));
    let waited = units::duration(model.waited(first));
    draft.evidence(
        evidence,
        format!("{known} {name}: {who}{mode}, for {waited}; {} in all", queue.len()),
    );
    if let Some(order) = phrase::spin_queue(model, entry) {
        draft.evidence(Source::OwnerWord, order);
    }
}
