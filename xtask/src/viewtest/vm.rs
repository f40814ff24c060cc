//! In the VM: a self-deadlock, seen in the view on the serial console, from the finding to the stack behind it.

use super::tmux::Tmux;
use super::{Done, Screens};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

/// For building, booting under emulation on a busy box, and attaching.
const STARTED_WITHIN: Duration = Duration::from_secs(15 * 60);
/// For the fault to be made and read twice.
const FOUND_WITHIN: Duration = Duration::from_secs(180);
/// For a key to take effect under emulation.
const SOON: Duration = Duration::from_secs(60);

/// The scenario `mutex-aa`: a worker waits for a mutex that it holds itself, a second task waits for the worker's work.
pub fn mutex_aa(kernel: &str, screens: &Screens) -> Result<Done> {
    let xtask = std::env::current_exe().context("finding this program")?;
    let command = format!(
        "{} vm --kernel {kernel} --scenario mutex-aa --attach before; echo \"left with $?\"; exec sleep 600",
        xtask.display()
    );
    let terminal = Tmux::start(100, 30, &command)?;
    // A machine that fails says so, and there is no need to wait for the rest of the time.
    let first = terminal.until("the view", STARTED_WITHIN, |screen| {
        screen.contains("LIVE") || screen.contains("left with")
    })?;
    ensure!(!first.contains("left with"), "the machine ended:\n{first}");
    // No locale there: the view keeps to ASCII.
    let found = terminal.until_all(
        &["critical proven", "-- self-deadlock", "that it holds itself"],
        FOUND_WITHIN,
    )?;
    screens.keep("findings", &found)?;

    terminal.keys(&["2"])?;
    let graph = terminal.until_all(&["@ kworker", "that it holds itself"], SOON)?;
    screens.keep("graph", &graph)?;

    // Onward: the finding, its task, the lock it waits for, its holder (the task again), and all the way back.
    terminal.keys(&["1", "Enter"])?;
    terminal.until_all(&["what to do next"], SOON)?;
    terminal.keys(&["o"])?;
    let task = terminal.until_all(
        &[
            "-- kworker",
            "asleep, uninterruptible (D)",
            "behind itself",
            "lockfault_",
        ],
        SOON,
    )?;
    screens.keep("task", &task)?;
    terminal.keys(&["o"])?;
    terminal.until_all(&["-- mutex", "held by", "kworker"], SOON)?;
    terminal.keys(&["o"])?;
    terminal.until_all(&["-- kworker", "behind itself"], SOON)?;
    terminal.keys(&["h", "h", "h", "h"])?;
    terminal.until_all(&["severity", "-- self-deadlock"], SOON)?;

    terminal.keys(&["q"])?;
    terminal.until_all(&["left with 0"], SOON)?;
    Ok(Done::Passed)
}
