//! Who acts: threads and interrupt contexts, each with what it waits for and what it holds.

use rustc_hash::FxHashMap;

use super::arena::{ActorIx, Arena, LockIx, WaitIx};
use super::locks::LockKey;
use super::steady::{Span, Steady};
use crate::event::{
    Activity, Actor, Context, Dependency, Evidence, TaskRef, TaskSample, TaskState, TimeSpent, UserStack,
};
use crate::ids::{CgroupId, CpuId, KernelAddr, LockAddr, StackId, TaskKey, Tid, Timestamp};

/// What is known about one thread or interrupt context.
#[derive(Debug)]
pub struct ActorEntry {
    /// Identity; the start time of a thread is filled in when it becomes known.
    pub id: Actor,
    /// Newest name of the thread (for an interrupt: of the thread it interrupted).
    pub name: Option<TaskRef>,
    /// For an interrupt: the thread below it.
    pub interrupted: Option<ActorIx>,
    /// Newest sample of the thread.
    pub sample: Option<Sampled>,
    /// Context switch count while asleep: as long as it is unchanged, the thread has not run.
    pub asleep: Option<Steady<u64>>,
    /// What it was about when it fell asleep; forgotten as soon as it has run.
    pub doing: Option<Activity>,
    /// Where it came from in user space when it fell asleep; forgotten as soon as it has run.
    pub user_stack: Option<Box<UserStack>>,
    /// Pending waits, outermost first.
    pub waits: Vec<WaitIx>,
    /// Locks whose newest owner word names this thread.
    pub holds: Vec<LockIx>,
    /// What it waits for that is no lock.
    pub dependency: Option<Box<Depends>>,
    /// Where it has spent its time since it was followed, and up to when that is known.
    pub spent: Option<Box<(TimeSpent, Timestamp)>>,
    /// When it was found to be gone.
    pub gone: Option<Timestamp>,
    /// When the newest event about it happened.
    pub last_seen: Timestamp,
    /// When the oldest event about it happened.
    pub first_seen: Timestamp,
    ended: [Ended; 2],
}

/// The end of a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ended {
    addr: LockAddr,
    spins: Option<bool>,
    time: Timestamp,
}

/// The newest state of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// When.
    pub time: Timestamp,
    /// Running, runnable or asleep.
    pub state: TaskState,
    /// CPU it runs on or ran on last.
    pub cpu: Option<CpuId>,
    /// Last time it left or entered a CPU.
    pub last_switch: Option<Timestamp>,
    /// No user-space part.
    pub kernel_thread: bool,
    /// cgroup, 0 when unknown.
    pub cgroup: CgroupId,
    /// Kernel stack, 0 when not taken.
    pub stack: StackId,
    /// The work a workqueue worker executes.
    pub work: Option<KernelAddr>,
}

/// A pending wait for something that is no lock.
#[derive(Clone, Debug)]
pub struct Depends {
    /// What for.
    pub dependency: Dependency,
    /// Who has to act.
    pub on: Option<ActorIx>,
    /// When it began, where known.
    pub since: Option<Timestamp>,
    /// When it was seen, unchanged.
    pub seen: Span,
    /// Times at which it was read.
    pub reads: u32,
    /// Context switches of the sleeping waiter at the newest read, where they are known.
    pub asleep: Option<u64>,
    /// Stack of the waiter.
    pub stack: StackId,
    /// Who says so.
    pub evidence: Evidence,
}

/// Whether the scheduler has taken a thread in this state off its CPU until somebody wakes it.
#[must_use]
pub fn is_asleep(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::InIo | TaskState::Uninterruptible | TaskState::Interruptible | TaskState::Idle | TaskState::Stopped
    )
}

impl ActorEntry {
    fn new(id: Actor, time: Timestamp) -> Self {
        Self {
            id,
            name: None,
            interrupted: None,
            sample: None,
            asleep: None,
            doing: None,
            user_stack: None,
            waits: Vec::new(),
            holds: Vec::new(),
            dependency: None,
            spent: None,
            gone: None,
            last_seen: time,
            first_seen: time,
            ended: [Ended::default(); 2],
        }
    }

    /// Identity of the thread; `None` for an interrupt.
    #[must_use]
    pub fn task(&self) -> Option<TaskKey> {
        match self.id {
            Actor::Task(key) => Some(key),
            Actor::Interrupt { .. } => None,
        }
    }

    /// State in the newest sample; [`TaskState::Exited`] once gone.
    #[must_use]
    pub fn state(&self) -> TaskState {
        if self.gone.is_some() {
            return TaskState::Exited;
        }
        self.sample.map_or(TaskState::Unknown, |s| s.state)
    }

    /// Since when it has been asleep without a break, as far as its samples and its last context switch tell.
    #[must_use]
    pub fn asleep_since(&self) -> Option<Timestamp> {
        let sample = self.sample.filter(|s| is_asleep(s.state))?;
        let read = self.asleep.map(|a| a.span.first).unwrap_or(sample.time);
        Some(sample.last_switch.map_or(read, |switch| switch.min(read)))
    }

