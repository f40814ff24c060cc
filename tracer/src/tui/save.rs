//! Saving a report: the one on the screen, or that of a snapshot.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use thiserror::Error;

use crate::report::Report;
use crate::view::{json, text, tree};

/// A report could not be saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The name is taken.
    #[error("{0} is there already: give another name")]
    Exists(String),
    /// Something else.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// A name that says what it is (`holdup` for a report), which machine and when.
#[must_use]
pub fn suggested_name(what: &str, report: &Report) -> String {
    let host: String = report
        .source
        .host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let seconds = report.time.0 / 1_000_000_000;
    if host.is_empty() {
        format!("{what}-{seconds}.txt")
    } else {
        format!("{what}-{host}-{seconds}.txt")
    }
}

/// Writes the report to a new file that only its owner can read: as JSON when the name ends in `.json`, else as text.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn save(report: &Report, name: &str) -> Result<(), SaveError> {
    let path = Path::new(name);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => SaveError::Exists(name.to_owned()),
        _ => SaveError::Io(name.to_owned(), error),
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut out = BufWriter::new(file);
    let written = if path.extension().is_some_and(|e| e == "json") {
        json::report(&mut out, report)
    } else {
        page(&mut out, report)
    };
    written.and_then(|()| out.flush()).map_err(failed)
}

/// What `holdup snapshot` prints.
fn page(out: &mut impl Write, report: &Report) -> io::Result<()> {
    text::findings(out, report)?;
    tree::trees(out, report)?;
    text::summary(out, report)
}
