//! Locks of a terminal.

use super::{for_ever, say, system};
use anyhow::{Context as _, Result};
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};

/// All threads but one write to one terminal.
pub fn write() -> Result<()> {
    let (mut master, path) = system::pseudo_terminal()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    say(&format!("pts{name}"))?;
    let slave = OpenOptions::new()
        .write(true)
        .open(&path)
        .context("opening the slave")?;
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while master.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let result = for_ever(|_| (&slave).write_all(&[b'x'; 256]).context("writing to the terminal"));
    let _ = drain.join();
    result
}
