//! What a capture says about the machine and the run it comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::frame::{Head, Kind, SealError};
use crate::ids::Nanos;
use crate::kernel::clock::Anchor;

/// The header of a capture. JSON, so that every version can read what it knows of it; a field that an older version did not
/// write has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Version of holdup.
    pub tool: String,
    /// Its command line.
    pub arguments: Vec<String>,
    /// Host name.
    pub host: String,
    /// `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`: times of two boots must not be compared.
    pub boot_id: String,
    /// What ties the events' clock to the calendar.
    pub clock: Option<Anchor>,
    /// Possible CPUs.
    pub cpus: u32,
    /// Threshold from which on pending waits are re-read; the model needs it.
    #[serde(rename = "pending_after_ns")]
    pub pending_after: Nanos,
    /// Offsets of kernel fields that were used, by name.
    pub offsets: BTreeMap<String, String>,
    /// Probes, as one line each: what was attached, and what was not and why.
    pub probes: Vec<String>,
    /// What this recording cannot see, as one line each.
    pub limits: Vec<String>,
    /// The same for all files of one recording.
    pub recording: String,
    /// Number of the file in its recording, from 0.
    pub part: u32,
}

impl Meta {
    /// The first frame of a file.
    ///
    /// # Errors
    /// When it is larger than a frame may be.
    pub fn seal(&self) -> Result<bytes::Bytes, SealError> {
        let json = serde_json::to_vec(self).map_err(|e| SealError::Compression(e.to_string()))?;
        Head::new(Kind::Meta, 0).seal(&json)
    }

    /// Reads the payload of a header frame; `None` when it is none.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}
