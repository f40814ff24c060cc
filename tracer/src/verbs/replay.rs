//! `holdup replay`: what `live` has shown, from the capture; on a terminal as the interactive view.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::Args;

use super::{Recorded, tell_damage};
use crate::cli::OutputArgs;
use crate::player::Player;
use crate::session::{Lines, Outcome, STDOUT, Signals};
use crate::tui;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Which recording.
    #[command(flatten)]
    pub recorded: Recorded,
    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// How the interactive view looks.
    #[command(flatten)]
    pub view: tui::Options,
}

/// Plays the capture in the interactive view, or prints what was found, byte for byte as it was printed live.
///
/// # Errors
/// When the capture cannot be read or the terminal or stdout cannot be used.
pub async fn run(args: &ReplayArgs) -> Result<Outcome> {
    let player = args.recorded.open()?;
    if tui::has_terminal() && !args.output.wants_lines() {
        let mut signals = Signals::new()?;
        let damage = player.replay().damage();
        tui::run(tui::ReplaySource::new(player), &args.view, signals.any()).await?;
        for line in damage {
            eprintln!("holdup: {line}");
        }
        return Ok(Outcome::Nothing);
    }
    print(args, player)
}

fn print(args: &ReplayArgs, mut player: Player) -> Result<Outcome> {
    let mut lines = Lines::new(args.output, io::stdout().lock());
    while player.step(|played| {
        if let Some(event) = played.event {
            lines.event(event)?;
        }
        lines.changes(played.time, &played.changes)
    })? {}
    lines.end(player.pipeline())?;
    lines.out.flush().context(STDOUT)?;
    tell_damage(player.replay());
    Ok(lines.worst)
}
