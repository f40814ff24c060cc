//! `holdup replay --text`: what `live` has shown, from the capture.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::Args;

use super::{Recorded, tell_damage};
use crate::session::{Lines, Outcome, STDOUT};

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Which recording.
    #[command(flatten)]
    pub recorded: Recorded,
    /// Lines of text.
    #[arg(long, conflicts_with = "json")]
    pub text: bool,
    /// JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Also print every owner/waiter tuple.
    #[arg(long)]
    pub tuples: bool,
}

/// Prints what was found, byte for byte as it was printed live.
///
/// # Errors
/// When the capture cannot be read or stdout cannot be written.
pub fn run(args: &ReplayArgs) -> Result<Outcome> {
    let mut player = args.recorded.open()?;
    let mut lines = Lines {
        json: args.json,
        tuples: args.tuples,
        out: io::stdout().lock(),
        worst: Outcome::Nothing,
    };
    while player.step(|played| {
        if let Some(event) = played.event {
            lines.event(event)?;
        }
        lines.changes(played.time, &played.changes)
    })? {}
    lines.end(player.pipeline())?;
    lines.out.flush().context(STDOUT)?;
    tell_damage(&player);
    Ok(lines.worst)
}
