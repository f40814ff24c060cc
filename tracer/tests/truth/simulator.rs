//! A little kernel: tasks that take and release mutexes, sleep, wake up, are killed; and a tracer that tells events about
//! them. What really is there is known at every instant.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracer::event::{
    Actor, Body, Event, Evidence, LockKind, Mode, Owner, Phase, Queued, Release, Round, RoundEdge, RoundScope, TaskRef,
    TaskSample, TaskState, WaitEnd, WaitSample,
};
use tracer::ids::{CpuId, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};

pub const TASKS: usize = 5;
pub const LOCKS: usize = 4;
/// One thing that happens; all numbers are taken modulo what is there.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// A running task wants a lock.
    Take { task: u8, lock: u8 },
    /// A running task releases one of its locks; `hand_off` sets the PICKUP flag for the first waiter.
    Release { task: u8, nth: u8, hand_off: bool },
    /// A woken waiter goes one step further: takes the lock, leaves the wait list.
    Step { task: u8 },
    /// A sleeping waiter is woken for nothing, looks, and sleeps again.
    Spurious { task: u8 },
    /// A sleeping waiter is killed.
    Kill { task: u8 },
    /// Time passes.
    Pass { ms: u8 },
    /// The tracer reads one waiter again, in the middle of whatever happens.
    Read { task: u8 },
    /// A sampling round over all waiters starts or ends; between the two, reads happen one by one.
    Round,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Asleep,
    /// Woken, but has not taken the lock yet.
    Woken,
    /// Owns the lock, but still stands on the wait list.
    Acquired,
}

struct Task {
    state: State,
    wants: Option<(usize, Timestamp)>,
    switches: u64,
}

#[derive(Default)]
struct Lock {
    owner: Option<usize>,
    hand_off: bool,
    queue: Vec<usize>,
}

/// A cycle as the set of its tasks.
pub type Cycle = BTreeSet<u32>;

pub struct Kernel {
    pub now: Timestamp,
    tasks: Vec<Task>,
    locks: Vec<Lock>,
    round: u64,
    pub events: Vec<Event>,
    /// Every cycle that was there at some instant.
    pub ever: BTreeSet<Cycle>,
}

pub fn tid(task: usize) -> Tid {
    Tid(100 + task as u32)
}

fn task_ref(task: usize) -> TaskRef {
    TaskRef {
        key: TaskKey {
            tid: tid(task),
            start: Timestamp(7),
        },
        tgid: Tgid(tid(task).0),
        comm: Arc::from(format!("t{task}")),
    }
}

fn addr(lock: usize) -> LockAddr {
    LockAddr(0xffff_8880_0000_0000 + 0x40 * lock as u64)
}

impl Kernel {
    pub fn new() -> Self {
        Self {
            now: Timestamp(1_000_000_000),
            tasks: (0..TASKS)
                .map(|_| Task {
                    state: State::Running,
                    wants: None,
                    switches: 1,
                })
                .collect(),
            locks: (0..LOCKS).map(|_| Lock::default()).collect(),
            round: 0,
            events: Vec::new(),
            ever: BTreeSet::new(),
        }
    }

    fn emit(&mut self, body: Body) {
        self.events.push(Event { time: self.now, body });
    }

    fn owner(&self, lock: usize) -> (u64, Owner) {
        match self.locks[lock].owner {
            None => (0, Owner::Nobody),
            Some(task) => {
                let flags = if self.locks[lock].hand_off { 5 } else { 1 };
                ((0x1000 * (task as u64 + 1)) | flags, Owner::Task(task_ref(task)))
            }
        }
    }

    fn sample(&self, task: usize, evidence: Evidence) -> Option<WaitSample> {
        let (lock, since) = self.tasks[task].wants?;
        let (owner_word, owner) = self.owner(lock);
        let begin = evidence == Evidence::Tracepoint;
        let place = self.locks[lock].queue.iter().position(|&t| t == task);
        Some(WaitSample {
            waiter: Actor::Task(task_ref(task).key),
            task: Some(task_ref(task)),
            lock: addr(lock),
            kind: LockKind::Mutex,
            mode: Mode::Exclusive,
            phase: Phase::Sleeping,
            // A walk over all threads does not know since when.
            since: (evidence != Evidence::WaiterRecord).then_some(since),
            owner_word,
            owner,
            queued: match place {
                _ if begin => Queued::Unknown,
                Some(place) => Queued::At(place as u32),
                None => Queued::Absent,
            },
            cpu: Some(CpuId(0)),
            stack: StackId(0),
            evidence,
        })
    }

    fn read(&mut self, task: usize) {
        let state = match self.tasks[task].state {
            State::Running => TaskState::Running,
            State::Asleep => TaskState::Uninterruptible,
            State::Woken | State::Acquired => TaskState::Runnable,
        };
        let sample = TaskSample {
            cpu: Some(CpuId(0)),
            switches: Some(self.tasks[task].switches),
            ..TaskSample::of(task_ref(task), state)
        };
        self.emit(Body::Task(sample));
        let evidence = if self.round.is_multiple_of(3) {
            Evidence::WaiterRecord
        } else {
            Evidence::Reread
        };
        if let Some(sample) = self.sample(task, evidence) {
            self.emit(Body::Wait(sample));
        }
    }

    fn wake_first(&mut self, lock: usize) {
        if let Some(&first) = self.locks[lock].queue.first()
            && self.tasks[first].state == State::Asleep
        {
            self.tasks[first].state = State::Woken;
        }
    }