    /// Since when it waits for what is no lock, and whether that is exact (`false`: at least since then). `None`: it does not.
    #[must_use]
    pub fn depends_since(&self) -> Option<(Timestamp, bool)> {
        let depends = self.dependency.as_deref()?;
        Some(match (depends.since, self.asleep_since()) {
            (Some(since), _) => (since, true),
            // A sleeper was already waiting when it fell asleep.
            (None, Some(asleep)) => (asleep.min(depends.seen.first), false),
            (None, None) => (depends.seen.first, false),
        })
    }

    /// Whether the sample of `time`, the newest, shows that it has run since its dependency was last seen: then that wait is over, or
    /// its end is being looked at. No event tells the end of such a wait.
    #[must_use]
    pub fn has_left_dependency(&self, time: Timestamp) -> bool {
        let (Some(depends), Some(sample)) = (self.dependency.as_deref(), self.sample) else {
            return false;
        };
        // What a CPU waits for, it waits for while it runs.
        if depends.evidence == Evidence::CpuSample || sample.time != time || time <= depends.seen.last {
            return false;
        }
        let awake = matches!(
            sample.state,
            TaskState::Running | TaskState::Runnable | TaskState::Exited
        );
        let slept = depends.asleep.zip(self.asleep.map(|a| a.value));
        awake || slept.is_some_and(|(then, now)| then != now)
    }

    /// The wait it is stuck in now: the innermost one.
    #[must_use]
    pub fn innermost(&self) -> Option<WaitIx> {
        self.waits.last().copied()
    }

    /// Remembers the end of a wait, so that a late or repeated begin does not revive it. `spins`: what kind of lock was waited
    /// for, where that is known.
    pub fn remember_end(&mut self, addr: LockAddr, spins: Option<bool>, time: Timestamp) {
        let new = Ended { addr, spins, time };
        if let Some(known) = self.ended.iter_mut().find(|e| (e.addr, e.spins) == (addr, spins)) {
            known.time = known.time.max(time);
        } else {
            self.ended = [new, self.ended[0]];
        }
    }

    /// Whether a wait for this lock seen at `time` had ended by then.
    #[must_use]
    pub fn has_ended(&self, lock: LockKey, time: Timestamp) -> bool {
        let over = |e: &Ended| e.addr == lock.addr && e.spins.is_none_or(|spins| spins == lock.spins) && time <= e.time;
        self.ended.iter().any(over) || self.is_gone_at(time)
    }

    /// Whether this very end of a wait at `addr` was told before; `spins` as for [`Self::remember_end`].
    #[must_use]
    pub fn knows_end(&self, addr: LockAddr, spins: Option<bool>, time: Timestamp) -> bool {
        let same = |e: &Ended| e.spins.is_none() || spins.is_none() || e.spins == spins;
        let known = |e: &Ended| e.addr == addr && same(e) && time <= e.time;
        self.ended.iter().any(known) || self.is_gone_at(time)
    }

    fn is_gone_at(&self, time: Timestamp) -> bool {
        self.gone.is_some_and(|gone| time <= gone)
    }

    /// Takes in a sample of the thread's state. Late ones only check what is known, they replace nothing.
    pub fn take_sample(&mut self, time: Timestamp, sample: &TaskSample) {
        let slept = self.asleep.map(|steady| steady.value);
        match sample.switches {
            Some(switches) if is_asleep(sample.state) => match &mut self.asleep {
                Some(steady) => {
                    // The count only grows: an older sample with the same one, told late, says that it slept all the time.
                    if steady.value == switches {
                        steady.span.first = steady.span.first.min(time);
                    }
                    steady.read(switches, time);
                }
                none => *none = Some(Steady::new(switches, time)),
            },
            // It runs, or cannot be told: whatever it was asleep in is over if this is news.
            _ if self.asleep.is_some_and(|a| time >= a.span.first) => self.asleep = None,
            _ => {}
        }
        if self.asleep.map(|steady| steady.value) != slept {
            self.doing = None;
            self.user_stack = None;
        }
        if self.sample.is_some_and(|s| s.time > time) {
            return;
        }
        if sample.state == TaskState::Exited && self.sample.is_some_and(|s| s.state == TaskState::Exited) {
            // Nothing is news of the dead, and rules ask since when it is dead.
            return;
        }
        self.sample = Some(Sampled {
            time,
            state: sample.state,
            cpu: sample.cpu,
            last_switch: sample.last_switch,
            kernel_thread: sample.kernel_thread,
            cgroup: sample.cgroup,
            stack: sample.stack,
            work: sample.work,
        });
    }
}

