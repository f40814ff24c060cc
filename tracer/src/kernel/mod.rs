//! What the running kernel is and offers: types, symbols, release, clocks, and whether holdup can work here.
//!
//! Everything in here is pure user space and reads only small, well-known files of `/proc` and `/sys`, never anything
//! below `/proc/PID` of another process: on a hung machine those reads may block for ever.

pub mod btf;
pub mod clock;
pub mod cpu_times;
pub mod cpus;
pub mod facts;
pub mod layout;
pub mod lines;
mod name_index;
pub mod names;
pub mod offsets;
pub mod preflight;
pub mod probeable;
pub mod release;
pub mod stacks;
pub mod stackscan;
pub mod stall_variables;
pub mod symbols;
pub mod sysroot;
pub mod tasks;
#[cfg(test)]
mod testing;
pub mod user_stacks;
