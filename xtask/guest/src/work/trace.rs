//! Tracers that keep others stopped, and do nothing else.

use super::{say, system};
use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

/// Seizes a process, stops it, and lets it stop.
pub fn stop(pid: &str) -> Result<()> {
    let pid = pid.parse().with_context(|| format!("no process id: {pid}"))?;
    system::seize(pid, 0)?;
    system::interrupt(pid)?;
    system::wait(pid)?;
    say(&format!("tracer {} stopped {pid}", std::process::id()))?;
    rest()
}

/// Starts a process that starts another one by vfork, which is kept stopped before its exec: the first waits for it.
pub fn vfork() -> Result<()> {
    let mut parent = Command::new("/proc/self/exe")
        .args(["work", "spawn"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting the parent")?;
    let pid = parent.id().try_into().context("its id")?;
    system::seize(pid, libc::PTRACE_O_TRACEVFORK)?;
    let mut order = parent.stdin.take().context("no pipe to the parent")?;
    order.write_all(b"x").context("telling the parent to go on")?;
    let status = system::wait(pid)?;
    if status >> 16 != libc::PTRACE_EVENT_VFORK {
        bail!("the parent stopped for something else: {status:#x}");
    }
    let child = system::event_message(pid)?;
    system::wait(child)?;
    system::go_on(pid)?;
    say(&format!("tracer {} parent {pid} child {child}", std::process::id()))?;
    rest()
}

/// Starts a program once there is something to read.
pub fn spawn() -> Result<()> {
    std::io::stdin().read_exact(&mut [0]).context("no order")?;
    Command::new("true").status().context("starting a program")?;
    Ok(())
}

fn rest() -> ! {
    loop {
        std::thread::park();
    }
}
