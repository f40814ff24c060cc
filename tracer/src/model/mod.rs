//! The live wait-for graph: who waits for what, who holds it, and how sure that is.
//!
//! [`Model::apply`] takes events in the order in which they arrive, which need not be the order in which they happened; some
//! are lost, some come twice. Time comes only from the events. The model records observations with the spans of time over
//! which they are known to hold, and leaves conclusions to [`crate::diagnosis`].

mod actors;
mod apply;
mod arena;
mod evict;
mod holds;
mod locks;
mod loss;
mod names;
mod orders;
mod rounds;
mod settings;
mod stalls;
mod stats;
mod steady;
mod waits;
mod watched;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use actors::{ActorEntry, Actors, Depends, Sampled, is_asleep};
pub use arena::{ActorIx, Arena, Index, LockIx, WaitIx};
pub use holds::Holds;
pub use locks::{Candidate, Held, LockEntry, LockKey, Locks, OwnerRead};
pub use loss::Losses;
pub use names::Names;
pub use orders::{OrderSeen, Orders};
pub use settings::Settings;
pub use stalls::Stalls;
pub use stats::{BUCKETS, Contention, Totals, WINDOW, Window};
pub use steady::{Span, Steady};
pub use waits::{Wait, is_begin};
pub use watched::{Holding, LongestHold, WatchedLock, WatchedLocks};

use crate::event::{Actor, Body, Dependency, Event, Queued, Reinit, TaskRef};
use crate::ids::{TaskKey, Timestamp};
use rounds::Rounds;

/// Re-initialisations kept.
const MAX_REINITS: usize = 256;

/// A lock that was initialised again while in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReinitSeen {
    /// When.
    pub time: Timestamp,
    /// What was seen.
    pub event: Reinit,
    /// Waits for it that were pending by other evidence.
    pub known_waiters: usize,
    /// What it is, where that is no lock and somebody was seen to wait for it.
    pub awaited: Option<Dependency>,
}

/// Everything known about tasks, locks and waits at one time.
#[derive(Debug)]
pub struct Model {
    settings: Settings,
    now: Timestamp,
    events: u64,
    missed_ends: u64,
    unseen_ends: u64,
    actors: Actors,
    locks: Locks,
    waits: Arena<WaitIx, Wait>,
    names: Names,
    losses: Losses,
    orders: Orders,
    depending: BTreeSet<ActorIx>,
    stalls: Stalls,
    reinits: Vec<ReinitSeen>,
    watched: WatchedLocks,
    pending_rounds: Rounds,
    scan_rounds: Rounds,
    actor_bound: usize,
    lock_bound: usize,
}

