//! The lock of an address space.

use super::{for_ever, in_turn, say, system};
use anyhow::{Context as _, Result};
use std::fs::File;

/// All threads map and unmap.
pub fn map_and_unmap() -> Result<()> {
    say(&format!("pid {}", std::process::id()))?;
    for_ever(|_| system::map_once(1 << 18))
}

/// All threads map a few files that they share, write there, and unmap.
pub fn shared_file(path: &str) -> Result<()> {
    const FILES: usize = 3;
    const BYTES: usize = 1 << 16;
    let mut files = Vec::new();
    for file in 0..FILES {
        let path = format!("{path}{file}");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .context(path)?;
        file.set_len(BYTES as u64).context("truncate")?;
        files.push(file);
    }
    in_turn(|turn| {
        let Some(file) = files.get(turn.of(FILES)) else {
            return Ok(());
        };
        system::map_file_once(file, BYTES)?;
        if turn.every(8) {
            rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).context("fadvise")?;
        }
        Ok(())
    })
}
