//! holdup: who is holding up the kernel.
//!
//! Owner/waiter tuples of the Linux kernel, turned into a live wait-for graph and into findings that are right.

pub mod bpf;
pub mod capture;
pub mod cli;
pub mod descriptors;
pub mod diagnosis;
pub mod doctor;
pub mod event;
pub mod ids;
pub mod kernel;
pub mod model;
pub mod only;
pub mod owner_word;
pub mod pipeline;
pub mod player;
pub mod report;
pub mod session;
pub mod source;
pub mod spin_word;
pub mod tui;
pub mod verbs;
pub mod view;
pub mod wire;
