//! Stacks, symbols and lock names as they become known.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{LockName, StackFrames, SymbolName};
use crate::ids::{KernelAddr, LockAddr, StackId};

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
    stacks: Bounded<StackId, Arc<[KernelAddr]>>,
    symbols: Bounded<KernelAddr, SymbolName>,
    locks: Bounded<LockAddr, LockName>,
}

/// Functions that say how a lock is waited for, not who waits: skipped when a call site is named.
const LOCK_FUNCTIONS: [&str; 42] = [
    "__schedule",
    "schedule",
    "io_schedule",
    "preempt_schedule",
    "context_switch",
    "__mutex_lock",
    "mutex_lock",
    "mutex_optimistic_spin",
    "__ww_mutex_lock",
    "ww_mutex_lock",
    "__ww_rt_mutex_lock",
    "rt_mutex_lock",
    "__rt_mutex",
    "rt_mutex_slow",
    "_rt_mutex",
    "rtlock_slow",
    "rt_spin_lock",
    "rt_read_lock",
    "rt_write_lock",
    "rwbase_",
    "__rwbase_",
    "down_read",
    "down_write",
    "__down_read",
    "__down_write",
    "rwsem_",
    "__rwsem_",
    "down",
    "__down",
    "percpu_down_write",
    "percpu_rwsem_wait",
    "__percpu_down_read",
    "_raw_spin",
    "_raw_read_lock",
    "_raw_write_lock",
    "native_queued_spin_lock_slowpath",
    "__pv_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
    "__flush_work",
    "__traceiter_contention",
];

/// The same for waits that are no locks.
const WAIT_FUNCTIONS: [&str; 7] = [
    "wait_for_completion",
    "__wait_for_common",
    "wait_for_common",
    "schedule_timeout",
    "do_wait_for_common",
    "wait_for_completion_timeout",
    "rcuwait_wait",
];

fn is_wait_internal(name: &str) -> bool {
    let base = name.split('.').next().unwrap_or(name);
    LOCK_FUNCTIONS.iter().chain(&WAIT_FUNCTIONS).any(|&known| {
        base == known
            || base.strip_prefix(known).is_some_and(|rest| {
                known.ends_with('_')
                    || rest.starts_with("_slowpath")
                    || rest.starts_with("_killable")
                    || rest.starts_with("_interruptible")
                    || rest.starts_with("_nested")
                    || rest.starts_with("_io")
                    || rest.starts_with("_timeout")
                    || rest.starts_with("_common")
                    || rest.starts_with("_trylock")
                    || (known == "_raw_spin" && rest.starts_with("_lock"))
                    || (known.starts_with("__rt_mutex") || known == "rt_mutex_slow" || known == "rtlock_slow")
            })
    })
}

impl Names {
    /// Empty, with bounds.
    #[must_use]
    pub fn new(max_stacks: usize, max_locks: usize) -> Self {
        Self {
            stacks: Bounded::new(max_stacks),
            symbols: Bounded::new(max_stacks.saturating_mul(4)),
            locks: Bounded::new(max_locks),
        }
    }

    pub(super) fn stack(&mut self, stack: &StackFrames) {
        self.stacks.insert(stack.id, Arc::clone(&stack.frames));
    }

    pub(super) fn symbol(&mut self, symbol: &SymbolName) {
        self.symbols.insert(symbol.addr, symbol.clone());
    }

    pub(super) fn lock(&mut self, name: &LockName) {
        self.locks.insert(name.lock, name.clone());
    }

    /// Frames of a stack, innermost first.
    #[must_use]
    pub fn frames(&self, stack: StackId) -> Option<&Arc<[KernelAddr]>> {
        self.stacks.map.get(&stack)
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
        let site = frames
            .iter()
            .find(|&&addr| self.symbol_at(addr).is_none_or(|s| !is_wait_internal(&s.name)))
            .or_else(|| frames.first())?;
        Some(self.code(*site))
    }
}

#[cfg(test)]
mod tests {
    use super::is_wait_internal;

    #[test]
    fn lock_functions_are_internal_and_their_callers_are_not() {
        for name in [
            "__mutex_lock.constprop.0",
            "__mutex_lock_slowpath",
            "mutex_lock_interruptible",
            "rwsem_down_read_slowpath",
            "down_write_killable",
            "schedule_timeout",
            "_raw_spin_lock_irqsave",
            "rt_mutex_slowlock_block.constprop.0",
            "wait_for_completion",
            "__down_common",
        ] {
            assert!(is_wait_internal(name), "{name}");
        }
        for name in [
            "lockfault_mutex_aa_inner",
            "mutex_lock_user_fn",
            "download_firmware",
            "process_one_work",
            "down_the_road",
        ] {
            assert!(!is_wait_internal(name), "{name}");
        }
    }
}