    fn end_wait(&mut self, task: usize, result: i32) {
        let Some((lock, since)) = self.tasks[task].wants.take() else {
            return;
        };
        self.locks[lock].queue.retain(|&t| t != task);
        self.tasks[task].state = State::Running;
        let waited = self.now.since(since);
        self.emit(Body::WaitEnd(WaitEnd {
            waiter: Actor::Task(task_ref(task).key),
            lock: addr(lock),
            result,
            waited,
        }));
    }

    /// Carries out an action; time passes with each.
    pub fn act(&mut self, action: Action) {
        self.now = self.now + Nanos(10_000);
        match action {
            Action::Take { task, lock } => self.take(usize::from(task) % TASKS, usize::from(lock) % LOCKS),
            Action::Release { task, nth, hand_off } => self.release(usize::from(task) % TASKS, nth, hand_off),
            Action::Step { task } => self.step(usize::from(task) % TASKS),
            Action::Spurious { task } => {
                let task = usize::from(task) % TASKS;
                if self.tasks[task].state == State::Asleep {
                    self.tasks[task].switches += 1;
                }
            }
            Action::Kill { task } => {
                let task = usize::from(task) % TASKS;
                if self.tasks[task].state == State::Asleep {
                    self.end_wait(task, -4);
                }
            }
            Action::Pass { ms } => self.now = self.now + Nanos::from_millis(u64::from(ms)),
            Action::Read { task } => self.read(usize::from(task) % TASKS),
            Action::Round => self.round(),
        }
        self.note_cycles();
    }

    fn take(&mut self, task: usize, lock: usize) {
        if self.tasks[task].state != State::Running {
            return;
        }
        if self.locks[lock].owner.is_none() && self.locks[lock].queue.is_empty() {
            self.locks[lock].owner = Some(task);
            return;
        }
        self.tasks[task].wants = Some((lock, self.now));
        if let Some(sample) = self.sample(task, Evidence::Tracepoint) {
            self.emit(Body::Wait(sample));
        }
        self.tasks[task].state = State::Asleep;
        self.tasks[task].switches += 1;
        self.locks[lock].queue.push(task);
        if self.locks[lock].owner.is_none() {
            self.wake_first(lock);
        }
    }

    fn release(&mut self, task: usize, nth: u8, hand_off: bool) {
        let held: Vec<usize> = (0..LOCKS)
            .filter(|&l| self.locks[l].owner == Some(task) && !self.locks[l].hand_off)
            .collect();
        let Some(&lock) = held.get(usize::from(nth) % held.len().max(1)) else {
            return;
        };
        if self.tasks[task].state != State::Running {
            return;
        }
        let first = self.locks[lock].queue.first().copied();
        if first.is_some() {
            let release = Release {
                task: task_ref(task),
                lock: addr(lock),
                kind: LockKind::Mutex,
                stack: StackId(0),
            };
            self.emit(Body::Release(release));
        }
        // A waiter that is being killed may have left in between: the lock is handed to the one that is first now.
        self.locks[lock].owner = if hand_off { first } else { None };
        self.locks[lock].hand_off = hand_off && first.is_some();
        self.wake_first(lock);
    }

    fn step(&mut self, task: usize) {
        let Some((lock, _)) = self.tasks[task].wants else {
            return;
        };
        match self.tasks[task].state {
            State::Woken => {
                let handed = self.locks[lock].hand_off && self.locks[lock].owner == Some(task);
                if handed || self.locks[lock].owner.is_none() {
                    (self.locks[lock].owner, self.locks[lock].hand_off) = (Some(task), false);
                    self.tasks[task].state = State::Acquired;
                } else {
                    // Another one was faster.
                    self.tasks[task].state = State::Asleep;
                    self.tasks[task].switches += 1;
                }
            }
            State::Acquired => self.end_wait(task, 0),
            State::Running | State::Asleep => {}
        }
    }

    /// A whole round, within which time passes and nothing else happens.
    fn round(&mut self) {
        self.round += 1;
        let scope = if self.round.is_multiple_of(3) {
            RoundScope::AllTasks
        } else {
            RoundScope::Pending
        };
        let marker = |number, edge| Body::Round(Round { number, edge, scope });
        self.emit(marker(self.round, RoundEdge::Begin));
        for task in 0..TASKS {
            self.now = self.now + Nanos(1_000);
            self.read(task);
        }
        self.emit(marker(self.round, RoundEdge::End));
    }

    /// The cycles that are there now: a sleeping task waits for an owner that sleeps itself.
    pub fn cycles(&self) -> BTreeSet<Cycle> {
        let next = |task: usize| {
            let (lock, _) = self.tasks[task]
                .wants
                .filter(|_| self.tasks[task].state == State::Asleep)?;
            self.locks[lock].owner.filter(|_| !self.locks[lock].hand_off)
        };
        let mut cycles = BTreeSet::new();
        for start in 0..TASKS {
            let mut path = vec![start];
            while let Some(to) = path.last().and_then(|&t| next(t)) {
                if to == start {
                    cycles.insert(path.iter().map(|&t| tid(t).0).collect());
                    break;
                }
                if path.contains(&to) {
                    break;
                }
                path.push(to);
            }
        }
        cycles
    }

    fn note_cycles(&mut self) {
        let cycles = self.cycles();
        self.ever.extend(cycles);
    }
}
