//! Locks of cgroups, and of processes that come and go.

use super::{for_ever, system};
use anyhow::{Context as _, Result};
use std::fs;
use std::process::Command;

/// Each thread makes and removes cgroups below one of its own, so that no directory is shared.
pub fn cgroups(path: &str) -> Result<()> {
    for_ever(|thread| {
        let parent = format!("{path}/work{thread}");
        let child = format!("{parent}/x");
        fs::create_dir_all(&parent).context("mkdir")?;
        fs::create_dir(&child).context("mkdir")?;
        fs::remove_dir(&child).context("rmdir")
    })
}

/// All threads start processes, which end at once.
pub fn processes() -> Result<()> {
    for_ever(|_| {
        let status = Command::new("/bin/busybox")
            .arg("true")
            .status()
            .context("starting true")?;
        system::map_once(1 << 16)?;
        anyhow::ensure!(status.success(), "true: {status}");
        Ok(())
    })
}
