//! `cargo xtask vm`: a stock kernel in QEMU, broken on purpose, with holdup inside.

pub mod accel;
pub mod boot;
pub mod command;
pub mod console;
pub mod cpio;
pub mod fetch;
pub mod files;
pub mod forward;
pub mod headers;
pub mod initramfs;
pub mod kernels;
pub mod module;
pub mod packages;
pub mod qemu;
pub mod scenarios;
pub mod script;
pub mod session;
pub mod stock_modules;
pub mod terminal;
