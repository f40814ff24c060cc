//! Names for the addresses in a batch of events, sent along so that whoever gets the events needs no kernel.

use std::collections::HashSet;
use std::sync::Arc;

use crate::event::{Body, Dependency, Event, LockName, SymbolName};
use crate::ids::{KernelAddr, LockAddr, Timestamp};
use crate::kernel::stacks::symbol_of_frame;
use crate::kernel::symbols::{Symbol, Symbols};

/// Addresses remembered as named; beyond it they are named again, which is harmless.
const MAX_SEEN: usize = 262_144;

/// Names addresses once each.
pub struct Names {
    symbols: Option<Arc<Symbols>>,
    frames: HashSet<KernelAddr>,
    locks: HashSet<LockAddr>,
}

impl Names {
    /// Uses the given symbol table; without one, addresses stay addresses.
    #[must_use]
    pub fn new(symbols: Option<Arc<Symbols>>) -> Self {
        Self {
            symbols,
            frames: HashSet::new(),
            locks: HashSet::new(),
        }
    }

    /// Appends names for what the events from index `from` mention for the first time.
    pub fn announce(&mut self, from: usize, out: &mut Vec<Event>) {
        let Some(symbols) = &self.symbols else { return };
        if self.frames.len() > MAX_SEEN {
            self.frames.clear();
        }
        if self.locks.len() > MAX_SEEN {
            self.locks.clear();
        }
        let mut named = Vec::new();
        for event in out.iter().skip(from) {
            match &event.body {
                Body::Stack(stack) => {
                    for (position, &frame) in stack.frames.iter().enumerate() {
                        if self.frames.insert(frame) {
                            named.extend(frame_name(symbols, position, frame, event.time));
                        }
                    }
                }
                Body::Wait(wait) if self.locks.insert(wait.lock) => {
                    named.extend(lock_name(symbols, wait.lock, event.time));
                }
                Body::Stats(stats) if self.locks.insert(stats.lock) => {
                    named.extend(lock_name(symbols, stats.lock, event.time));
                }
                Body::Dependency(depends) => match depends.dependency {
                    Dependency::WorkFlush { function } if self.frames.insert(function) => {
                        named.extend(symbol_name(symbols.resolve(function), function, event.time));
                    }
                    Dependency::Completion { completion } if self.locks.insert(LockAddr(completion.0)) => {
                        named.extend(lock_name(symbols, LockAddr(completion.0), event.time));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        // Names first: a reader of the events can then print each as it comes.
        out.splice(from..from, named);
    }
}

fn frame_name(symbols: &Symbols, position: usize, addr: KernelAddr, time: Timestamp) -> Option<Event> {
    symbol_name(symbol_of_frame(symbols, position, addr), addr, time)
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

fn lock_name(symbols: &Symbols, lock: LockAddr, time: Timestamp) -> Option<Event> {
    let symbol = symbols.resolve(KernelAddr(lock.0))?;
    let mut name = symbol.name.to_owned();
    if symbol.offset > 0 {
        name = format!("{name}+{:#x}", symbol.offset);
    }
    if let Some(module) = symbol.module {
        name = format!("{name} [{module}]");
    }
    Some(Event {
        time,
        body: Body::LockName(LockName {
            lock,
            name: name.into(),
            source: "kernel symbol".into(),
        }),
    })
}
