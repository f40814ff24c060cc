//! Carries out the plan's steps.

use crate::channel::Channel;
use crate::commands::Commands;
use crate::console;
use anyhow::{Context as _, Result, bail};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use xtask_guest::message::{JobEnd, Message};
use xtask_guest::plan::{Job, LOCKFAULT, Step};

/// Upper bound for one read or write of the fault module's control file, which must not block.
const CONTROL: Duration = Duration::from_secs(20);
/// Pause between two looks at something that is waited for.
pub const POLL: Duration = Duration::from_millis(25);

/// Runs one job; its error goes to the host.
pub fn run(job: &Job, channel: &Channel) {
    let mut commands = Commands::new(channel.clone());
    let mut error = None;
    for (index, step) in job.steps.iter().enumerate() {
        if let Err(why) = step_once(step, &mut commands) {
            error = Some(format!("step {index}: {why:#}"));
            break;
        }
    }
    commands.stop_all();
    channel.send(&Message::JobEnd(job.id, JobEnd { error }));
}

fn step_once(step: &Step, commands: &mut Commands) -> Result<()> {
    match step {
        Step::Trigger { text } => trigger(text),
        Step::AwaitState {
            scenario,
            state,
            within_ms,
        } => await_state(scenario, state, Duration::from_millis(*within_ms)),
        Step::Start { command, ready } => commands.start(command, ready.as_ref()),
        Step::Wait { id } => commands.wait(*id),
        Step::Signal { id, signal } => commands.signal(*id, signal),
        Step::Console {
            argv,
            rows,
            columns,
            ready,
            trigger,
        } => {
            if let (Some(ready), Some(trigger)) = (ready.clone(), trigger.clone()) {
                std::thread::spawn(move || console::trigger_when_ready(&ready, &trigger));
            }
            console::run(argv, *rows, *columns)
        }
    }
}

pub fn trigger(text: &str) -> Result<()> {
    let bytes = text.to_owned();
    bounded(move || std::fs::write(LOCKFAULT, bytes)).with_context(|| format!("writing \"{text}\" to {LOCKFAULT}"))
}

fn await_state(scenario: &str, wanted: &str, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let text = bounded(|| std::fs::read_to_string(LOCKFAULT)).with_context(|| format!("reading {LOCKFAULT}"))?;
        match state_of(scenario, &text) {
            Some(state) if state == wanted => return Ok(()),
            Some(over @ ("done" | "failed")) => {
                bail!("scenario {scenario} is {over} and will not be {wanted} any more")
            }
            _ if Instant::now() >= deadline => {
                bail!("scenario {scenario} was not {wanted} within {within:?}; {LOCKFAULT} says:\n{text}")
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

/// The word after `state SCENARIO`.
fn state_of<'a>(scenario: &str, listing: &'a str) -> Option<&'a str> {
    listing.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("state") && words.next() == Some(scenario))
            .then(|| words.next())
            .flatten()
    })
}

/// Does `work` on a thread of its own: on a broken kernel it may never come back.
fn bounded<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    Ok(result
        .recv_timeout(CONTROL)
        .with_context(|| format!("still blocked after {CONTROL:?}"))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_found_by_whole_name() {
        let listing = "lock a 0xffff\nstate mutex-aa-x done\nstate mutex-aa starting\ntask mutex-aa worker 7\n";
        assert_eq!(state_of("mutex-aa", listing), Some("starting"));
        assert_eq!(state_of("mutex", listing), None);
        assert_eq!(state_of("mutex-aa", "state mutex-aa"), None);
    }
}
