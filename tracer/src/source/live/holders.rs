//! Where the threads that hold others up spend their time, as the scheduler's own events tell.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Ebpf;
use tracer_common::table::{HOLDER_SLOTS, HolderSlot, holder_slot, holder_state};

use crate::bpf::shared::SharedArray;
use crate::event::{Body, Event, Owner, TaskRef, TaskState, TimeSpent};
use crate::ids::{Nanos, Tid, Timestamp};

/// 64-bit words of a [`HolderSlot`].
const TID_WORD: usize = std::mem::offset_of!(HolderSlot, tid) / 8;
const STATE_WORD: usize = std::mem::offset_of!(HolderSlot, state) / 8;
const CHANGED_WORD: usize = std::mem::offset_of!(HolderSlot, changed) / 8;
const SPENT_WORD: usize = std::mem::offset_of!(HolderSlot, spent) / 8;

/// Who was not seen to hold somebody up for this long is followed no more.
const FORGOTTEN: Nanos = Nanos::from_millis(2500);

/// A thread that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    task: TaskRef,
    since: Timestamp,
    /// When it was last seen to hold somebody up.
    named: Timestamp,
    /// State and switch count when it was first sampled since.
    first: Option<(TaskState, Option<u64>)>,
}

/// The threads that are followed.
#[derive(Debug)]
pub struct Holders {
    slots: SharedArray<HolderSlot>,
    followed: BTreeMap<Tid, Followed>,
}

impl Holders {
    /// Takes the map.
    ///
    /// # Errors
    /// When it is missing.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("HOLDERS").context("the BPF object has no map HOLDERS")?;
        Ok(Self {
            slots: SharedArray::new(map, "HOLDERS", HOLDER_SLOTS as usize)?,
            followed: BTreeMap::new(),
        })
    }

    /// Follows who holds somebody up in the newest events, which begin at `from`, and tells of all who were followed until now.
    pub fn update(&mut self, from: usize, now: Timestamp, out: &mut Vec<Event>) {
        let events = out.get(from..).unwrap_or_default();
        let rounds = events.iter().any(|event| matches!(event.body, Body::Round(_)));
        if !rounds && self.followed.is_empty() {
            return;
        }
        let owners = owners(events);
        let samples: BTreeMap<Tid, (TaskState, Option<u64>)> = events
            .iter()
            .filter_map(|event| match &event.body {
                Body::Task(sample) => Some((sample.task.key.tid, (sample.state, sample.switches))),
                _ => None,
            })
            .collect();
        let mut over = Vec::new();
        for (&tid, followed) in &mut self.followed {
            let sample = samples.get(&tid).copied();
            followed.first = followed.first.or(sample);
            match owners.get(&tid) {
                Some(task) if task.key == followed.task.key => followed.named = now,
                // The walk over all threads, which names some of them, is not made in every round.
                None if now.since(followed.named) < FORGOTTEN => continue,
                // An id may have been given to another thread.
                _ => {
                    over.push(tid);
                    continue;
                }
            }
            if let Some(slot) = self.slots.get(place(tid)) {
                out.push(Event {
                    time: now,
                    body: Body::TimeSpent(spent(followed, &slot, sample, now)),
                });
            }
        }
        for tid in over {
            self.followed.remove(&tid);
            self.slots.set_word(place(tid), TID_WORD, 0);
        }
        for (tid, task) in owners {
            self.follow(tid, task, now);
        }
    }

    fn follow(&mut self, tid: Tid, task: TaskRef, now: Timestamp) {
        let place = place(tid);
        // Two threads may share a place: then the first one has it, and nothing is told of the second.
        if self.followed.contains_key(&tid) || self.slots.word(place, TID_WORD) != Some(0) {
            return;
        }
        for word in 0..holder_state::COUNT {
            self.slots.set_word(place, SPENT_WORD + word, 0);
        }
        self.slots.set_word(place, STATE_WORD, holder_state::UNKNOWN);
        self.slots.set_word(place, CHANGED_WORD, now.0);
        // The programs take notice from here on.
        self.slots.set_word(place, TID_WORD, tid.0.into());
        let followed = Followed {
            task,
            since: now,
            named: now,
            first: None,
        };
        self.followed.insert(tid, followed);
    }
}

fn place(tid: Tid) -> usize {
    holder_slot(tid.0) as usize
}

