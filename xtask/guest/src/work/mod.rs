//! Work that makes the kernel's own locks contended: `init work NAME ...` in the guest. Each runs until it is stopped, in several
//! threads that do the same thing, and first says on standard output what the lock belongs to.

mod block;
mod churn;
mod files;
mod ipc;
mod memory;
mod network;
mod stuck;
mod system;
mod terminal;
mod trace;

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads of each kind of work: more than the guest has CPUs, so that one of them is always preempted inside.
const THREADS: usize = 6;

/// Carries out `init work ARGUMENTS`; returns only with an error.
pub fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let name = words.first().copied().unwrap_or_default();
    system::set_name(&format!("work-{name}"));
    match words.as_slice() {
        ["mmap"] => memory::map_and_unmap(),
        ["shared-file", path] => memory::shared_file(path),
        ["directory", path] => files::directories(path),
        ["tree", path] => files::tree(path),
        ["pipe"] => files::pipe(),
        ["umount", path] => files::super_block(path),
        ["mounts", path] => files::mounts(path),
        ["block", path] => block::device(path),
        ["cgroup", path] => churn::cgroups(path),
        ["cgroup-members", path] => churn::members(path),
        ["processes"] => churn::processes(),
        ["threads"] => churn::threads(),
        ["rtnl"] => network::link_flags(),
        ["namespaces"] => network::namespaces(),
        ["map-when", path] => stuck::map_when_told(path),
        ["read", path] => stuck::read(path),
        ["tty"] => terminal::write(),
        ["idle"] => stuck::idle(),
        ["trace", pid] => trace::stop(pid),
        ["trace-vfork"] => trace::vfork(),
        ["spawn"] => trace::spawn(),
        ["connections"] => network::connections(),
        ["channels"] => ipc::channels(),
        ["events"] => ipc::events(),
        ["system-v"] => ipc::system_v(),
        ["keys"] => ipc::keys(),
        ["ttys"] => terminal::many(),
        ["terminal-ioctl"] => terminal::blocked_ioctl(),
        _ => bail!("no work is called {arguments:?}"),
    }
}

/// Tells the test what it needs to know.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("standard output")
}

/// Whose turn it is, and which.
#[derive(Debug, Clone, Copy)]
struct Turn {
    thread: usize,
    round: usize,
}

impl Turn {
    /// One of so many things. All threads are at the same one for a while, so that they meet there, and then at the next.
    fn of(self, things: usize) -> usize {
        const WHILE: usize = 24;
        self.round / WHILE % things
    }

    /// Every so many rounds, in one thread after the other.
    fn every(self, rounds: usize) -> bool {
        (self.round + self.thread).is_multiple_of(rounds)
    }
}

/// Like [`for_ever`], for work on many things.
fn in_turn(once: impl Fn(Turn) -> Result<()> + Sync) -> Result<()> {
    let rounds: Vec<AtomicUsize> = (0..THREADS).map(|_| AtomicUsize::new(0)).collect();
    for_ever(|thread| {
        let round = rounds
            .get(thread)
            .map_or(0, |round| round.fetch_add(1, Ordering::Relaxed));
        once(Turn { thread, round })
    })
}

/// Does the same in every thread, over and over, until one fails.
fn for_ever(once: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let once = &once;
                scope.spawn(move || -> Result<()> {
                    loop {
                        once(thread)?;
                    }
                })
            })
            .collect();
        // One that fails ends the process; the others would run on.
        for thread in threads {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("work: {error:#}");
                std::process::exit(1);
            }
        }
        Ok(())
    })
}
