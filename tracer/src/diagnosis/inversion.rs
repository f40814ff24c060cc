//! Rule `order-inversion`: two locks that different tasks were seen to take in both orders. Nothing hangs; it might.
//!
//! Many objects of one kind have locks of one class, which the same code takes: their inversions are one finding. The class of a lock
//! is its name where it has one that others share (`inode.i_rwsem`), else the place where it was wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::finding::{Certainty, Finding, Kind, Name, Party, Severity, Source};
use super::{About, Draft, Rule, View, phrase};
use crate::event::{Context, LockKind, TaskState};
use crate::ids::{CgroupId, Timestamp};
use crate::model::{LockIx, LockKey, Model, OrderSeen};
use crate::view::units;

/// Other pairs of locks that a finding names.
const MOST_PAIRS: usize = 3;

/// Finds potential AB-BA deadlocks.
pub struct Inversion;

/// What a lock has in common with the other locks of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Its name, and whether it spins: the spinlock inside of a lock may have the name of that.
    Name(Arc<str>, bool),
    /// Where it was wanted while the other one was held.
    Site(String),
    /// Nothing is known of it.
    Lock(LockKey),
}

/// Two orders of two locks, or of locks of two classes.
#[derive(Clone, Copy, Debug)]
struct Inverted<'m> {
    /// Held and wanted, and by whom.
    there: ((LockKey, LockKey), &'m OrderSeen),
    /// The other order; the same locks reversed unless only their classes are the same.
    back: ((LockKey, LockKey), &'m OrderSeen),
}

impl Inverted<'_> {
    /// Both orders have been seen from then on.
    fn since(&self) -> Timestamp {
        self.there.1.time.max(self.back.1.time)
    }

    fn of_same_locks(&self) -> bool {
        let ((a, b), (c, d)) = (self.there.0, self.back.0);
        (a, b) == (d, c)
    }
}

impl Rule for Inversion {
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>) {
        let mut groups: BTreeMap<[Class; 2], Vec<Inverted<'_>>> = BTreeMap::new();
        for inverted in of_same_locks(view.model) {
            groups.entry(classes(view.model, &inverted)).or_default().push(inverted);
        }
        for (classes, inverted) in of_same_classes(view.model) {
            groups.entry(classes).or_insert_with(|| vec![inverted]);
        }
        for mut inverted in groups.into_values() {
            // The oldest one stands for all, so that a new one does not make another finding of it.
            inverted.sort_by_key(|i| (i.since(), i.there.0));
            if let Some((first, others)) = inverted.split_first() {
                out.extend(finding(view, first, others));
            }
        }
    }
}

/// Two sightings by different tasks: the same task alone cannot deadlock with itself.
fn by_two<'m>(there: &'m [OrderSeen], back: &'m [OrderSeen]) -> Option<(&'m OrderSeen, &'m OrderSeen)> {
    there
        .iter()
        .flat_map(|t| back.iter().map(move |b| (t, b)))
        .find(|(t, b)| t.task.key != b.task.key)
}

fn of_same_locks(model: &Model) -> impl Iterator<Item = Inverted<'_>> {
    let orders = model.orders();
    orders
        .iter()
        .filter(|((a, b), _)| a < b)
        .filter_map(|(&(a, b), there)| {
            let (t, k) = by_two(there, orders.seen(b, a))?;
            Some(Inverted {
                there: ((a, b), t),
                back: ((b, a), k),
            })
        })
}

