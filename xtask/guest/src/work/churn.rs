//! Locks of cgroups, and of processes that come and go.

use super::{for_ever, in_turn, system};
use anyhow::{Context as _, Result};
use std::fs::{self, File};
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

/// Cgroups between which all threads move processes that use memory; their statistics are read meanwhile.
pub fn members(path: &str) -> Result<()> {
    const GROUPS: usize = 3;
    for controller in ["memory", "pids", "cpu", "io"] {
        // Which there are depends on the kernel.
        let _ = fs::write(format!("{path}/cgroup.subtree_control"), format!("+{controller}"));
    }
    for group in 0..GROUPS {
        fs::create_dir_all(format!("{path}/members{group}")).context("mkdir")?;
        // Which files there are depends on the controllers.
        let _ = fs::write(format!("{path}/members{group}/memory.high"), "4M");
    }
    in_turn(|turn| {
        let group = format!("{path}/members{}", turn.of(GROUPS));
        // The child reads a file that is not in the cache of its cgroup, and is gone when it is moved, or not.
        let mut child = Command::new("/bin/busybox")
            .args(["dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=4"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .context("starting dd")?;
        let _ = fs::write(format!("{group}/cgroup.procs"), child.id().to_string());
        for file in ["memory.stat", "cpu.stat", "cgroup.procs"] {
            let _ = fs::read(format!("{group}/{file}"));
        }
        child.wait().context("waiting for dd")?;
        Ok(())
    })
}

/// All threads of one process use what they share: descriptors, the working directory, signals, timers, limits.
pub fn threads() -> Result<()> {
    let file = File::open("/proc/self/stat").context("/proc/self/stat")?;
    in_turn(|turn| {
        let copy = file.try_clone().context("dup")?;
        std::env::set_current_dir(if turn.every(2) { "/" } else { "/tmp" }).context("chdir")?;
        system::signal_self()?;
        system::interval_timer()?;
        fs::read("/proc/self/status").context("status")?;
        fs::read("/proc/self/maps").context("maps")?;
        std::thread::scope(|scope| {
            let other = scope.spawn(rustix::thread::sched_yield);
            other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))
        })?;
        drop(copy);
        Ok(())
    })
}
