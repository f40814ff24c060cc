//! holdup: who is holding up the kernel.
//!
//! Owner/waiter tuples of the Linux kernel, turned into a live wait-for graph and into findings that are right.

pub mod bpf;
pub mod event;
pub mod ids;
pub mod kernel;
pub mod source;
pub mod wire;
