//! Sampling rounds: every wait that is old enough is re-read from its lock, with the state of the waiter and of the owner.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use aya::{Btf, Ebpf};
use tracer_common::table::WaitSlot;

use super::records::Records;
use crate::bpf::iterators;
use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::bpf::stats::Losses;
use crate::event::{Actor, Body, Event, LossCause, Owner, Queued, Round, RoundEdge, RoundScope, TaskState, WaitSample};
use crate::ids::{LockAddr, Nanos, Tid, Timestamp};

const ITERATOR: &str = "iter_waits";
/// Locks initialised again that are kept in mind.
const MAX_REINITIALISED: usize = 1024;
/// Size of the INTEREST map.
const MAX_INTEREST: usize = 8192;
/// 64-bit words of a [`WaitSlot`] that tell whether it holds an old wait.
const LOCK_WORD: usize = 0;
const SINCE_WORD: usize = 1;

/// State of the rounds.
pub struct Rounds {
    waits: SharedArray<WaitSlot>,
    interest: HashMap<MapData, u32, u32>,
    /// Threads in the map.
    watched: BTreeSet<Tid>,
    /// Owners of the last round that did not wait themselves.
    owners: BTreeSet<Tid>,
    age: Nanos,
    number: u64,
    /// Locks that were initialised again while in use: who waits for one of them stands on no list that it knows.
    reinitialised: HashSet<LockAddr>,
    /// Whether the last round found something: then one more round must say that it is over.
    active: bool,
    bytes: Vec<u8>,
}

impl Rounds {
    /// Takes the maps and loads the iterator.
    ///
    /// # Errors
    /// When a map is missing or the iterator is refused.
    pub fn new(ebpf: &mut Ebpf, btf: &Btf, sizes: &Sizes, age: Nanos) -> Result<Self> {
        let waits = ebpf.take_map("WAITS").context("the BPF object has no map WAITS")?;
        let interest = ebpf
            .take_map("INTEREST")
            .context("the BPF object has no map INTEREST")?;
        iterators::load(ebpf, ITERATOR, btf)?;
        Ok(Self {
            waits: SharedArray::new(waits, "WAITS", sizes.wait_entries() as usize)?,
            interest: interest.try_into()?,
            watched: BTreeSet::new(),
            owners: BTreeSet::new(),
            age,
            reinitialised: HashSet::new(),
            number: 0,
            active: false,
            bytes: Vec::new(),
        })
    }

    /// Begins a round if any wait is old enough, if the previous round must be closed, or if the state of `suspects` is wanted.
    /// Returns the event that ends it, to be sent when everything else that still waits has been reported.
    ///
    /// # Errors
    /// When the iterator fails.
    pub fn run(
        &mut self,
        suspects: &BTreeSet<Tid>,
        ebpf: &mut Ebpf,
        decoder: &mut Records,
        losses: &mut Losses,
        now: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<Option<Event>> {
        if !self.active && suspects.is_empty() && !self.any_old(now) {
            return Ok(None);
        }
        self.watch(self.owners.union(suspects).copied().take(MAX_INTEREST).collect());
        self.number += 1;
        self.bytes.clear();
        iterators::run(ebpf, ITERATOR, &mut self.bytes)?;
        let round = |edge| {
            Body::Round(Round {
                number: self.number,
                edge,
                scope: RoundScope::Pending,
            })
        };
        out.push(Event {
            time: now,
            body: round(RoundEdge::Begin),
        });
        let from = out.len();
        let mut rest = self.bytes.as_slice();
        let mut edge = RoundEdge::End;
        while !rest.is_empty() {
            match decoder.decode(rest, out) {
                Ok(taken) if taken > 0 => rest = rest.get(taken..).unwrap_or_default(),
                _ => {
                    // Without a good size the start of the next record is not known.
                    losses.add(LossCause::Malformed, 1);
                    edge = RoundEdge::Aborted;
                    break;
                }
            }
        }
        drop_ended(from, &self.reinitialised, out);
        let (waiting, owners) = summarise(out.get(from..).unwrap_or_default());
        self.active = !waiting.is_empty();
        self.owners = owners.difference(&waiting).copied().collect();
        let end = out.iter().skip(from).map(|e| e.time).max().unwrap_or(now).max(now);
        Ok(Some(Event {
            time: end,
            body: round(edge),
        }))
    }

    /// Takes note of locks that were initialised again while in use.
    pub fn note_reinits(&mut self, events: &[Event]) {
        let locks = events.iter().filter_map(|event| match &event.body {
            Body::Reinit(reinit) => Some(reinit.lock),
            _ => None,
        });
        let room = MAX_REINITIALISED.saturating_sub(self.reinitialised.len());
        self.reinitialised.extend(locks.take(room));
    }

    /// Whether the last round found a wait that is old enough.
    #[must_use]
    pub fn found_waits(&self) -> bool {
        self.active
    }

    fn any_old(&self, now: Timestamp) -> bool {
        (0..self.waits.len()).any(|slot| {
            let word = |word| self.waits.word(slot, word).unwrap_or(0);
            word(LOCK_WORD) != 0 && now.since(Timestamp(word(SINCE_WORD))) >= self.age
        })
    }

    /// Asks the iterator for the state of these threads.
    fn watch(&mut self, wanted: BTreeSet<Tid>) {
        for gone in self.watched.difference(&wanted) {
            // Already gone from the map is what we want.
            let _ = self.interest.remove(&gone.0);
        }
        for new in wanted.difference(&self.watched) {
            // A full map only means that this owner's stack is not shown.
            let _ = self.interest.insert(new.0, 1, 0);
        }
        self.watched = wanted;
    }
}

/// Drops waits of the last round which the lock itself denies: the end was missed, because the kernel skips a program that is
/// already running on the CPU. Without that a slot left behind would look like a wait for ever.
fn drop_ended(from: usize, reinitialised: &HashSet<LockAddr>, out: &mut Vec<Event>) {
    let asleep: HashSet<Tid> = out
        .iter()
        .skip(from)
        .filter_map(|event| match &event.body {
            Body::Task(sample) => {
                (!matches!(sample.state, TaskState::Running | TaskState::Runnable)).then_some(sample.task.key.tid)
            }
            _ => None,
        })
        .collect();
    let mut index = 0;
    out.retain(|event| {
        index += 1;
        match (&event.body, index > from) {
            (
                Body::Wait(WaitSample {
                    queued: Queued::Absent,
                    waiter: Actor::Task(key),
                    lock,
                    ..
                }),
                true,
            ) => !asleep.contains(&key.tid) || reinitialised.contains(lock),
            _ => true,
        }
    });
}

/// Threads that wait, and threads that own what they wait for.
fn summarise(events: &[Event]) -> (BTreeSet<Tid>, BTreeSet<Tid>) {
    let mut waiting = BTreeSet::new();
    let mut owners = BTreeSet::new();
    for event in events {
        let Body::Wait(wait) = &event.body else { continue };
        if let Actor::Task(key) = wait.waiter {
            waiting.insert(key.tid);
        }
        match &wait.owner {
            Owner::Task(task) | Owner::Readers { hint: Some(task), .. } => {
                owners.insert(task.key.tid);
            }
            _ => {}
        }
    }
    (waiting, owners)
}

const _: () = {
    assert!(std::mem::offset_of!(WaitSlot, wait) == LOCK_WORD * 8);
    assert!(std::mem::offset_of!(tracer_common::table::Wait, lock) == 0);
    assert!(std::mem::offset_of!(tracer_common::table::Wait, since) == (SINCE_WORD - LOCK_WORD) * 8);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Evidence, LockKind, Mode, Phase, TaskRef, TaskSample};
    use crate::ids::{StackId, TaskKey, Tgid};

