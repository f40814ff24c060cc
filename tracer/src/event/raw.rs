//! Records as the kernel wrote them.

use bytes::Bytes;

/// The bytes of a record of [`tracer_common::record`], as the ring buffer or an iterator gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord(pub Bytes);
