//! Makes the bare initramfs a place where programs can live.

use anyhow::{Context as _, Result, bail};
use std::process::{Command, Stdio};
use xtask_guest::message::Hello;

/// Directory of the applets; `holdup` lies there too.
pub const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";
const BUSYBOX: &str = "/bin/busybox";

/// File systems in mounting order: type, place, may it be missing.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", false),
    ("sysfs", "/sys", false),
    ("devtmpfs", "/dev", false),
    ("devpts", "/dev/pts", true),
    ("tmpfs", "/tmp", false),
    ("tmpfs", "/run", false),
    ("tracefs", "/sys/kernel/tracing", true),
    ("debugfs", "/sys/kernel/debug", true),
    ("bpf", "/sys/fs/bpf", true),
    ("cgroup2", "/sys/fs/cgroup", true),
];

/// Mounts what a stock system has mounted and installs the applets.
///
/// # Errors
/// A file system that every kernel here must have is missing.
pub fn set_up() -> Result<()> {
    for &(kind, place, optional) in MOUNTS {
        // Where sysfs lacks the directory, so does the kernel the feature; the mount then says so.
        let _ = std::fs::create_dir_all(place);
        match busybox(&["mount", "-t", kind, kind, place]) {
            Err(error) if !optional => return Err(error),
            _ => {}
        }
    }
    busybox(&["--install", "-s", "/bin"]).context("installing busybox's applets")
}

/// Runs one applet to its end.
///
/// # Errors
/// It fails; the error carries its standard error.
pub fn busybox(args: &[&str]) -> Result<()> {
    let output = Command::new(BUSYBOX)
        .args(args)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{}: {} ({})",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim(),
        output.status
    )
}

/// Who and where we are.
///
/// # Errors
/// `/proc` is not readable.
pub fn hello() -> Result<Hello> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("osrelease")?
        .trim()
        .to_owned();
    let uptime = std::fs::read_to_string("/proc/uptime").context("uptime")?;
    let seconds: f64 = uptime
        .split(' ')
        .next()
        .and_then(|s| s.parse().ok())
        .unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    Ok(Hello {
        release,
        cpus,
        uptime_ms: (seconds * 1000.0) as u64,
    })
}
