//! The records of the kernel in a capture, as they came: for looking at what the decoder was given.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use tracer_common::kind::record_kind;
use tracer_common::record::Header;
use zerocopy::FromBytes;

use super::json::SCHEMA_VERSION;
use crate::event::RawRecord;
use crate::ids::{CpuId, Timestamp};

#[derive(Serialize)]
struct Line {
    schema_version: u32,
    r#type: &'static str,
    time_ns: Timestamp,
    cpu: CpuId,
    kind: &'static str,
    /// Hexadecimal.
    bytes: String,
}

/// Writes one record as a line of JSON; nothing for bytes that are none.
///
/// # Errors
/// When the stream cannot be written.
pub fn json(RawRecord(record): &RawRecord, to: &mut impl Write) -> io::Result<()> {
    let Ok((header, _)) = Header::read_from_prefix(record) else {
        return Ok(());
    };
    let mut bytes = String::with_capacity(record.len() * 2);
    for byte in record {
        // A text takes everything.
        let _ = write!(bytes, "{byte:02x}");
    }
    let line = Line {
        schema_version: SCHEMA_VERSION,
        r#type: "record",
        time_ns: Timestamp(header.time),
        cpu: CpuId(header.cpu),
        kind: match header.kind {
            record_kind::WAIT_BEGIN => "wait-begin",
            record_kind::WAIT_END => "wait-end",
            record_kind::WAIT_PENDING => "wait-pending",
            record_kind::TASK => "task",
            record_kind::RELEASE => "release",
            record_kind::REINIT => "reinit",
            _ => "other",
        },
        bytes,
    };
    serde_json::to_writer(&mut *to, &line)?;
    to.write_all(b"\n")
}