impl Model {
    /// An empty model.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            now: Timestamp(0),
            events: 0,
            missed_ends: 0,
            unseen_ends: 0,
            actors: Actors::default(),
            locks: Locks::default(),
            waits: Arena::default(),
            names: Names::new(settings.max_stacks, settings.max_locks),
            losses: Losses::default(),
            orders: Orders::default(),
            depending: BTreeSet::new(),
            stalls: Stalls::default(),
            reinits: Vec::new(),
            watched: WatchedLocks::new(),
            pending_rounds: Rounds::default(),
            scan_rounds: Rounds::default(),
            actor_bound: settings.max_tasks,
            lock_bound: settings.max_locks,
            settings,
        }
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: &Event) {
        let time = event.time;
        self.events += 1;
        self.now = self.now.max(time);
        match &event.body {
            Body::Task(sample) => self.apply_task(time, sample),
            Body::TaskGone(key) => self.apply_gone(time, *key),
            Body::Wait(sample) => self.apply_wait(time, sample),
            Body::WaitEnd(end) => self.apply_wait_end(time, end),
            Body::Release(release) => self.apply_release(time, release),
            Body::Lock(sample) => self.apply_lock(time, sample),
            Body::Dependency(sample) => self.apply_dependency(time, sample),
            Body::Holder(candidate) => self.apply_holder(time, candidate),
            Body::Stats(stats) => {
                let lock = self.locks.resolve(stats.lock, stats.kind, time);
                if let Some(entry) = self.locks.get_mut(lock) {
                    entry
                        .contention
                        .get_or_insert_with(|| Box::new(Contention::new(time)))
                        .summed(time, stats);
                }
            }
            Body::Stack(stack) => self.names.stack(stack),
            Body::Symbol(symbol) => self.names.symbol(symbol),
            Body::CodeLine(line) => self.names.line(line),
            Body::LockName(name) => self.names.lock(name),
            Body::CgroupName(name) => self.names.name_cgroup(name),
            Body::Doing(doing) => self.apply_doing(time, doing),
            Body::UserStack(stack) => self.apply_user_stack(stack),
            Body::Reinit(reinit) => self.apply_reinit(time, reinit),
            Body::TimeSpent(spent) => self.apply_spent(time, spent),
            Body::Watch(watched) => self.apply_watched(time, watched),
            Body::Stall(stall) => self.stalls.apply(time, *stall),
            Body::Loss(report) => self.losses.apply(time, report),
            Body::Round(round) => self.apply_round(time, round),
            Body::Record(_) => {}
        }
        self.keep_bounds();
    }

    /// The time of the newest event.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets time pass without an event, so that waits grow older while nothing happens. Never goes back.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Events taken in.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Waits whose end no event told, but another event showed.
    #[must_use]
    pub fn missed_ends(&self) -> u64 {
        self.missed_ends
    }

    /// Waits that a complete round did not report any more: their length is known only as a lower bound.
    #[must_use]
    pub fn unseen_ends(&self) -> u64 {
        self.unseen_ends
    }

    /// Thresholds and bounds.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Threads and interrupt contexts.
    #[must_use]
    pub fn actors(&self) -> &Actors {
        &self.actors
    }

    /// Locks.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Pending waits.
    #[must_use]
    pub fn waits(&self) -> &Arena<WaitIx, Wait> {
        &self.waits
    }

    /// Actors that wait for something that is no lock.
    pub fn depending(&self) -> impl Iterator<Item = (ActorIx, &ActorEntry)> {
        self.depending.iter().filter_map(|&ix| Some((ix, self.actors.get(ix)?)))
    }

    /// Stacks, symbols and lock names.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What was not seen.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// (held, wanted) pairs.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// CPUs that neither schedule nor tick, as the kernel's own watchers say.
    #[must_use]
    pub fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    /// Locks initialised again while in use.
    #[must_use]
    pub fn reinits(&self) -> &[ReinitSeen] {
        &self.reinits
    }

    /// Begin of the newest complete walk over all threads.
    #[must_use]
    pub fn last_scan(&self) -> Option<Timestamp> {
        self.scan_rounds.complete
    }

    /// The waiters of a lock in queue order: by their place on the wait list where it is known, else by age.
    #[must_use]
    pub fn queue(&self, lock: &LockEntry) -> Vec<WaitIx> {
        let mut queue: Vec<(u32, Timestamp, WaitIx)> = lock
            .waiters
            .iter()
            .filter_map(|&ix| {
                let wait = self.waits.get(ix)?;
                let place = if let Queued::At(place) = wait.queued {
                    place
                } else {
                    u32::MAX
                };
                Some((place, self.wait_since(wait).0, ix))
            })
            .collect();
        queue.sort_unstable();
        queue.into_iter().map(|(_, _, ix)| ix).collect()
    }

    /// The thread's index, with its newest name.
    fn task(&mut self, time: Timestamp, task: &TaskRef) -> ActorIx {
        let actor = self.task_key(time, task.key);
        if let Some(entry) = self.actors.get_mut(actor) {
            match &mut entry.name {
                Some(known) if time < entry.last_seen || (known.comm == task.comm && known.tgid == task.tgid) => {}
                name => {
                    *name = Some(TaskRef {
                        comm: Arc::clone(&task.comm),
                        ..*task
                    })
                }
            }
            entry.last_seen = entry.last_seen.max(time);
        }
        actor
    }

    fn task_key(&mut self, time: Timestamp, key: TaskKey) -> ActorIx {
        let resolved = self.actors.task(key, time);
        if let Some(old) = resolved.replaced {
            // Its id has been given to another thread: it was gone before that one started.
            let gone = if key.start.0 == 0 { time } else { key.start };
            self.end_actor(old, gone);
        }
        resolved.actor
    }

    fn actor(&mut self, time: Timestamp, actor: Actor, name: Option<&TaskRef>) -> ActorIx {
        match actor {
            Actor::Task(key) => match name {
                Some(name) if name.key.tid == key.tid => {
                    let start = if key.start.0 == 0 { name.key.start } else { key.start };
                    let key = TaskKey { tid: key.tid, start };
                    self.task(
                        time,
                        &TaskRef {
                            key,
                            tgid: name.tgid,
                            comm: Arc::clone(&name.comm),
                        },
                    )
                }
                _ => {
                    let ix = self.task_key(time, key);
                    if let Some(entry) = self.actors.get_mut(ix) {
                        entry.last_seen = entry.last_seen.max(time);
                    }
                    ix
                }
            },
            Actor::Interrupt {
                cpu,
                context,
                interrupted,
            } => {
                let below = match (name, interrupted) {
                    (Some(name), _) => Some(self.task(time, name)),
                    (None, Some(key)) => Some(self.task_key(time, key)),
                    (None, None) => None,
                };
                let ix = self.actors.interrupt(cpu, context, time);
                if let Some(entry) = self.actors.get_mut(ix) {
                    if time >= entry.last_seen && below.is_some() {
                        entry.interrupted = below;
                        entry.name = name.cloned();
                    }
                    entry.last_seen = entry.last_seen.max(time);
                }
                ix
            }
        }
    }
}
