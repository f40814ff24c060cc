//! Stacks, symbols and lock names as they become known.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{CgroupName, CodeLine, LockName, StackFrames, SymbolName};
use crate::ids::{CgroupId, KernelAddr, LockAddr, StackId};
use crate::kernel::stacks::{FrameName, caller_position};

/// A map that forgets its oldest entries beyond a bound.
#[derive(Debug)]
struct Bounded<K, V> {
    map: FxHashMap<K, V>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    fn new(max: usize) -> Self {
        Self {
            map: FxHashMap::default(),
            order: VecDeque::new(),
            max,
        }
    }

    fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key, value).is_none() {
            self.order.push_back(key);
            while self.order.len() > self.max {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
        }
    }
}

/// Names by address and frames by stack.
#[derive(Debug)]
pub struct Names {
    stacks: Bounded<StackId, StackFrames>,
    symbols: Bounded<KernelAddr, SymbolName>,
    lines: Bounded<KernelAddr, CodeLine>,
    locks: Bounded<LockAddr, LockName>,
    cgroups: Bounded<CgroupId, Arc<str>>,
}

/// Functions which initialise a lock: what calls them is of interest.
const INITIALISERS: [&str; 7] = [
    "__mutex_init",
    "__init_rwsem",
    "__init_swait_queue_head",
    "__init_waitqueue_head",
    "__percpu_init_rwsem",
    "__rt_mutex_init",
    "__ww_mutex_init",
];

impl Names {
    /// Empty, with bounds.
    #[must_use]
    pub fn new(max_stacks: usize, max_locks: usize) -> Self {
        Self {
            stacks: Bounded::new(max_stacks),
            symbols: Bounded::new(max_stacks.saturating_mul(4)),
            lines: Bounded::new(max_stacks.saturating_mul(4)),
            locks: Bounded::new(max_locks),
            cgroups: Bounded::new(max_locks),
        }
    }

    pub(super) fn stack(&mut self, stack: &StackFrames) {
        self.stacks.insert(stack.id, stack.clone());
    }

    pub(super) fn symbol(&mut self, symbol: &SymbolName) {
        self.symbols.insert(symbol.addr, symbol.clone());
    }

    pub(super) fn lock(&mut self, name: &LockName) {
        self.locks.insert(name.lock, name.clone());
    }

    pub(super) fn line(&mut self, line: &CodeLine) {
        self.lines.insert(line.addr, line.clone());
    }

    /// Place in the source of a code address.
    #[must_use]
    pub fn line_at(&self, addr: KernelAddr) -> Option<&CodeLine> {
        self.lines.map.get(&addr)
    }

    /// How many of the innermost frames are no news: what waits for the lock, or initialises it, and what took the stack.
    #[must_use]
    pub fn machinery(&self, frames: &[KernelAddr]) -> usize {
        let name = |addr: &KernelAddr| {
            self.symbol_at(*addr).map(|s| FrameName {
                name: &s.name,
                module: s.module.as_deref(),
            })
        };
        let initialises = |addr: &&KernelAddr| name(addr).is_some_and(|n| INITIALISERS.contains(&n.name));
        let inner = frames.iter().take_while(initialises).count();
        let inner = if inner < frames.len() { inner } else { 0 };
        inner + caller_position(frames.iter().skip(inner).map(name))
    }

    pub(super) fn name_cgroup(&mut self, name: &CgroupName) {
        self.cgroups.insert(name.cgroup, Arc::clone(&name.path));
    }

    /// Path of a cgroup.
    #[must_use]
    pub fn cgroup(&self, cgroup: CgroupId) -> Option<&Arc<str>> {
        self.cgroups.map.get(&cgroup)
    }

    /// Frames of a stack, innermost first.
    #[must_use]
    pub fn frames(&self, stack: StackId) -> Option<&Arc<[KernelAddr]>> {
        self.stacks.map.get(&stack).map(|stack| &stack.frames)
    }

    /// Whether a stack was pieced together from its words, so that its frames are no more than likely.
    #[must_use]
    pub fn is_pieced(&self, stack: StackId) -> bool {
        self.stacks.map.get(&stack).is_some_and(|stack| stack.pieced)
    }

    /// Name of a code address.
    #[must_use]
    pub fn symbol_at(&self, addr: KernelAddr) -> Option<&SymbolName> {
        self.symbols.map.get(&addr)
    }

    /// Name of a lock.
    #[must_use]
    pub fn lock_name(&self, addr: LockAddr) -> Option<&LockName> {
        self.locks.map.get(&addr)
    }

    /// What a lock has in common with others of its kind: the same variable, the same member of a struct, or the same call site.
    #[must_use]
    pub fn lock_class(&self, addr: LockAddr) -> Option<&Arc<str>> {
        let name = self.lock_name(addr)?;
        Some(name.class.as_ref().unwrap_or(&name.name))
    }

    /// Name of a code address, or the address itself.
    #[must_use]
    pub fn code(&self, addr: KernelAddr) -> String {
        self.symbol_at(addr)
            .map_or_else(|| addr.to_string(), |s| s.name.to_string())
    }

    /// The call site of a wait: the innermost frame outside the kernel's own lock and scheduler functions. `None` without a
    /// stack; the bare address where a frame has no name.
    #[must_use]
    pub fn site(&self, stack: StackId) -> Option<String> {
        let frames = self.frames(stack)?;
        let caller = self.machinery(frames);
        frames.get(caller).map(|&site| self.code(site))
    }
}
