//! Codes of records, and what they mean.

use tracer_common::kind::{lock_kind, mode};

use super::error::{WireError, bad};
use crate::event::{LockKind, Mode};

pub(super) fn lock_kind_of(record: u16, code: u8) -> Result<LockKind, WireError> {
    Ok(match code {
        lock_kind::UNKNOWN => LockKind::Unknown,
        lock_kind::MUTEX => LockKind::Mutex,
        lock_kind::WW_MUTEX => LockKind::WwMutex,
        lock_kind::RWSEM => LockKind::Rwsem,
        lock_kind::RT_MUTEX => LockKind::RtMutex,
        lock_kind::PERCPU_RWSEM => LockKind::PercpuRwsem,
        lock_kind::SEMAPHORE => LockKind::Semaphore,
        lock_kind::SPINLOCK => LockKind::Spinlock,
        lock_kind::RWLOCK => LockKind::Rwlock,
        lock_kind::RT_SPINLOCK | lock_kind::RT_RWBASE => LockKind::RtSpinlock,
        other => return Err(bad(record, "lock kind", other)),
    })
}

pub(super) fn mode_of(record: u16, code: u8) -> Result<Mode, WireError> {
    match code {
        mode::EXCLUSIVE => Ok(Mode::Exclusive),
        mode::SHARED => Ok(Mode::Shared),
        other => Err(bad(record, "mode", other)),
    }
}

/// Kind and mode codes as they stand in the shared tables; unknown codes become [`LockKind::Unknown`] and exclusive.
#[must_use]
pub fn table_codes(kind: u8, wanted: u8) -> (LockKind, Mode) {
    (
        lock_kind_of(0, kind).unwrap_or(LockKind::Unknown),
        mode_of(0, wanted).unwrap_or(Mode::Exclusive),
    )
}
