//! Who may hold a lock that does not record its holder.
//!
//! A thread that holds a lock has usually its address, or a pointer into the object around it, somewhere on its stack. So has
//! everybody who waits for it: those are known and left out. What remains are candidates, never more than *likely*: a word on
//! a stack may be left over from a call that has returned.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::code::{Class, CodeMap};
use super::thread::{Thread, ThreadIx, Threads};
use crate::event::{Evidence, LockKind, Mode, TaskState};
use crate::kernel::offsets::KernelOffsets;

/// How far below a lock the start of the object around it is looked for, bytes.
const OBJECT: u64 = 512;
/// Waiters whose stacks are looked at to learn how the object around the lock is pointed to.
const LEARN_FROM: usize = 16;
/// Candidates named for one lock.
const MAX_CANDIDATES: usize = 32;

/// A lock whose holder is looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its kind.
    pub kind: LockKind,
    /// How it is held: by readers, or by somebody alone.
    pub mode: Mode,
    /// Its size in bytes.
    pub size: u64,
    /// It is a static object of the kernel or a module: what lies before it is something else.
    pub is_static: bool,
    /// Who waits for it.
    pub waiters: BTreeSet<ThreadIx>,
    /// The last reader to acquire, where the lock says so.
    pub hint: Option<ThreadIx>,
}

/// Somebody who may hold a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which lock.
    pub lock: u64,
    /// Its kind.
    pub kind: LockKind,
    /// How it would be held.
    pub mode: Mode,
    /// Who.
    pub thread: ThreadIx,
    /// 0 = best of this lock.
    pub rank: u32,
    /// Why.
    pub evidence: Evidence,
}

/// Why a thread may be the holder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    /// The lock's address stands on its stack.
    Exact,
    /// It serves a page fault in the address space that the lock belongs to.
    PageFault,
    /// A pointer into the object around the lock stands on its stack, with the same distance as on the stacks of waiters.
    SameObject,
    /// The lock's hint names it.
    Hint,
    /// A pointer to somewhere close before the lock stands on its stack: perhaps another object.
    Near,
}

impl Sign {
    fn evidence(self) -> Evidence {
        match self {
            Self::Exact => Evidence::StackWord,
            Self::SameObject | Self::Near => Evidence::StackNear,
            Self::PageFault => Evidence::StackFrames,
            Self::Hint => Evidence::OwnerHint,
        }
    }
}

/// Looks through the stacks of all threads. `own` is the process that looks, and is left out.
#[must_use]
pub fn search(
    wanted: &BTreeMap<u64, Wanted>,
    threads: &Threads,
    o: &KernelOffsets,
    code: &CodeMap,
    own: u32,
) -> Vec<Candidate> {
    let (Some((first, _)), Some((last, entry))) = (wanted.first_key_value(), wanted.last_key_value()) else {
        return Vec::new();
    };
    let span = first.saturating_sub(OBJECT)..last.saturating_add(entry.size.max(8));
    let distances = distances(wanted, threads);
    let mut signs: BTreeMap<(u64, ThreadIx), Sign> = BTreeMap::new();
    let mut note = |lock, thread, sign: Sign| {
        let known = signs.entry((lock, thread)).or_insert(sign);
        *known = sign.min(*known);
    };
    for (ix, thread) in threads.iter().filter(|(_, thread)| thread.record.task.tgid != own) {
        let (_, stack) = thread.stack();
        for &word in stack.iter().filter(|word| span.contains(*word)) {
            for (lock, sign) in signs_of(word, wanted, &distances) {
                note(lock, ix, sign);
            }
        }
        if let Some(lock) = faults_under(thread, o, code).filter(|lock| wanted.contains_key(lock)) {
            note(lock, ix, Sign::PageFault);
        }
    }
    for (&lock, entry) in wanted {
        if let Some(hint) = entry.hint {
            note(lock, hint, Sign::Hint);
        }
    }
    wanted
        .iter()
        .flat_map(|(&lock, entry)| ranked(lock, entry, &signs, threads))
        .collect()
}