/// All actors, by identity.
#[derive(Debug, Default)]
pub struct Actors {
    entries: Arena<ActorIx, ActorEntry>,
    current: FxHashMap<Tid, ActorIx>,
    older: FxHashMap<TaskKey, ActorIx>,
    interrupts: FxHashMap<(CpuId, Context), ActorIx>,
}

/// What [`Actors::task`] found out about a thread id.
pub struct Resolved {
    /// The thread.
    pub actor: ActorIx,
    /// A thread which had the same id before and must be gone, since the id was given to a new one.
    pub replaced: Option<ActorIx>,
}

impl Actors {
    /// The entry of an actor.
    #[must_use]
    pub fn get(&self, ix: ActorIx) -> Option<&ActorEntry> {
        self.entries.get(ix)
    }

    /// The entry of an actor.
    pub fn get_mut(&mut self, ix: ActorIx) -> Option<&mut ActorEntry> {
        self.entries.get_mut(ix)
    }

    /// All actors.
    pub fn iter(&self) -> impl Iterator<Item = (ActorIx, &ActorEntry)> {
        self.entries.iter()
    }

    /// Number of actors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Upper bound of the indices in use.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.entries.slots()
    }

    /// The thread with this identity, if it is known.
    #[must_use]
    pub fn find(&self, key: TaskKey) -> Option<ActorIx> {
        let current = self.current.get(&key.tid).copied()?;
        let start = self.start(current);
        if key.start == start || key.start.0 == 0 || start.0 == 0 {
            return Some(current);
        }
        self.older.get(&key).copied()
    }

    fn start(&self, ix: ActorIx) -> Timestamp {
        self.get(ix)
            .and_then(ActorEntry::task)
            .map_or(Timestamp(0), |key| key.start)
    }

    /// The thread with this identity, as seen at `time`; creates it when it is new.
    ///
    /// A start time of 0 means that it is not known: such a key stands for whoever has the thread id at present.
    pub fn task(&mut self, key: TaskKey, time: Timestamp) -> Resolved {
        let Some(&current) = self.current.get(&key.tid) else {
            return Resolved {
                actor: self.create(key, time),
                replaced: None,
            };
        };
        let start = self.start(current);
        if key.start == start || key.start.0 == 0 {
            let reused = key.start.0 == 0 && self.get(current).and_then(|a| a.gone).is_some_and(|gone| time > gone);
            if !reused {
                return Resolved {
                    actor: current,
                    replaced: None,
                };
            }
            return self.replace(current, key, time);
        }
        if start.0 == 0 {
            let seen_before_start = self.get(current).is_some_and(|a| a.first_seen < key.start);
            if seen_before_start {
                return self.replace(current, key, time);
            }
            if let Some(entry) = self.get_mut(current) {
                entry.id = Actor::Task(key);
            }
            return Resolved {
                actor: current,
                replaced: None,
            };
        }
        if key.start > start {
            return self.replace(current, key, time);
        }
        // An event about a thread whose id has been given to another one since.
        if let Some(&old) = self.older.get(&key) {
            return Resolved {
                actor: old,
                replaced: None,
            };
        }
        let mut entry = ActorEntry::new(Actor::Task(key), time);
        entry.gone = Some(start);
        let actor = self.entries.insert(entry);
        self.older.insert(key, actor);
        Resolved { actor, replaced: None }
    }

    fn replace(&mut self, old: ActorIx, key: TaskKey, time: Timestamp) -> Resolved {
        if let Some(old_key) = self.get(old).and_then(ActorEntry::task) {
            self.older.insert(old_key, old);
        }
        Resolved {
            actor: self.create(key, time),
            replaced: Some(old),
        }
    }

    fn create(&mut self, key: TaskKey, time: Timestamp) -> ActorIx {
        let actor = self.entries.insert(ActorEntry::new(Actor::Task(key), time));
        self.current.insert(key.tid, actor);
        actor
    }

    /// The interrupt context `context` on `cpu`.
    pub fn interrupt(&mut self, cpu: CpuId, context: Context, time: Timestamp) -> ActorIx {
        if let Some(&known) = self.interrupts.get(&(cpu, context)) {
            return known;
        }
        let id = Actor::Interrupt {
            cpu,
            context,
            interrupted: None,
        };
        let actor = self.entries.insert(ActorEntry::new(id, time));
        self.interrupts.insert((cpu, context), actor);
        actor
    }

    /// Forgets an actor that nothing refers to.
    pub fn forget(&mut self, ix: ActorIx) {
        let Some(entry) = self.entries.remove(ix) else { return };
        match entry.id {
            Actor::Task(key) => {
                if self.current.get(&key.tid) == Some(&ix) {
                    self.current.remove(&key.tid);
                }
                if self.older.get(&key) == Some(&ix) {
                    self.older.remove(&key);
                }
            }
            Actor::Interrupt { cpu, context, .. } => {
                self.interrupts.remove(&(cpu, context));
            }
        }
    }
}
