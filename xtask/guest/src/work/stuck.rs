//! Threads that get stuck, with functions of known names on their stacks in user space.

use super::{say, system};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::time::Duration;

/// Two threads that do nothing: the second one is called `idle-thread`.
pub fn idle() -> Result<()> {
    std::thread::scope(|scope| {
        let idle = scope.spawn(|| -> Result<()> {
            system::set_name("idle-thread");
            say(&format!("pid {} tid {}", std::process::id(), rustix::thread::gettid()))?;
            loop {
                std::thread::park();
            }
        });
        idle.join().map_err(|_| anyhow::anyhow!("the idle thread panicked"))?
    })
}

/// Waits until there is a file of this name, and then maps memory: for ever, if the lock of this address space is held by then.
pub fn map_when_told(told: &str) -> Result<()> {
    say(&format!("pid {}", std::process::id()))?;
    // Every page of code and stack that is needed later is touched before, or a page fault would get stuck instead.
    stuck_mapping_outer()?;
    let mut ready = false;
    while !Path::new(told).exists() {
        std::thread::sleep(Duration::from_millis(50));
        if !ready {
            ready = true;
            say("ready")?;
        }
    }
    stuck_mapping_outer()
}

#[inline(never)]
fn stuck_mapping_outer() -> Result<()> {
    // What comes behind the call keeps the function on the stack.
    stuck_mapping_inner().context("the outer function")
}

#[inline(never)]
fn stuck_mapping_inner() -> Result<()> {
    system::map_directly(1 << 18).context("the inner function")
}

/// Reads a file: for ever, if that is one below `/proc` of a process whose address space is stuck.
pub fn read(path: &str) -> Result<()> {
    say(&format!("pid {}", std::process::id()))?;
    stuck_reading_outer(path)
}

#[inline(never)]
fn stuck_reading_outer(path: &str) -> Result<()> {
    stuck_reading_inner(path).context("the outer function")
}

#[inline(never)]
fn stuck_reading_inner(path: &str) -> Result<()> {
    let bytes = std::fs::read(path).context("the inner function")?;
    say(&format!("{} bytes", bytes.len()))
}
