//! `holdup doctor`: what this kernel offers and what holdup will use of it.

use anyhow::Result;

use crate::cli::DoctorArgs;
use crate::session::Outcome;

/// Prints the report.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(_args: &DoctorArgs) -> Result<Outcome> {
    Ok(Outcome::Nothing)
}
