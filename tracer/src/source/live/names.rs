//! Names for the addresses in a batch of events, sent along so that whoever gets the events needs no kernel.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::event::{Activity, Body, Dependency, Doing, Event, LockKind, LockName, StackFrames, SymbolName, TaskSample};
use crate::ids::{KernelAddr, LockAddr, Nanos, StackId, Timestamp};
use crate::kernel::facts::KernelFacts;
use crate::kernel::names::{LockNamer, Named};
use crate::kernel::stacks::{FrameName, caller_position, symbol_of_frame};
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::{Symbol, Symbols};

/// Addresses remembered as named; beyond it they are named again, which is harmless.
const MAX_SEEN: usize = 262_144;
/// Locks whose names must be looked up in kernel memory; beyond it the oldest stay without.
const MAX_PENDING: usize = 65_536;
/// Locks named in one go.
const BATCH: usize = 2_048;
/// Share of the time that naming again may take is one part in this many.
const BUDGET_AGAIN: u32 = 20;
/// The same for naming for the first time: what a lock lies in may be gone soon.
const BUDGET_NEW: u32 = 8;
/// What lies in an object is named again after this time if it is still contended: the object may be another one by then.
const HOLDS_FOR: Nanos = Nanos::from_secs(5);

/// Names addresses once each.
pub struct Names {
    symbols: Option<Arc<Symbols>>,
    namer: LockNamer,
    frames: HashSet<KernelAddr>,
    /// Call sites of stacks.
    sites: HashMap<StackId, Arc<str>>,
    locks: HashMap<LockAddr, Known>,
    /// Locks that are to be named for the first time, and again.
    new: Queue,
    again: Queue,
    /// Time of the newest event.
    latest: Timestamp,
}

/// Locks that wait for their names.
#[derive(Default)]
struct Queue {
    pending: VecDeque<(LockAddr, LockKind)>,
    /// Before that, locks only queue up.
    next: Option<Instant>,
}

impl Queue {
    /// Some of the locks, unless naming took too much of the time lately.
    fn batch(&mut self, now: Instant, most: usize) -> Vec<(LockAddr, LockKind)> {
        if self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.pending.drain(..most.min(self.pending.len())).collect()
    }
}

/// What is known of a lock.
struct Known {
    kind: LockKind,
    /// The newest event about it when it was named.
    time: Timestamp,
    queued: bool,
    named: Option<Named>,
    /// Where it was first waited for.
    site: Option<Arc<str>>,
    /// What was sent.
    sent: Option<LockName>,
}

impl Known {
    /// Takes a newer name, unless it says less: an object that is gone by now was still what it was when it was waited for.
    fn take(&mut self, new: Option<Named>) {
        let says_less = match (&self.named, &new) {
            (Some(_), None) => true,
            (Some(old), Some(new)) => new.says_less_than(old),
            (None, _) => false,
        };
        if !says_less {
            self.named = new;
        }
    }
}

impl Names {
    /// For the running kernel.
    #[must_use]
    pub fn new(facts: &KernelFacts) -> Self {
        Self::with(facts.files.symbols().cloned(), facts.lock_namer())
    }

    fn with(symbols: Option<Arc<Symbols>>, namer: LockNamer) -> Self {
        Self {
            symbols,
            namer,
            frames: HashSet::new(),
            sites: HashMap::new(),
            locks: HashMap::new(),
            new: Queue::default(),
            again: Queue::default(),
            latest: Timestamp(0),
        }
    }

    /// Inserts names for what the events from index `from` mention for the first time before those events.
    ///
    /// # Errors
    /// When kernel memory cannot be read at all.
    pub fn announce(&mut self, from: usize, memory: &mut dyn Memory, out: &mut Vec<Event>) -> Result<()> {
        self.forget();
        let mut named = Vec::new();
        let mut touched = Vec::new();
        for event in out.iter().skip(from) {
            self.code(event, &mut named);
            touched.extend(self.locks_of(event));
        }
        let first = out.get(from).map(|event| event.time);
        let newest = out.iter().skip(from).map(|event| event.time).max();
        self.latest = newest.unwrap_or_default().max(self.latest);
        // Locks of earlier batches may get their names now, whether or not there are events.
        let time = first.unwrap_or(self.latest);
        self.resolve(memory, BATCH, &mut touched)?;
        named.extend(touched.into_iter().filter_map(|lock| self.tell(lock, time)));
        // Names first: a reader of the events can then print each as it comes.
        out.splice(from..from, named);
        Ok(())
    }

