//! Where sleeping threads came from in user space.
//!
//! A process whose address space is stuck must not be asked for anything: `/proc/PID/maps` and `mem`, and BPF's build ids, all want
//! its `mmap_lock`. So nothing is asked. The registers stand at the top of the thread's kernel stack; its page tables lead to the
//! pages of its user-space stack, which the kernel's direct map shows; its mappings are read from the tree that holds them. All of
//! it are words of kernel memory, read without a lock and without a page fault: a page that is swapped out ends the stack. Only
//! threads that sleep are read, and what was read of one that has run meanwhile is thrown away.
//!
//! Unwinding and names need the mapped files. Those are opened by a thread of its own, by the path that the kernel has for them, and
//! believed only if device and inode are those that are mapped.

mod files;
mod mappings;
mod pages;
#[cfg(test)]
mod tests;
mod unwind;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::mappings::Mapping;
use self::pages::Pages;
use self::unwind::Unwinder;
use super::facts::KernelFacts;
use super::names::direct_map;
use super::offsets::KernelOffsets;
use super::stackscan::{Memory, Words};
use super::tasks::ask::{Asker, ask_all};
use super::tasks::entry::{self, Registers};
use super::tasks::{Met, settled};
use crate::event::{Body, Event, UserStack};
use crate::ids::{Nanos, TaskKey, Timestamp};

/// Threads read in one go; the others have their turn in the next round.
const MAX_AT_ONCE: usize = 64;
/// Stacks read and not yet unwound; beyond it, no more are read.
const MAX_OPEN: usize = 1_024;
/// Threads and address spaces remembered; beyond it all are read again, which is harmless.
const MAX_KNOWN: usize = 65_536;
const MAX_SPACES: usize = 1_024;
/// A thread that sleeps on is read again after this time: whoever reads along may have forgotten.
const AGAIN_AFTER: Nanos = Nanos::from_secs(30);
/// Mappings are read again after this time.
const MAPPINGS_AFTER: Nanos = Nanos::from_secs(10);
/// Bytes of a user-space stack that are read.
const STACK_BYTES: u64 = 8 << 10;

/// What was read of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raw {
    mm: u64,
    registers: Registers,
    /// Words from the stack pointer upward.
    stack: Vec<u64>,
}

/// What the thread that unwinds is given.
#[derive(Debug)]
struct Job {
    task: TaskKey,
    switches: u64,
    raw: Raw,
    mappings: Arc<[Mapping]>,
}

/// Reads stacks, and has them unwound by a thread of its own.
#[derive(Debug)]
pub struct UserStacks {
    offsets: KernelOffsets,
    pages: Pages,
    known: HashMap<TaskKey, (u64, Timestamp)>,
    spaces: HashMap<u64, (Arc<[Mapping]>, Timestamp)>,
    jobs: Sender<Job>,
    answers: Receiver<(UserStack, Duration)>,
    open: usize,
    cost: Cost,
}

/// What it took so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Stacks that were read.
    pub read: usize,
    /// For that, in the caller's thread: the reads of kernel memory are in it.
    pub reading: Duration,
    /// Stacks that were unwound.
    pub unwound: usize,
    /// For that, in a thread of its own: with the files that had to be opened.
    pub unwinding: Duration,
}

