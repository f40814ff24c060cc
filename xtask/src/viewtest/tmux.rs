//! A terminal that a program can look at: tmux, with a server of its own.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at the screen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A terminal with a program on it; both end when dropped.
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// Starts a shell command on a terminal of this size.
    ///
    /// # Errors
    /// tmux cannot be started.
    pub fn start(columns: u16, rows: u16, command: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let tmux = Self {
            socket: format!("holdup-view-{}-{number}", std::process::id()),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // UTF-8 whatever the locale of this process is; no configuration of the user's.
        tmux.run(&[
            "-u",
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            command,
        ])?;
        Ok(tmux)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        process::capture(Command::new("tmux").args(["-L", &self.socket]).args(arguments))
    }

    /// Presses keys, by tmux's names.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// What is on the screen.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted, and gives it.
    ///
    /// # Errors
    /// It is not in time; the error shows the screen.
    pub fn until(&self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let screen = self.screen().with_context(|| format!("waiting for {what}"))?;
            if wanted(&screen) {
                return Ok(screen);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{what} did not come within {limit:?}; the screen:\n{}",
                    screen.trim_end()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for texts that must all be there at the same time; a text may be broken over lines.
    ///
    /// # Errors
    /// As [`Tmux::until`].
    pub fn until_all(&self, texts: &[&str], limit: Duration) -> Result<String> {
        self.until(&format!("{texts:?}"), limit, |screen| {
            let flat = screen.split_whitespace().collect::<Vec<_>>().join(" ");
            texts.iter().all(|text| screen.contains(text) || flat.contains(text))
        })
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Its own server, with nothing but our program on it.
        let _ = self.run(&["kill-server"]);
    }
}
