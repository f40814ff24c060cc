//! Declared names of a scenario, and the addresses given to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Actor, Body, Event, LockKind, StackFrames, SymbolName, TaskRef};
use crate::ids::{CgroupId, KernelAddr, LockAddr, StackId, Timestamp};

/// Where the first declared lock and the first named function live.
const LOCKS: u64 = 0xffff_8880_0000_1000;
const CODE: u64 = 0xffff_ffff_8100_0000;

/// A declared thread.
#[derive(Clone)]
pub struct Task {
    pub task: TaskRef,
    pub kernel_thread: bool,
    pub cgroup: CgroupId,
}

/// Everything declared so far.
#[derive(Default)]
pub struct Names {
    tasks: BTreeMap<String, Task>,
    interrupts: BTreeMap<String, (Actor, Option<TaskRef>)>,
    locks: BTreeMap<String, (LockAddr, LockKind)>,
    stacks: BTreeMap<String, StackId>,
    code: BTreeMap<String, KernelAddr>,
}

fn unknown<T>(what: &str, name: &str) -> Result<T, String> {
    Err(format!("no {what} was declared as {name:?}"))
}

impl Names {
    pub fn declare_task(&mut self, name: &str, task: Task) {
        self.tasks.insert(name.to_owned(), task);
    }

    pub fn declare_interrupt(&mut self, name: &str, actor: Actor, above: Option<TaskRef>) {
        self.interrupts.insert(name.to_owned(), (actor, above));
    }

    pub fn declare_lock(&mut self, name: &str, kind: LockKind, addr: Option<u64>) -> LockAddr {
        let addr = LockAddr(addr.unwrap_or(LOCKS + 0x100 * self.locks.len() as u64));
        self.locks.insert(name.to_owned(), (addr, kind));
        addr
    }

    /// Declares a stack; returns the events that tell of its frames and their names.
    pub fn declare_stack(&mut self, name: &str, functions: &[&str], pieced: bool, time: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let frames: Arc<[KernelAddr]> = functions.iter().map(|f| self.code(f, time, &mut events)).collect();
        let id = StackId(self.stacks.len() as u64 + 1);
        self.stacks.insert(name.to_owned(), id);
        events.push(Event {
            time,
            body: Body::Stack(StackFrames { id, frames, pieced }),
        });
        events
    }

    /// The address of a function, with the event that names it when it is new.
    pub fn code(&mut self, function: &str, time: Timestamp, events: &mut Vec<Event>) -> KernelAddr {
        if let Some(&known) = self.code.get(function) {
            return known;
        }
        let addr = KernelAddr(CODE + 0x100 * self.code.len() as u64 + 0x10);
        self.code.insert(function.to_owned(), addr);
        let symbol = SymbolName {
            addr,
            name: Arc::from(function),
            offset: 0x10,
            module: None,
        };
        events.push(Event {
            time,
            body: Body::Symbol(symbol),
        });
        addr
    }

    pub fn task(&self, name: &str) -> Result<&Task, String> {
        self.tasks.get(name).map_or_else(|| unknown("task", name), Ok)
    }

    /// A thread or an interrupt, with the name to put beside it.
    pub fn actor(&self, name: &str) -> Result<(Actor, Option<TaskRef>), String> {
        if let Some(known) = self.interrupts.get(name) {
            return Ok(known.clone());
        }
        let task = self.task(name)?;
        Ok((Actor::Task(task.task.key), Some(task.task.clone())))
    }

    pub fn lock(&self, name: &str) -> Result<(LockAddr, LockKind), String> {
        self.locks.get(name).copied().map_or_else(|| unknown("lock", name), Ok)
    }

    pub fn stack(&self, name: &str) -> Result<StackId, String> {
        self.stacks
            .get(name)
            .copied()
            .map_or_else(|| unknown("stack", name), Ok)
    }
}