    /// The same for the last events there will be: what still waits for its name gets it now.
    ///
    /// # Errors
    /// As for [`Self::announce`].
    pub fn announce_last(&mut self, from: usize, memory: &mut dyn Memory, out: &mut Vec<Event>) -> Result<()> {
        (self.new.next, self.again.next) = (None, None);
        self.announce(from, memory, out)?;
        let time = self.latest;
        (self.new.next, self.again.next) = (None, None);
        let mut touched = Vec::new();
        self.resolve(memory, MAX_PENDING, &mut touched)?;
        out.extend(
            touched
                .into_iter()
                .filter_map(|lock| self.tell(lock, time))
                .collect::<Vec<_>>(),
        );
        Ok(())
    }

    /// Takes newer symbols: tracing adds some.
    pub fn renew(&mut self, symbols: Arc<Symbols>) {
        self.symbols = Some(symbols);
    }

    fn forget(&mut self) {
        if self.frames.len() > MAX_SEEN {
            self.frames.clear();
        }
        if self.sites.len() > MAX_SEEN {
            self.sites.clear();
        }
        if self.locks.len() > MAX_SEEN {
            self.locks.clear();
            self.new.pending.clear();
            self.again.pending.clear();
        }
    }

    /// Names of functions that the event mentions for the first time.
    fn code(&mut self, event: &Event, named: &mut Vec<Event>) {
        let Some(symbols) = &self.symbols else { return };
        match &event.body {
            Body::Stack(stack) => {
                for (position, &frame) in stack.frames.iter().enumerate() {
                    if self.frames.insert(frame) {
                        named.extend(symbol_name(
                            symbol_of_frame(symbols, position, frame),
                            frame,
                            event.time,
                        ));
                    }
                }
                if let Some(site) = site(symbols, stack) {
                    self.sites.insert(stack.id, site);
                }
            }
            Body::Task(TaskSample {
                work: Some(function), ..
            })
            | Body::Doing(Doing {
                activity: Activity::Work { function, .. },
                ..
            }) if self.frames.insert(*function) => {
                named.extend(symbol_name(symbols.resolve(*function), *function, event.time));
            }
            Body::Dependency(depends) => {
                if let Dependency::WorkFlush { function } = depends.dependency
                    && self.frames.insert(function)
                {
                    named.extend(symbol_name(symbols.resolve(function), function, event.time));
                }
            }
            _ => {}
        }
    }

    /// The lock that the event is about, if something about its name may be new.
    fn locks_of(&mut self, event: &Event) -> Option<LockAddr> {
        let (lock, kind, stack) = match &event.body {
            Body::Wait(wait) => (wait.lock, wait.kind, wait.stack),
            Body::Stats(stats) => (stats.lock, stats.kind, StackId(0)),
            Body::Reinit(reinit) => (reinit.lock, reinit.kind, StackId(0)),
            Body::Watch(watched) => (watched.lock, watched.kind, StackId(0)),
            Body::Dependency(depends) => {
                let addr = depends.dependency.object()?;
                (LockAddr(addr.0), LockKind::Unknown, depends.stack)
            }
            _ => return None,
        };
        let known = self.locks.entry(lock).or_insert_with(|| Known {
            kind,
            time: Timestamp(0),
            queued: false,
            named: None,
            site: None,
            sent: None,
        });
        let site_is_new = known.site.is_none() && {
            known.site = self.sites.get(&stack).cloned();
            known.site.is_some()
        };
        let is_static = known.named.as_ref().is_some_and(|named| named.fixed);
        let stale = !is_static && (known.time == Timestamp(0) || event.time.since(known.time) > HOLDS_FOR);
        if stale && !known.queued {
            let first = known.time == Timestamp(0);
            (known.kind, known.time) = (kind, event.time);
            // Nothing needs to be read for a variable: a finding that opens now has its name already.
            if let Some(variable) = self.namer.variable(lock, kind) {
                known.named = Some(variable);
                return Some(lock);
            }
            known.queued = true;
            let queue = if first { &mut self.new } else { &mut self.again };
            queue.pending.push_back((lock, kind));
            while queue.pending.len() > MAX_PENDING {
                if let Some((dropped, _)) = queue.pending.pop_front()
                    && let Some(dropped) = self.locks.get_mut(&dropped)
                {
                    dropped.queued = false;
                }
            }
        }
        site_is_new.then_some(lock)
    }

