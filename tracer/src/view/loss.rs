//! What was not seen: a line whenever a loss counter has moved.

use std::io::{self, Write};

use serde::Serialize;

use super::json::SCHEMA_VERSION;
use super::units::instant;
use crate::diagnosis::phrase;
use crate::event::{LossCause, LossReport};
use crate::ids::Timestamp;

#[derive(Serialize)]
struct LossLine<'a> {
    schema_version: u32,
    r#type: &'static str,
    time_ns: Timestamp,
    /// Cumulative since the start.
    by_cause: &'a [(LossCause, u64)],
}

/// Writes the counters as a line of JSON.
///
/// # Errors
/// When the stream cannot be written.
pub fn json(time: Timestamp, report: &LossReport, to: &mut impl Write) -> io::Result<()> {
    let line = LossLine {
        schema_version: SCHEMA_VERSION,
        r#type: "loss",
        time_ns: time,
        by_cause: &report.by_cause,
    };
    serde_json::to_writer(&mut *to, &line)?;
    to.write_all(b"\n")
}

/// Writes the counters as a line of text.
///
/// # Errors
/// When the stream cannot be written.
pub fn text(time: Timestamp, report: &LossReport, to: &mut impl Write) -> io::Result<()> {
    let causes: Vec<String> = report
        .by_cause
        .iter()
        .map(|(cause, n)| format!("{n} {}", phrase::loss(*cause)))
        .collect();
    writeln!(to, "{} LOST so far: {}", instant(time), causes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_cause_and_count() {
        let report = LossReport {
            by_cause: vec![(LossCause::RingFull, 3), (LossCause::MissedEnd, 1)],
        };
        let (mut text_line, mut json_line) = (Vec::new(), Vec::new());
        text(Timestamp(1_500_000_000), &report, &mut text_line).unwrap();
        json(Timestamp(1_500_000_000), &report, &mut json_line).unwrap();
        assert_eq!(
            String::from_utf8(text_line).unwrap(),
            "1.500 LOST so far: 3 events lost to a full ring buffer, 1 ends of waits missed\n"
        );
        assert_eq!(
            String::from_utf8(json_line).unwrap(),
            "{\"schema_version\":1,\"type\":\"loss\",\"time_ns\":1500000000,\"by_cause\":[[\"ring-full\",3],[\"missed-end\",1]]}\n"
        );
    }
}