/// Threads that hold a lock with waiters, or may hold it.
fn owners(events: &[Event]) -> BTreeMap<Tid, TaskRef> {
    let owner = |event: &Event| match &event.body {
        Body::Wait(wait) => match &wait.owner {
            Owner::Task(task) | Owner::Readers { hint: Some(task), .. } => Some((task.key.tid, task.clone())),
            _ => None,
        },
        Body::Holder(candidate) => candidate.task.clone().map(|task| (task.key.tid, task)),
        Body::Dependency(sample) => sample.on_task.clone().map(|task| (task.key.tid, task)),
        _ => None,
    };
    events.iter().filter_map(owner).filter(|(tid, _)| tid.0 != 0).collect()
}

/// What is known of a thread's time since it was followed. Its newest state lasts until now; one that has not changed its state at all
/// was in it all the time if its first and its newest sample say the same and it has not been switched in between.
fn spent(
    followed: &Followed,
    slot: &HolderSlot,
    sample: Option<(TaskState, Option<u64>)>,
    now: Timestamp,
) -> TimeSpent {
    let mut sums = slot.spent;
    let state = match slot.state {
        holder_state::UNKNOWN => sample
            .filter(|sample| followed.first == Some(*sample) && sample.1.is_some())
            .map_or(holder_state::UNKNOWN, |(state, _)| of(state)),
        known => known,
    };
    let last = now.since(Timestamp(slot.changed)).0;
    if let Some(sum) = usize::try_from(state).ok().and_then(|at| sums.get_mut(at)) {
        *sum = sum.saturating_add(last);
    }
    let of = |state: u64| {
        Nanos(
            usize::try_from(state)
                .ok()
                .and_then(|at| sums.get(at))
                .copied()
                .unwrap_or(0),
        )
    };
    TimeSpent {
        task: followed.task.clone(),
        since: followed.since,
        running: of(holder_state::RUNNING),
        runnable: of(holder_state::RUNNABLE),
        sleeping: of(holder_state::SLEEPING),
        io: of(holder_state::IO),
    }
}

fn of(state: TaskState) -> u64 {
    match state {
        TaskState::Running => holder_state::RUNNING,
        TaskState::Runnable => holder_state::RUNNABLE,
        TaskState::InIo => holder_state::IO,
        TaskState::Uninterruptible | TaskState::Interruptible | TaskState::Idle | TaskState::Stopped => {
            holder_state::SLEEPING
        }
        TaskState::Exited | TaskState::Unknown => holder_state::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{TaskKey, Tgid};

    fn followed(first: Option<(TaskState, Option<u64>)>) -> Followed {
        let key = TaskKey {
            tid: Tid(7),
            start: Timestamp(1),
        };
        Followed {
            task: TaskRef {
                key,
                tgid: Tgid(7),
                comm: "h".into(),
            },
            since: Timestamp(100),
            named: Timestamp(100),
            first,
        }
    }

    fn told(slot: HolderSlot, first: Option<(TaskState, Option<u64>)>, sample: (TaskState, u64)) -> [u64; 4] {
        let sample = Some((sample.0, Some(sample.1)));
        let spent = spent(&followed(first), &slot, sample, Timestamp(1100));
        [spent.running, spent.runnable, spent.sleeping, spent.io].map(|n| n.0)
    }

    #[test]
    fn the_newest_state_lasts_until_now() {
        let mut slot = HolderSlot::NONE;
        (slot.state, slot.changed) = (holder_state::IO, 900);
        slot.spent = [0, 300, 100, 400, 0, 0, 0, 0];
        assert_eq!(told(slot, None, (TaskState::Running, 9)), [300, 100, 400, 200]);
    }

    #[test]
    fn who_never_changed_was_in_its_sampled_state_all_the_time_and_only_then() {
        let mut slot = HolderSlot::NONE;
        slot.changed = 100;
        let asleep = Some((TaskState::Uninterruptible, Some(5)));
        assert_eq!(told(slot, asleep, (TaskState::Uninterruptible, 5)), [0, 0, 1000, 0]);
        assert_eq!(
            told(slot, asleep, (TaskState::Uninterruptible, 6)),
            [0; 4],
            "it has run"
        );
        assert_eq!(
            told(slot, None, (TaskState::Uninterruptible, 5)),
            [0; 4],
            "first sample"
        );
        let running = Some((TaskState::Running, Some(5)));
        assert_eq!(told(slot, running, (TaskState::Running, 5)), [1000, 0, 0, 0]);
    }
}