    /// Names some of the locks that wait for it, unless that took too much of the time lately.
    fn resolve(&mut self, memory: &mut dyn Memory, most: usize, touched: &mut Vec<LockAddr>) -> Result<()> {
        for (queue, budget) in [(&mut self.new, BUDGET_NEW), (&mut self.again, BUDGET_AGAIN)] {
            let started = Instant::now();
            let batch = queue.batch(started, most);
            if batch.is_empty() {
                continue;
            }
            let names = self.namer.name(&batch, memory)?;
            for ((lock, _), named) in batch.into_iter().zip(names) {
                if let Some(known) = self.locks.get_mut(&lock) {
                    known.queued = false;
                    known.take(named);
                    touched.push(lock);
                }
            }
            queue.next = Some(started + started.elapsed() * budget);
        }
        Ok(())
    }

    /// The name of a lock, if it is not the one that was sent.
    fn tell(&mut self, lock: LockAddr, time: Timestamp) -> Option<Event> {
        let known = self.locks.get_mut(&lock)?;
        let name = lock_name(lock, known.named.as_ref(), known.site.as_deref())?;
        if known.sent.as_ref() == Some(&name) {
            return None;
        }
        known.sent = Some(name.clone());
        Some(Event {
            time,
            body: Body::LockName(name),
        })
    }
}

/// What it is, as far as it is known; else where it was waited for.
fn lock_name(lock: LockAddr, named: Option<&Named>, site: Option<&str>) -> Option<LockName> {
    let (name, source, class) = match (named, site) {
        (Some(named), Some(site)) if !named.firm => (
            format!("wanted at {site}, {}", named.name),
            format!("call site of a waiter; {}", named.source),
            format!("wanted at {site}"),
        ),
        (Some(named), _) => (named.name.clone(), named.source.clone(), named.class.clone()),
        (None, Some(site)) => {
            let class = format!("wanted at {site}");
            (class.clone(), "call site of a waiter".to_owned(), class)
        }
        (None, None) => return None,
    };
    Some(LockName {
        lock,
        name: name.into(),
        source: source.into(),
        class: Some(class.into()),
    })
}

/// The innermost function of a stack that is not the kernel's own lock machinery.
fn site(symbols: &Symbols, stack: &StackFrames) -> Option<Arc<str>> {
    let names: Vec<Option<Symbol<'_>>> = stack
        .frames
        .iter()
        .enumerate()
        .map(|(position, &frame)| symbol_of_frame(symbols, position, frame))
        .collect();
    let caller = caller_position(names.iter().map(|symbol| {
        symbol.map(|symbol| FrameName {
            name: symbol.name,
            module: symbol.module,
        })
    }));
    let symbol = names.get(caller).copied().flatten()?;
    Some(match symbol.module {
        Some(module) => format!("{} [{module}]", symbol.name).into(),
        None => symbol.name.into(),
    })
}

fn symbol_name(symbol: Option<Symbol<'_>>, addr: KernelAddr, time: Timestamp) -> Option<Event> {
    let symbol = symbol?;
    Some(Event {
        time,
        body: Body::Symbol(SymbolName {
            addr,
            name: symbol.name.into(),
            offset: symbol.offset,
            module: symbol.module.map(Into::into),
        }),
    })
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