/// Both orders of two classes, each seen on other locks. Of locks of one class nothing follows: a parent is taken before its child.
fn of_same_classes(model: &Model) -> Vec<([Class; 2], Inverted<'_>)> {
    type Sightings<'m> = Vec<((LockKey, LockKey), &'m [OrderSeen])>;
    let mut by_class: BTreeMap<[(&Arc<str>, bool); 2], Sightings<'_>> = BTreeMap::new();
    for (&(held, wanted), seen) in model.orders().iter() {
        let class = |lock: LockKey| Some((shared_name(model, lock)?, lock.spins));
        if let (Some(x), Some(y)) = (class(held), class(wanted))
            && x != y
        {
            by_class.entry([x, y]).or_default().push(((held, wanted), seen));
        }
    }
    for sightings in by_class.values_mut() {
        sightings.sort_by_key(|(locks, seen)| (seen.first().map(|s| s.time), *locks));
    }
    let mut found = Vec::new();
    for (&[x, y], there) in by_class.iter().filter(|([x, y], _)| x < y) {
        let Some(back) = by_class.get(&[y, x]) else { continue };
        let mut pairs = there.iter().flat_map(|t| back.iter().map(move |b| (t, b)));
        let by_two = pairs.find_map(|(t, b)| by_two(t.1, b.1).map(|(there, back)| ((t.0, there), (b.0, back))));
        if let Some((there, back)) = by_two {
            let classes = [x, y].map(|(name, spins)| Class::Name(Arc::clone(name), spins));
            found.push((classes, Inverted { there, back }));
        }
    }
    found
}

/// The name of a lock, if it tells what the lock is for: memory without a type of its own does not.
fn shared_name(model: &Model, lock: LockKey) -> Option<&Arc<str>> {
    let class = model.names().lock_class(lock.addr)?;
    (!class.starts_with("kmalloc-")).then_some(class)
}

/// The classes of both locks, in one order whichever way round they were taken.
fn classes(model: &Model, inverted: &Inverted<'_>) -> [Class; 2] {
    let mut classes = [inverted.there, inverted.back].map(|((_, wanted), seen)| {
        let site = || model.names().site(seen.stack).map(Class::Site);
        shared_name(model, wanted)
            .map(|name| Class::Name(Arc::clone(name), wanted.spins))
            .or_else(site)
            .unwrap_or(Class::Lock(wanted))
    });
    classes.sort();
    classes
}

fn finding(view: &View<'_>, first: &Inverted<'_>, others: &[Inverted<'_>]) -> Option<Finding> {
    let model = view.model;
    let orders = [first.there, first.back];
    let mut known: Vec<LockIx> = Vec::new();
    for lock in orders.iter().flat_map(|((held, wanted), _)| [held, wanted]) {
        let ix = model.locks().find(*lock)?;
        if !known.contains(&ix) {
            known.push(ix);
        }
    }
    let mut draft = Draft::new(view, Kind::OrderInversion, &[], &known);
    draft.certainty(Certainty::Possible, Severity::Info);
    draft.since(first.since(), true);
    draft.parties(orders.iter().map(|(_, seen)| party(model, seen)).collect());
    let named = |lock: LockKey| model.locks().find(lock).map(|ix| phrase::lock_ref(model, ix));
    let (a, b) = (named(first.there.0.0)?, named(first.there.0.1)?);
    let also = match others.len() {
        0 => String::new(),
        1 => ", and so was another pair of such locks".to_owned(),
        n => format!(", and so were {n} other pairs of such locks"),
    };
    draft.title(if first.of_same_locks() {
        format!("{a} and {b} were taken in both orders{also}: two tasks that do so at the same time would deadlock")
    } else {
        format!(
            "locks like {a} and {b} were taken in both orders: two tasks that do so with the same two would deadlock"
        )
    });
    for ((held, wanted), seen) in orders {
        let (held, wanted) = (named(held)?, named(wanted)?);
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
    if !others.is_empty() {
        draft.evidence(Source::OwnerWord, pairs(others));
    }
    if !first.of_same_locks() {
        draft.evidence(
            Source::Missing,
            "each order was seen on other locks of the two classes, neither on the same two".to_owned(),
        );
    }
    if known
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

/// Which other pairs there are.
fn pairs(others: &[Inverted<'_>]) -> String {
    let mut shown: Vec<String> = others
        .iter()
        .take(MOST_PAIRS)
        .map(|inverted| format!("{} and {}", inverted.there.0.0.addr, inverted.there.0.1.addr))
        .collect();
    if others.len() > MOST_PAIRS {
        shown.push(format!("{} more", others.len() - MOST_PAIRS));
    }
    format!("the same was seen of {}", shown.join(", "))
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
        // What it is about now has nothing to do with what it did then.
        about: About::default(),
        site: model.names().site(seen.stack),
        stack: seen.stack,
    }
}
