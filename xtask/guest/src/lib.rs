//! The protocol between `cargo xtask vm` on the host and PID 1 in the virtual machine.
//!
//! One direction each: the host puts a [`plan::Plan`] into the initramfs, the guest answers with [`message::Message`]s
//! in checksummed [`frame::Frame`]s. Nothing of it travels over the console, which belongs to the kernel's own words.

pub mod frame;
pub mod message;
pub mod plan;
