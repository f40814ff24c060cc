//! Why records are rejected.

use thiserror::Error;

/// Why a record was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Fewer bytes than its header or body needs.
    #[error("record of kind {kind} has {have} bytes, {need} needed")]
    Short {
        /// [`Header::kind`](tracer_common::record::Header::kind), 0 when not even the header was there.
        kind: u16,
        /// Bytes present.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A kind this version does not know.
    #[error("unknown record kind {0}")]
    UnknownKind(u16),
    /// The size in the header contradicts the body.
    #[error("record of kind {kind} claims {size} bytes and {frames} frames")]
    BadSize {
        /// [`Header::kind`](tracer_common::record::Header::kind).
        kind: u16,
        /// [`Header::size`](tracer_common::record::Header::size).
        size: u16,
        /// Frames claimed.
        frames: u32,
    },
    /// A code outside its set.
    #[error("record of kind {kind} has the value {value} for {field}")]
    BadCode {
        /// [`Header::kind`](tracer_common::record::Header::kind).
        kind: u16,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

pub(super) fn short(kind: u16, have: usize, need: usize) -> WireError {
    WireError::Short { kind, have, need }
}

pub(super) fn bad(kind: u16, field: &'static str, value: u8) -> WireError {
    WireError::BadCode {
        kind,
        field,
        value: value.into(),
    }
}