/// What a word on a stack may say about the wanted locks around it.
fn signs_of<'w>(
    word: u64,
    wanted: &'w BTreeMap<u64, Wanted>,
    distances: &'w HashMap<u64, BTreeSet<u64>>,
) -> impl Iterator<Item = (u64, Sign)> + 'w {
    // Locks that begin within an object's length after the word, and the one that the word may point into.
    let after = wanted.range(word..=word.saturating_add(OBJECT));
    let after = after
        .filter(move |(lock, entry)| **lock == word || !entry.is_static)
        .map(move |(&lock, _)| {
            let distance = lock - word;
            let same = distances.get(&lock).is_some_and(|known| known.contains(&distance));
            let sign = match distance {
                0 => Sign::Exact,
                _ if same => Sign::SameObject,
                _ => Sign::Near,
            };
            (lock, sign)
        });
    let inside = wanted
        .range(..word)
        .next_back()
        .filter(move |(lock, entry)| word - **lock < entry.size)
        .map(|(&lock, _)| (lock, Sign::SameObject));
    // A pointer to an object is aligned; anything else is a number.
    after.chain(inside).filter(move |_| word.is_multiple_of(8))
}

/// How far before each lock the pointers on its waiters' stacks point: to the object around the lock.
fn distances(wanted: &BTreeMap<u64, Wanted>, threads: &Threads) -> HashMap<u64, BTreeSet<u64>> {
    wanted
        .iter()
        .map(|(&lock, entry)| {
            let stacks = entry.waiters.iter().take(LEARN_FROM).filter_map(|&ix| threads.get(ix));
            let before = stacks.flat_map(|thread| thread.stack().1).filter_map(|word| {
                lock.checked_sub(*word)
                    .filter(|distance| (1..=OBJECT).contains(distance))
            });
            (lock, before.collect())
        })
        .collect()
}

/// The mmap_lock under which the thread serves a page fault.
fn faults_under(thread: &Thread, o: &KernelOffsets, code: &CodeMap) -> Option<u64> {
    let offset = o.mm.mmap_lock?;
    if thread.record.mm == 0 || !thread.frames.iter().any(|&f| code.class(f) == Some(Class::PageFault)) {
        return None;
    }
    Some(thread.record.mm.wrapping_add(offset.into()))
}

fn ranked(lock: u64, entry: &Wanted, signs: &BTreeMap<(u64, ThreadIx), Sign>, threads: &Threads) -> Vec<Candidate> {
    let of_lock = signs.range((lock, ThreadIx(0))..=(lock, ThreadIx(u32::MAX)));
    let mut found: Vec<(Rank, ThreadIx)> = of_lock
        .filter(|((_, ix), sign)| **sign == Sign::Hint || !entry.waiters.contains(ix))
        .filter_map(|(&(_, ix), &sign)| {
            let slowness = slowness(threads.get(ix)?.state());
            let hinted = entry.hint == Some(ix) && sign != Sign::Hint;
            Some((
                Rank {
                    sleeps_by_choice: slowness >= BY_CHOICE,
                    without_hint: !hinted,
                    sign,
                    slowness,
                },
                ix,
            ))
        })
        .collect();
    found.sort_unstable();
    // Where anything better is known, a pointer to somewhere near says nothing.
    if found.iter().any(|(rank, _)| rank.sign != Sign::Near) {
        found.retain(|(rank, _)| rank.sign != Sign::Near);
    }
    found.truncate(MAX_CANDIDATES);
    (0..)
        .zip(found)
        .map(|(rank, (Rank { sign, .. }, thread))| Candidate {
            lock,
            kind: entry.kind,
            mode: entry.mode,
            thread,
            rank,
            evidence: sign.evidence(),
        })
        .collect()
}

/// How probable a candidate is; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Who sleeps until something happens seldom holds a lock, and often has old words on its stack.
    sleeps_by_choice: bool,
    /// Two signs are better than one.
    without_hint: bool,
    sign: Sign,
    slowness: u8,
}

/// Slowness from which on a thread sleeps by choice.
const BY_CHOICE: u8 = 4;

/// Among equals, who sleeps deepest is the most probable holder of a lock that is not released.
fn slowness(state: TaskState) -> u8 {
    match state {
        TaskState::InIo => 0,
        TaskState::Uninterruptible | TaskState::Stopped => 1,
        TaskState::Runnable => 2,
        TaskState::Running => 3,
        TaskState::Interruptible => BY_CHOICE,
        TaskState::Idle | TaskState::Exited | TaskState::Unknown => BY_CHOICE + 1,
    }
}
