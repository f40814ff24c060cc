//! One file for each verb with a body of its own.

pub mod export;
pub mod record;
pub mod replay;
pub mod report;
pub mod snapshot;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::ids::{Nanos, Timestamp};
use crate::player::Player;
use crate::source::replay::Replay;

/// Which recording.
#[derive(Debug, Args)]
pub struct Recorded {
    /// The capture; several files of one recording in any order; `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

impl Recorded {
    /// Opens it, before its first event.
    ///
    /// # Errors
    /// When it cannot be read, is no capture or too new.
    pub fn open(&self) -> Result<Player> {
        Replay::open(&self.files)
            .map(Player::new)
            .context("opening the capture")
    }

    /// Opens it for its records of the kernel.
    ///
    /// # Errors
    /// As for [`Recorded::open`].
    pub fn open_with_records(&self) -> Result<Replay> {
        Replay::with_records(&self.files).context("opening the capture")
    }
}

/// Tells on stderr what is wrong with the files; what is missing is in the losses, too.
fn tell_damage(replay: &Replay) {
    for line in replay.damage() {
        eprintln!("holdup: {line}");
    }
}

/// An offset from the start of the recording as a time of it.
fn time_at(player: &Player, offset: Duration) -> Result<Timestamp> {
    let (first, _) = player
        .replay()
        .span()
        .context("a time can be given only for a file with events")?;
    Ok(first + Nanos::from(offset))
}