impl UserStacks {
    /// Starts the thread that unwinds.
    ///
    /// # Errors
    /// When this kernel does not show what is needed: the message says what.
    pub fn start(facts: &KernelFacts, memory: &mut dyn Memory) -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("user-space stacks are read on x86-64 only: leave out --user-stacks");
        }
        let hidden = || match facts.files.btf() {
            Some(btf) => direct_map(btf, memory),
            None => Ok(None),
        };
        let symbols = facts.files.symbols();
        let pages = Pages::new(symbols.map(AsRef::as_ref), hidden, &facts.offsets.offsets)?;
        let (jobs, asked) = channel();
        let (answer, answers) = channel();
        // It ends when the last asker is gone, or with the process: nobody waits for it.
        thread::Builder::new()
            .name("user-stacks".to_owned())
            .spawn(move || unwind_all(&asked, &answer))
            .context("starting the thread that unwinds user-space stacks")?;
        Ok(Self {
            offsets: facts.offsets.offsets,
            pages,
            known: HashMap::new(),
            spaces: HashMap::new(),
            jobs,
            answers,
            open: 0,
            cost: Cost::default(),
        })
    }

    /// Reads the stacks of the threads that an event told of and that sleep.
    ///
    /// # Errors
    /// When kernel memory cannot be read at all.
    pub fn look(&mut self, met: &[Met], memory: &mut dyn Memory, now: Timestamp) -> Result<()> {
        if self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        if self.spaces.len() > MAX_SPACES {
            self.spaces.clear();
        }
        let mut seen = HashSet::new();
        let room = MAX_AT_ONCE.min(MAX_OPEN.saturating_sub(self.open));
        let wanted: Vec<Met> = met
            .iter()
            .filter(|met| self.is_news(met, now) && seen.insert(met.key))
            .take(room)
            .copied()
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut words = Words::new(memory);
        let (o, pages) = (&self.offsets, &self.pages);
        let raws = ask_all(&mut words, &wanted, |met, ask| raw(met, o, pages, ask))?;
        let mut spaces: Vec<u64> = raws.iter().flatten().map(|raw| raw.mm).collect();
        spaces.sort_unstable();
        spaces.dedup();
        spaces.retain(|mm| {
            let known = self.spaces.get(mm);
            known.is_none_or(|(_, at)| now.since(*at) >= MAPPINGS_AFTER)
        });
        for (mm, mappings) in mappings::read(&spaces, o, &mut words)? {
            self.spaces.insert(mm, (mappings.into(), now));
        }
        let unmoved = settled(&wanted, o, &mut words)?;
        for ((met, raw), unmoved) in wanted.iter().zip(raws).zip(unmoved) {
            let (Some(switches), true) = (met.asleep, unmoved) else {
                continue;
            };
            self.known.insert(met.key, (switches, now));
            let Some(raw) = raw else { continue };
            let mappings = self.spaces.get(&raw.mm).map(|(mappings, _)| Arc::clone(mappings));
            let job = Job {
                task: met.key,
                switches,
                raw,
                mappings: mappings.unwrap_or_default(),
            };
            if self.jobs.send(job).is_ok() {
                self.open += 1;
                self.cost.read += 1;
            }
        }
        self.cost.reading += started.elapsed();
        Ok(())
    }

    /// What it took so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    fn is_news(&self, met: &Met, now: Timestamp) -> bool {
        let known = self.known.get(&met.key);
        met.asleep.is_some_and(|switches| {
            entry::has_user(met.flags) && known.is_none_or(|&(of, at)| of != switches || now.since(at) >= AGAIN_AFTER)
        })
    }

    /// How many stacks are not unwound yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// The stacks that are unwound within this time, as events of `time`.
    pub fn events(&mut self, at_most: Duration, time: Timestamp) -> impl Iterator<Item = Event> + use<> {
        let event = move |stack| Event {
            time,
            body: Body::UserStack(stack),
        };
        self.take(at_most).into_iter().map(event)
    }

    fn take(&mut self, at_most: Duration) -> Vec<UserStack> {
        let deadline = Instant::now() + at_most;
        let mut stacks = Vec::new();
        while self.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((stack, took)) = self.answers.recv_timeout(left) else {
                break;
            };
            self.open -= 1;
            self.cost.unwound += 1;
            self.cost.unwinding += took;
            stacks.push(stack);
        }
        stacks
    }
}

/// `None` also for a thread that has no address space, or never was in user space.
fn raw(met: &Met, o: &KernelOffsets, pages: &Pages, ask: &mut Asker<'_, '_>) -> Option<Raw> {
    let mm = ask.pointer(met.task, o.task.mm)?;
    let registers = entry::registers(met.task, met.flags, o, ask)?;
    // Of a 32-bit program only the instruction pointer is of use.
    let stack = if registers.narrow {
        Vec::new()
    } else {
        pages.words(ask.pointer(mm, o.mm.pgd)?, registers.sp, STACK_BYTES, ask)?
    };
    Some(Raw { mm, registers, stack })
}

fn unwind_all(asked: &Receiver<Job>, answer: &Sender<(UserStack, Duration)>) {
    let mut unwinder = Unwinder::new();
    while let Ok(job) = asked.recv() {
        let started = Instant::now();
        let stack = unwinder.unwind(&job);
        if answer.send((stack, started.elapsed())).is_err() {
            return;
        }
    }
}
