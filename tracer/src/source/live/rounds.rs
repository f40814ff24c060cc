//! Sampling rounds: every wait that is old enough is re-read from its lock, with the state of the waiter and of the owner.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use aya::{Btf, Ebpf};
use tracer_common::table::WaitSlot;

use crate::bpf::attach;
use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::bpf::stats::Losses;
use crate::event::{Actor, Body, Event, LossCause, Owner, Round, RoundEdge, RoundScope};
use crate::ids::{Nanos, Tid, Timestamp};
use crate::wire::Decoder;

const ITERATOR: &str = "iter_waits";
/// Size of the INTEREST map.
const MAX_INTEREST: usize = 8192;
/// 64-bit words of a [`WaitSlot`] that tell whether it holds an old wait.
const TID_WORD: usize = 0;
const LOCK_WORD: usize = 1;
const SINCE_WORD: usize = 2;

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
        attach::load_iterator(ebpf, ITERATOR, btf)?;
        Ok(Self {
            waits: SharedArray::new(waits, "WAITS", sizes.wait_entries() as usize)?,
            interest: interest.try_into()?,
            watched: BTreeSet::new(),
            owners: BTreeSet::new(),
            age,
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
        decoder: &mut Decoder,
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
        attach::run_iterator(ebpf, ITERATOR, &mut self.bytes)?;
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
        let (waiting, owners) = summarise(out.get(from..).unwrap_or_default());
        self.active = !waiting.is_empty();
        self.owners = owners.difference(&waiting).copied().collect();
        let end = out.iter().skip(from).map(|e| e.time).max().unwrap_or(now).max(now);
        Ok(Some(Event {
            time: end,
            body: round(edge),
        }))
    }

    fn any_old(&self, now: Timestamp) -> bool {
        (0..self.waits.len()).any(|slot| {
            let word = |word| self.waits.word(slot, word).unwrap_or(0);
            word(TID_WORD) != 0 && word(LOCK_WORD) != 0 && now.since(Timestamp(word(SINCE_WORD))) >= self.age
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
    assert!(std::mem::offset_of!(WaitSlot, tid) == TID_WORD * 8);
    assert!(std::mem::offset_of!(WaitSlot, wait) == LOCK_WORD * 8);
    assert!(std::mem::offset_of!(tracer_common::table::Wait, lock) == 0);
    assert!(std::mem::offset_of!(tracer_common::table::Wait, since) == (SINCE_WORD - LOCK_WORD) * 8);
};
