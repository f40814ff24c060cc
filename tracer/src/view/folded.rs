//! Folded stacks weighted by waited time, for flame graphs: `comm;outermost;...;innermost;lock microseconds`. Where a wait's stack
//! in user space is known, its frames come first.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::Arc;

use crate::diagnosis::lock_kind_name;
use crate::event::{Actor, Body, Context, Event, LockKind, UserFrame, UserStack};
use crate::ids::{LockAddr, Nanos, StackId, TaskKey};
use crate::model::Model;

/// Open waits kept; more do not occur unless ends are lost.
const MAX_OPEN: usize = 262_144;

/// Where the kernel calls the probes: what lies further in is holdup itself.
const PROBES: [&str; 3] = ["bpf_trace_run", "__traceiter_contention", "__bpf_trace_contention"];

/// Sums waits by task name, stack and lock.
#[derive(Debug, Default)]
pub struct Folded {
    open: HashMap<(Actor, LockAddr), Open>,
    /// Of those who wait: frames in user space, outermost first.
    user: HashMap<TaskKey, String>,
    sums: BTreeMap<String, Nanos>,
}

#[derive(Debug)]
struct Open {
    comm: Arc<str>,
    kind: LockKind,
    stack: StackId,
}

impl Folded {
    /// Takes in one event; `model` has taken it already and knows the names.
    pub fn event(&mut self, event: &Event, model: &Model) {
        match &event.body {
            Body::Wait(wait) => {
                let key = (wait.waiter, wait.lock);
                let comm = wait
                    .task
                    .as_ref()
                    .map_or_else(|| Arc::from("?"), |task| Arc::clone(&task.comm));
                let full = self.open.len() >= MAX_OPEN;
                match self.open.get_mut(&key) {
                    Some(open) if wait.stack.0 == 0 || open.stack == wait.stack => {}
                    Some(open) => open.stack = wait.stack,
                    None if full => {}
                    None => {
                        self.forget_user(wait.waiter);
                        self.open.insert(
                            key,
                            Open {
                                comm,
                                kind: wait.kind,
                                stack: wait.stack,
                            },
                        );
                    }
                }
            }
            Body::WaitEnd(end) => {
                if let Some(open) = self.open.remove(&(end.waiter, end.lock)) {
                    self.add(end.waiter, &open, end.lock, end.waited, model);
                }
                self.forget_user(end.waiter);
            }
            Body::UserStack(stack) if self.user.len() < MAX_OPEN => {
                self.user.insert(stack.task, user_frames(stack));
            }
            _ => {}
        }
    }

    /// Adds the waits that still last, as the model knows them, and writes everything.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn finish(mut self, model: &Model, out: &mut impl Write) -> io::Result<()> {
        let pending: HashMap<_, _> = model
            .waits()
            .iter()
            .filter_map(|(_, wait)| {
                let key = (
                    who(model.actors().get(wait.waiter)?.id),
                    model.locks().get(wait.lock)?.addr,
                );
                Some((key, model.now().since(model.wait_since(wait).0)))
            })
            .collect();
        for ((actor, lock), open) in std::mem::take(&mut self.open) {
            if let Some(&waited) = pending.get(&(who(actor), lock)) {
                self.add(actor, &open, lock, waited, model);
            }
        }
        for (stack, sum) in &self.sums {
            // Less than a microsecond is nothing that a flame graph can show.
            if sum.0 >= 1_000 {
                writeln!(out, "{stack} {}", sum.0 / 1_000)?;
            }
        }
        Ok(())
    }

    /// A stack belongs to one sleep.
    fn forget_user(&mut self, waiter: Actor) {
        if let Actor::Task(key) = waiter {
            self.user.remove(&key);
        }
    }

    fn add(&mut self, waiter: Actor, open: &Open, lock: LockAddr, waited: Nanos, model: &Model) {
        let names = model.names();
        let mut line = clean(&open.comm);
        if let Actor::Task(key) = waiter
            && let Some(frames) = self.user.get(&key)
        {
            line.push_str(frames);
        }
        for &frame in names
            .frames(open.stack)
            .into_iter()
            .flat_map(|frames| frames.iter().rev())
        {
            let name = names.code(frame);
            if PROBES.iter().any(|probe| name.starts_with(probe)) {
                break;
            }
            line.push(';');
            line.push_str(&clean(&name));
        }
        line.push(';');
        line.push_str(lock_kind_name(open.kind));
        line.push(' ');
        match names.lock_name(lock) {
            Some(name) => line.push_str(&clean(&name.name)),
            None => line.push_str(&lock.to_string()),
        }
        *self.sums.entry(line).or_default() += waited;
    }
}

/// Each frame after a semicolon, outermost first.
fn user_frames(stack: &UserStack) -> String {
    let name = |frame: &UserFrame| match (&frame.function, &frame.file) {
        (Some(function), _) => function.name.to_string(),
        (None, Some(file)) => format!("{}+{:#x}", file.path, file.offset),
        (None, None) => format!("{:#x}", frame.address),
    };
    let frames = stack.frames.iter().rev();
    frames.fold(String::new(), |line, frame| {
        let inlined = frame.inlined.iter().map(|inlined| clean(&inlined.name));
        let all = std::iter::once(clean(&name(frame))).chain(inlined);
        all.fold(line, |line, name| line + ";" + &name)
    })
}

/// Who waits, also where one event knows the start of a thread and another does not.
fn who(actor: Actor) -> (u32, Context) {
    match actor {
        Actor::Task(key) => (key.tid.0, Context::Task),
        Actor::Interrupt { cpu, context, .. } => (cpu.0, context),
    }
}

/// The format separates frames by semicolons and lines by line ends.
fn clean(name: &str) -> String {
    name.replace(|c: char| c == ';' || c.is_control(), "_")
}
