//! Unlock slowpaths. They run only when somebody waits, so an uncontended unlock costs nothing.

use core::ffi::c_void;

use crate::emit;

/// The current thread releases `lock`, on which somebody waits.
#[inline(always)]
pub fn release(ctx: *mut c_void, lock: u64, kind: u8) {
    emit::release(ctx, lock, kind);
}
