//! Findings and reports as JSON, one object per line. `schema/holdup.v1.schema.json` documents every field; a field is never
//! renamed or removed within a version, but new ones may be added.

use std::io::{self, Write};

use serde::Serialize;

use crate::diagnosis::{Finding, FindingChange};
use crate::ids::{Nanos, Timestamp};
use crate::report::Report;

/// Version of the schema of every line.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct ChangeLine<'a> {
    schema_version: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    change: &'static str,
    time_ns: Timestamp,
    /// How long it has been true, at least.
    age_ns: Nanos,
    finding: &'a Finding,
}

#[derive(Serialize)]
struct ReportLine<'a> {
    schema_version: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Writes what became of one finding as one line, at time `now` of the model.
///
/// # Errors
/// When `out` cannot be written to.
pub fn change(out: &mut impl Write, now: Timestamp, change: &FindingChange) -> io::Result<()> {
    let (what, time_ns, age_ns, finding) = match change {
        FindingChange::Opened(f) => ("opened", now, f.age(now), f),
        FindingChange::Changed(f) => ("changed", now, f.age(now), f),
        FindingChange::Closed(c) => ("closed", c.closed, c.lasted, &c.finding),
    };
    line(
        out,
        &ChangeLine {
            schema_version: SCHEMA_VERSION,
            kind: "finding",
            change: what,
            time_ns,
            age_ns,
            finding,
        },
    )
}

/// Writes a whole report as one line.
///
/// # Errors
/// When `out` cannot be written to.
pub fn report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    line(
        out,
        &ReportLine {
            schema_version: SCHEMA_VERSION,
            kind: "report",
            report,
        },
    )
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    // serde_json reports a failed write as such, so a broken pipe is still seen as one.
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}