    fn key(tid: u32) -> TaskKey {
        TaskKey {
            tid: Tid(tid),
            start: Timestamp(1),
        }
    }

    fn thread(tid: u32, state: TaskState) -> Event {
        let task = TaskRef {
            key: key(tid),
            tgid: Tgid(tid),
            comm: "t".into(),
        };
        Event {
            time: Timestamp(9),
            body: Body::Task(TaskSample::of(task, state)),
        }
    }

    fn wait(tid: u32, queued: Queued, owner: Owner) -> Event {
        let body = Body::Wait(WaitSample {
            waiter: Actor::Task(key(tid)),
            task: None,
            lock: LockAddr(0x1000),
            kind: LockKind::Mutex,
            mode: Mode::Exclusive,
            phase: Phase::Sleeping,
            since: Some(Timestamp(2)),
            owner_word: 0,
            owner,
            queued,
            cpu: None,
            stack: StackId(0),
            evidence: Evidence::Reread,
        });
        Event {
            time: Timestamp(9),
            body,
        }
    }

    #[test]
    fn a_sleeper_that_is_not_on_the_wait_list_does_not_wait() {
        let older = wait(1, Queued::Absent, Owner::Nobody);
        let round = [
            thread(1, TaskState::Uninterruptible),
            wait(1, Queued::Absent, Owner::Nobody),
            thread(2, TaskState::Uninterruptible),
            wait(2, Queued::At(0), Owner::Nobody),
            thread(3, TaskState::Running),
            wait(3, Queued::Absent, Owner::Nobody),
            thread(4, TaskState::Interruptible),
            wait(4, Queued::Unknown, Owner::Nobody),
        ];
        let mut events = vec![older.clone()];
        events.extend(round.clone());
        let mut lost = events.clone();
        drop_ended(1, &HashSet::from([LockAddr(0x1000)]), &mut lost);
        assert_eq!(lost, events, "its lock was initialised again and does not know it");
        drop_ended(1, &HashSet::new(), &mut events);
        let mut expected = vec![older];
        expected.extend(
            round
                .into_iter()
                .enumerate()
                .filter(|(i, _)| *i != 1)
                .map(|(_, event)| event),
        );
        assert_eq!(events, expected);
    }

    #[test]
    fn owners_are_looked_after_unless_they_wait_themselves() {
        let owner = |tid| {
            Owner::Task(TaskRef {
                key: key(tid),
                tgid: Tgid(tid),
                comm: "o".into(),
            })
        };
        let events = [wait(1, Queued::At(0), owner(2)), wait(2, Queued::At(0), owner(3))];
        let (waiting, owners) = summarise(&events);
        assert_eq!(waiting, [Tid(1), Tid(2)].into());
        assert_eq!(owners, [Tid(2), Tid(3)].into());
    }
}
