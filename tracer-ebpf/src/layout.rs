//! Kernel layout and settings, overridden by user space before the programs are loaded.
//!
//! They live in `.rodata`, which is frozen before verification: the verifier sees constants and drops the branches of features
//! that are off or whose fields this kernel lacks.

use tracer_common::config::{Layout, Settings};

#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout::NONE;

#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings::NONE;

/// A read that the compiler does not replace by the initial value.
#[inline(always)]
pub fn constant<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(field) }
}

/// Reads one field of [`LAYOUT`]; volatile, or the compiler would fold the initial value in.
macro_rules! off {
    ($field:ident) => {
        $crate::layout::constant(&$crate::layout::LAYOUT.$field)
    };
}

/// Reads one field of [`SETTINGS`].
macro_rules! setting {
    ($field:ident) => {
        $crate::layout::constant(&$crate::layout::SETTINGS.$field)
    };
}

pub(crate) use {off, setting};
