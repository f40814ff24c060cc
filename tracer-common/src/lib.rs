//! The contract between the BPF programs (`tracer-ebpf`) and user space (`tracer`).
//!
//! Everything here is `repr(C)`, made of integers only, without implicit padding, so that any byte pattern is a valid value:
//! decoding can reject a record's *meaning* but never hits undefined behaviour.
#![no_std]

pub mod config;
pub mod counter;
pub mod kind;
pub mod record;
pub mod sample;
pub mod snapshot;
pub mod table;
pub mod watch;
