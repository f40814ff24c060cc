//! What the next file of a recording must repeat so that it can be read alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::event::{
    Activity, Actor, Body, CgroupName, CodeLine, Dependency, Doing, Event, LockName, LossCause, LossReport, RoundEdge,
    RoundScope, StackFrames, SymbolName, WaitSample,
};
use crate::ids::{CgroupId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Timestamp};

/// Open waits kept; beyond it new ones are not carried over, and the next round of re-reading shows them again.
const MAX_WAITS: usize = 65_536;

/// Who knows the names that were sent earlier.
pub trait Known {
    /// Frames of a stack.
    fn stack(&self, id: StackId) -> Option<StackFrames>;
    /// Name of a code address.
    fn symbol(&self, addr: KernelAddr) -> Option<SymbolName>;
    /// Place in the source of a code address.
    fn line(&self, addr: KernelAddr) -> Option<CodeLine>;
    /// Name of a lock.
    fn lock_name(&self, lock: LockAddr) -> Option<LockName>;
    /// Path of a cgroup.
    fn cgroup(&self, cgroup: CgroupId) -> Option<CgroupName>;
    /// What a thread is about, as long as it has not run since it was looked at.
    fn doing(&self, task: TaskKey) -> Option<Doing>;
}

/// Nobody does.
impl Known for () {
    fn stack(&self, _: StackId) -> Option<StackFrames> {
        None
    }
    fn symbol(&self, _: KernelAddr) -> Option<SymbolName> {
        None
    }
    fn line(&self, _: KernelAddr) -> Option<CodeLine> {
        None
    }
    fn lock_name(&self, _: LockAddr) -> Option<LockName> {
        None
    }
    fn cgroup(&self, _: CgroupId) -> Option<CgroupName> {
        None
    }
    fn doing(&self, _: TaskKey) -> Option<Doing> {
        None
    }
}

impl Known for crate::model::Model {
    fn stack(&self, id: StackId) -> Option<StackFrames> {
        let frames = self.names().frames(id)?.clone();
        Some(StackFrames {
            id,
            frames,
            pieced: self.names().is_pieced(id),
        })
    }
    fn symbol(&self, addr: KernelAddr) -> Option<SymbolName> {
        self.names().symbol_at(addr).cloned()
    }
    fn line(&self, addr: KernelAddr) -> Option<CodeLine> {
        self.names().line_at(addr).cloned()
    }
    fn lock_name(&self, lock: LockAddr) -> Option<LockName> {
        self.names().lock_name(lock).cloned()
    }
    fn cgroup(&self, cgroup: CgroupId) -> Option<CgroupName> {
        let path = self.names().cgroup(cgroup)?.clone();
        Some(CgroupName { cgroup, path })
    }
    fn doing(&self, task: TaskKey) -> Option<Doing> {
        let activity = self.actors().get(self.actors().find(task)?)?.doing.clone()?;
        Some(Doing { task, activity })
    }
}

/// Waits that are open, and what the sources lost so far.
#[derive(Debug)]
pub struct Open {
    waits: HashMap<(Actor, LockAddr), (Timestamp, WaitSample)>,
    losses: BTreeMap<LossCause, u64>,
    round: Timestamp,
    /// Waits older than this are in every complete round.
    pending_after: Nanos,
}

impl Open {
    /// For a source that re-reads waits at least `pending_after` old.
    #[must_use]
    pub fn new(pending_after: Nanos) -> Self {
        Self {
            waits: HashMap::new(),
            losses: BTreeMap::new(),
            round: Timestamp(0),
            pending_after,
        }
    }

    /// Takes note of an event.
    pub fn apply(&mut self, event: &Event) {
        match &event.body {
            Body::Wait(wait) => {
                let key = (wait.waiter, wait.lock);
                if self.waits.len() < MAX_WAITS || self.waits.contains_key(&key) {
                    self.waits.insert(key, (event.time, wait.clone()));
                }
            }
            Body::WaitEnd(end) => {
                self.waits.remove(&(end.waiter, end.lock));
            }
            Body::TaskGone(gone) => self.waits.retain(|(waiter, _), _| *waiter != Actor::Task(*gone)),
            Body::Round(round) if round.scope == RoundScope::Pending => match round.edge {
                RoundEdge::Begin => self.round = event.time,
                RoundEdge::Aborted => {}
                RoundEdge::End => {
                    let (begin, age) = (self.round, self.pending_after);
                    self.waits
                        .retain(|_, (seen, wait)| *seen >= begin || begin.since(wait.since.unwrap_or(*seen)) < age);
                }
            },
            Body::Loss(report) => self.losses.extend(report.by_cause.iter().copied()),
            _ => {}
        }
    }

    /// What the next file starts with, oldest first.
    #[must_use]
    pub fn events(&self, now: Timestamp) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .waits
            .values()
            .map(|(time, wait)| Event {
                time: *time,
                body: Body::Wait(wait.clone()),
            })
            .collect();
        events.sort_by_key(|event| match &event.body {
            Body::Wait(wait) => (event.time, Some((wait.waiter, wait.lock))),
            _ => (event.time, None),
        });
        if !self.losses.is_empty() {
            let by_cause = self.losses.iter().map(|(&cause, &count)| (cause, count)).collect();
            events.push(Event {
                time: now,
                body: Body::Loss(LossReport { by_cause }),
            });
        }
        events
    }
}

