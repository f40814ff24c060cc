//! A command on the console, which is the user's terminal.

use crate::machine::PATH;
use crate::steps::{POLL, trigger};
use anyhow::{Context as _, Result, bail};
use std::process::Stdio;
use std::time::{Duration, Instant};
use xtask_guest::plan::Ready;

/// Standard error goes here: on the terminal it would run through the picture. It is shown at the end.
const STDERR: &str = "/tmp/console.stderr";

/// Runs the command to its end.
///
/// # Errors
/// It cannot be started or does not succeed.
pub fn run(argv: &[String], rows: u16, columns: u16) -> Result<()> {
    // The kernel's messages stay readable with dmesg.
    let script = format!("dmesg -n 1; stty rows {rows} cols {columns}; exec \"$@\" 2>{STDERR}");
    let tty = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/ttyS0")
        .context("/dev/ttyS0")?;
    let status = std::process::Command::new("/bin/busybox")
        .args(["setsid", "-c", "/bin/busybox", "sh", "-c", &script, "sh"])
        .args(argv)
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("TERM", "xterm-256color")
        .current_dir("/root")
        .stdin(Stdio::from(tty.try_clone()?))
        .stdout(Stdio::from(tty.try_clone()?))
        .stderr(Stdio::from(tty.try_clone()?))
        .status()
        .context("starting the console command")?;
    let said = std::fs::read_to_string(STDERR).unwrap_or_default();
    if !status.success() {
        bail!("{}: {status}\n{said}", argv.join(" "));
    }
    Ok(())
}

/// Breaks the kernel once the command says that it is ready.
pub fn trigger_when_ready(ready: &Ready, text: &str) {
    let deadline = Instant::now() + Duration::from_millis(ready.within_ms);
    while Instant::now() < deadline {
        let said = std::fs::read(STDERR).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(&ready.text) {
            if let Err(error) = trigger(text) {
                eprintln!("xtask-guest: {error:#}");
            }
            return;
        }
        std::thread::sleep(POLL);
    }
    eprintln!(
        "xtask-guest: no \"{}\" within {} ms, nothing was triggered",
        ready.text, ready.within_ms
    );
}
