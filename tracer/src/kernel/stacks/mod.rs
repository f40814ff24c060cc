//! Kernel stacks for people: names, and the caller that matters first.
//!
//! The innermost frames of a waiting task are always the same: the tracing that took the stack, the scheduler, the slow path
//! of the lock. What tells one wait from another is the first frame behind them. Nothing is thrown away: trimming is a
//! position, and the whole stack stays at hand.
//!
//! Trimming looks at names only, so that a capture is trimmed alike on another machine.

mod crossing;
mod machinery;
#[cfg(test)]
mod tests;

use std::fmt;

pub use crossing::interrupt_entry;

use super::symbols::{Symbol, Symbols};
use crate::ids::KernelAddr;

/// What trimming needs to know of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameName<'a> {
    /// Symbol name, with any compiler suffix.
    pub name: &'a str,
    /// Module; `None` for the kernel itself.
    pub module: Option<&'a str>,
}

/// One frame of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// As the kernel gave it.
    pub address: KernelAddr,
    /// What lies there, if it is known.
    pub symbol: Option<Symbol<'a>>,
}

/// A stack with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack<'a> {
    frames: Vec<Frame<'a>>,
    caller: usize,
}

impl<'a> Stack<'a> {
    /// Names the frames of a stack, innermost first.
    pub fn new(symbols: &'a Symbols, addresses: &[KernelAddr]) -> Self {
        let frames: Vec<_> = (0..)
            .zip(addresses)
            .map(|(i, &address)| Frame {
                address,
                symbol: symbol_of_frame(symbols, i, address),
            })
            .collect();
        let names = frames.iter().map(|f| {
            f.symbol.map(|s| FrameName {
                name: s.name,
                module: s.module,
            })
        });
        let caller = caller_position(names);
        Self { frames, caller }
    }

    /// All frames, innermost first.
    pub fn all(&self) -> &[Frame<'a>] {
        &self.frames
    }

    /// From the caller that matters outward.
    pub fn trimmed(&self) -> &[Frame<'a>] {
        self.frames.get(self.caller..).unwrap_or_default()
    }

    /// The caller that matters: who wanted the lock.
    pub fn caller(&self) -> Option<&Frame<'a>> {
        self.trimmed().first()
    }
}

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.symbol {
            Some(symbol) => write!(f, "{symbol}"),
            None => write!(f, "{}", self.address),
        }
    }
}

/// The symbol of the `position`-th frame, innermost being 0.
///
/// All frames but the innermost are return addresses. Behind a call that never returns, at the end of a function, that is
/// the start of the *next* function (`do_group_exit` calling `do_exit`): the call is looked up in its stead.
pub fn symbol_of_frame(symbols: &Symbols, position: usize, address: KernelAddr) -> Option<Symbol<'_>> {
    if position == 0 {
        return symbols.resolve(address);
    }
    let call = symbols.resolve(KernelAddr(address.0.checked_sub(1)?))?;
    Some(Symbol {
        offset: call.offset + 1,
        ..call
    })
}

/// How many of the innermost frames are machinery: the position of the caller that matters. Zero when nothing else would
/// be left, for then the machinery is all there is to show. `None` is a frame without a name.
pub fn caller_position<'a>(names: impl IntoIterator<Item = Option<FrameName<'a>>>) -> usize {
    let mut tracing_may_follow = true;
    let mut caller = 0;
    let mut len = 0;
    let mut inside = true;
    for (position, name) in names.into_iter().enumerate() {
        len = position + 1;
        if !inside {
            continue;
        }
        match name {
            Some(name) if machinery::is_wait(name) => {
                tracing_may_follow = false;
                caller = len;
            }
            // Between a lock function that is traced by a trampoline and its caller.
            Some(name) if machinery::is_trampoline(name) => caller = len,
            Some(name) if tracing_may_follow && machinery::is_tracing(name) => caller = len,
            // Trampolines, which tracing generates, have no names on some kernels.
            None if tracing_may_follow => {}
            Some(_) | None => inside = false,
        }
    }
    if caller < len { caller } else { 0 }
}
