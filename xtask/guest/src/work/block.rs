//! Locks of a block device.

use super::in_turn;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// All threads open, read and close a disk.
pub fn device(path: &str) -> Result<()> {
    in_turn(|turn| {
        let disk = File::open(path).with_context(|| path.to_owned())?;
        let mut block = [0; 4096];
        disk.read_exact_at(&mut block, (turn.round % 64 * 4096) as u64)
            .context("reading the disk")?;
        // Or everything is in the cache.
        rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed).context("fadvise")?;
        Ok(())
    })
}
