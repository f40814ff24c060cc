//! Where a thread spins on a CPU that takes no interrupts: read from the words of its kernel stack.
//!
//! Such a CPU gives no sample, and the stack of a running thread cannot be unwound. But while it spins its stack stands still: a
//! return address into `_raw_spin_lock`, behind it the return address of a call of exactly that function, with the lock in a
//! register that was saved around there or as an operand of the code. From there outwards each frame must be the return address of a
//! call of the function that the frame before lies in: directly, through one function that ends in a jump to it, or through a
//! pointer. Still, old return addresses survive on stacks: what is found is never more than likely.
//!
//! Instructions are read as x86-64 code; elsewhere nothing is found.

use anyhow::Result;

use super::interrupt_stack::{Code, Place, places, words};
use super::percpu::Running;
use crate::event::LockKind;
use crate::ids::{KernelAddr, LockAddr};
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::Symbols;

/// Frames that are followed at most.
const MAX_FRAMES: usize = 48;
/// Functions of one stack that are read in search of a jump, at most.
const MAX_JUMPS: usize = 64;
/// Words of such a function that are read at most.
const JUMP_WORDS: u64 = 64;

/// Return addresses of the thread on this CPU, innermost first, from the function that spins on this lock outwards; empty if the
/// stack does not show one.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn spinning_at(
    memory: &mut dyn Memory,
    running: &Running,
    (lock, kind): (LockAddr, LockKind),
    symbols: &Symbols,
) -> Result<Vec<KernelAddr>> {
    let (from, to) = running.stack;
    let stack = words(memory, (from..to).step_by(8))?;
    let code = Code::around(memory, symbols, &stack)?;
    // The outermost one is alive; what lies below it may be left over from earlier.
    let place = places(&stack, symbols, &code)
        .into_iter()
        .rfind(|place| place.kind == kind && place.has(lock, &stack, &code));
    let Some(place) = place else { return Ok(Vec::new()) };
    callers(memory, &stack, &place, &code, symbols)
}

fn callers(
    memory: &mut dyn Memory,
    stack: &[u64],
    place: &Place,
    code: &Code,
    symbols: &Symbols,
) -> Result<Vec<KernelAddr>> {
    let function = |word: u64| symbols.resolve(KernelAddr(word)).map(|s| s.address.0);
    let mut frames = Vec::new();
    let mut jumps = 0;
    let inner = stack.get(place.at).copied().unwrap_or(0);
    frames.push(KernelAddr(inner));
    let mut called = function(inner);
    for &word in stack.get(place.caller..).unwrap_or_default() {
        if frames.len() >= MAX_FRAMES {
            break;
        }
        if !code.calls(word) {
            continue;
        }
        let fits = match code.target(word) {
            None => true,
            target if target == called => true,
            Some(target) if through_pointer(symbols, target) => true,
            Some(target) if jumps < MAX_JUMPS => {
                jumps += 1;
                jumps_to(memory, target, called)?
            }
            Some(_) => false,
        };
        if fits {
            frames.push(KernelAddr(word));
            called = function(word);
        }
    }
    Ok(frames)
}

/// KERNEL: the thunks of arch/x86/lib/retpoline.S, 5.10 to 6.18.
fn through_pointer(symbols: &Symbols, target: u64) -> bool {
    symbols
        .resolve(KernelAddr(target))
        .is_some_and(|s| s.name.starts_with("__x86_indirect_"))
}

/// Whether the function at `from` has a jump to the beginning of the one at `to`.
fn jumps_to(memory: &mut dyn Memory, from: u64, to: Option<u64>) -> Result<bool> {
    let Some(to) = to else { return Ok(false) };
    let addrs: Vec<u64> = (0..JUMP_WORDS).map(|n| from.wrapping_add(8 * n)).collect();
    let words = memory.read(&addrs)?;
    let bytes: Vec<u8> = words.into_iter().map_while(|w| w).flat_map(u64::to_le_bytes).collect();
    let jumps = |(at, bytes): (usize, &[u8])| match *bytes {
        [0xe9, a, b, c, d] => {
            let end = from.wrapping_add(at as u64 + 5);
            end.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into()) == to
        }
        _ => false,
    };
    Ok(bytes.windows(5).enumerate().any(jumps))
}

#[cfg(test)]
#[path = "thread_stack_tests.rs"]
mod tests;