/// Which names the current file has.
#[derive(Debug, Default)]
pub struct Named {
    stacks: HashSet<StackId>,
    symbols: HashSet<KernelAddr>,
    lines: HashSet<KernelAddr>,
    locks: HashSet<LockAddr>,
    cgroups: HashSet<CgroupId>,
    doing: HashSet<TaskKey>,
}

impl Named {
    /// Appends the names that `event` needs and the file does not have, and takes note of those that it brings.
    pub fn missing(&mut self, event: &Event, known: &impl Known, out: &mut Vec<Event>) {
        let time = event.time;
        match &event.body {
            Body::Stack(stack) => {
                self.stacks.insert(stack.id);
            }
            Body::Symbol(symbol) => {
                self.symbols.insert(symbol.addr);
            }
            Body::CodeLine(line) => {
                self.lines.insert(line.addr);
            }
            Body::LockName(name) => {
                self.locks.insert(name.lock);
            }
            Body::CgroupName(name) => {
                self.cgroups.insert(name.cgroup);
            }
            Body::Doing(doing) => {
                self.doing.insert(doing.task);
                self.activity(&doing.activity, time, known, out);
            }
            Body::Task(task) => {
                self.stack(task.stack, time, known, out);
                self.cgroup(task.cgroup, time, known, out);
                task.work
                    .into_iter()
                    .for_each(|work| self.symbol(work, time, known, out));
            }
            Body::Wait(wait) => {
                self.stack(wait.stack, time, known, out);
                self.lock(wait.lock, time, known, out);
            }
            Body::WaitEnd(end) => self.lock(end.lock, time, known, out),
            Body::Release(release) => {
                self.stack(release.stack, time, known, out);
                self.lock(release.lock, time, known, out);
            }
            Body::Lock(lock) => self.lock(lock.lock, time, known, out),
            Body::Holder(holder) => self.lock(holder.lock, time, known, out),
            Body::Stats(stats) => self.lock(stats.lock, time, known, out),
            Body::Reinit(reinit) => {
                self.stack(reinit.stack, time, known, out);
                self.lock(reinit.lock, time, known, out);
            }
            Body::Watch(watched) => {
                self.stack(watched.stack, time, known, out);
                self.lock(watched.lock, time, known, out);
            }
            Body::Dependency(sample) => {
                self.stack(sample.stack, time, known, out);
                if let Dependency::WorkFlush { function: addr } | Dependency::WorkqueueFlush { workqueue: addr } =
                    sample.dependency
                {
                    self.symbol(addr, time, known, out);
                }
                if let Some(addr) = sample.dependency.object() {
                    self.lock(LockAddr(addr.0), time, known, out);
                }
            }
            Body::TaskGone(_)
            | Body::TimeSpent(_)
            | Body::Stall(_)
            | Body::UserStack(_)
            | Body::Loss(_)
            | Body::Round(_)
            | Body::Record(_) => {}
        }
    }

    fn stack(&mut self, id: StackId, time: Timestamp, known: &impl Known, out: &mut Vec<Event>) {
        if id.0 == 0 || !self.stacks.insert(id) {
            return;
        }
        let Some(stack) = known.stack(id) else { return };
        for &frame in stack.frames.iter() {
            self.symbol(frame, time, known, out);
        }
        out.push(Event {
            time,
            body: Body::Stack(stack),
        });
    }

    fn symbol(&mut self, addr: KernelAddr, time: Timestamp, known: &impl Known, out: &mut Vec<Event>) {
        if self.symbols.insert(addr)
            && let Some(symbol) = known.symbol(addr)
        {
            out.push(Event {
                time,
                body: Body::Symbol(symbol),
            });
        }
        if self.lines.insert(addr)
            && let Some(line) = known.line(addr)
        {
            out.push(Event {
                time,
                body: Body::CodeLine(line),
            });
        }
    }

    fn lock(&mut self, lock: LockAddr, time: Timestamp, known: &impl Known, out: &mut Vec<Event>) {
        if self.locks.insert(lock)
            && let Some(name) = known.lock_name(lock)
        {
            out.push(Event {
                time,
                body: Body::LockName(name),
            });
        }
    }

    fn cgroup(&mut self, cgroup: CgroupId, time: Timestamp, known: &impl Known, out: &mut Vec<Event>) {
        if cgroup.0 != 0
            && self.cgroups.insert(cgroup)
            && let Some(name) = known.cgroup(cgroup)
        {
            out.push(Event {
                time,
                body: Body::CgroupName(name),
            });
        }
    }

    fn activity(&mut self, activity: &Activity, time: Timestamp, known: &impl Known, out: &mut Vec<Event>) {
        if let Activity::Work { function, .. } = activity {
            self.symbol(*function, time, known, out);
        }
    }

    /// Appends what has to follow `event`: what its thread is about, if the file does not say so yet.
    pub fn following(&mut self, event: &Event, known: &impl Known, out: &mut Vec<Event>) {
        let Body::Task(sample) = &event.body else { return };
        let Some(doing) = known.doing(sample.task.key) else {
            return;
        };
        if self.doing.insert(doing.task) {
            self.activity(&doing.activity, event.time, known, out);
            out.push(Event {
                time: event.time,
                body: Body::Doing(doing),
            });
        }
    }
}
