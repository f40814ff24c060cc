//! What comes back to the user of `cargo xtask vm`: output, files, and the exit code.

use super::boot::Outcome;
use super::console::Marker;
use super::files::Returned;
use super::scenarios::Scenario;
use super::script::MAIN;
use super::session::{Session, Sink};
use crate::ui;
use anyhow::{Context as _, Result};
use std::io::Write as _;
use std::path::PathBuf;
use xtask_guest::message::{Exit, Message, Status};

/// Exit code if the machine failed, whatever holdup said.
pub const FAILED: u8 = 125;
/// Exit code if the command had to be stopped.
const TIMED_OUT: u8 = 124;

/// Passes the main command's output on as it comes and keeps the rest.
pub struct Forward {
    exit: Option<Exit>,
    job_error: Option<String>,
    shown: bool,
    /// Whoever read our standard output has gone.
    pub reader_left: bool,
    files: Option<Returned>,
    ignored_files: usize,
}

impl Forward {
    pub fn new(out: Option<PathBuf>) -> Self {
        let files = out.map(Returned::new);
        Self {
            exit: None,
            job_error: None,
            shown: false,
            reader_left: false,
            files,
            ignored_files: 0,
        }
    }
}

impl Sink for Forward {
    fn message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Stdout(MAIN, bytes) => {
                self.shown = true;
                let mut stdout = std::io::stdout().lock();
                if let Err(error) = stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
                    self.reader_left = error.kind() == std::io::ErrorKind::BrokenPipe;
                    return Err(error).context("writing to standard output");
                }
            }
            Message::Stdout(_, bytes) | Message::Stderr(_, bytes) => {
                self.shown = true;
                std::io::stderr()
                    .lock()
                    .write_all(&bytes)
                    .context("writing to standard error")?;
            }
            Message::Exit(MAIN, exit) => self.exit = Some(exit),
            Message::Exit(_, exit) => match exit.status {
                Status::Code(0) => {}
                status => ui::step(format!("the guest script: {status}")),
            },
            Message::JobEnd(_, end) => self.job_error = end.error,
            Message::File(head) => match &mut self.files {
                Some(files) => files.begin(&head)?,
                None => self.ignored_files += 1,
            },
            Message::FileData(bytes) => {
                if let Some(files) = &mut self.files {
                    files.data(&bytes)?;
                }
            }
            Message::Note(text) => ui::step(format!("guest: {text}")),
            Message::Hello(hello) => ui::step(format!("guest is up after {} ms", hello.uptime_ms)),
            Message::Verdict(_) => {
                if let Some(files) = &mut self.files {
                    files.end();
                }
            }
        }
        Ok(())
    }

    fn start_over(&mut self) -> bool {
        if self.shown {
            return false;
        }
        self.exit = None;
        self.job_error = None;
        true
    }
}

/// Says what went wrong and finds the exit code.
pub fn report(session: &Session, scenario: Option<&Scenario>, trusted: bool, outcome: &Outcome, sink: Forward) -> u8 {
    let mut failed = false;
    if let Some(files) = &sink.files {
        ui::step(format!("{} files came back", files.complete.len()));
        for broken in &files.broken {
            ui::step(format!("file {broken}"));
            failed = true;
        }
    } else if sink.ignored_files > 0 {
        ui::step(format!(
            "the guest left {} files in /out; --out DIR brings them back",
            sink.ignored_files
        ));
    }
    let switched_off = session.terminal && outcome.verdicts.is_empty() && !outcome.console.has(Marker::Panic);
    if switched_off {
        ui::step("the machine was switched off");
    } else if let Some(problem) = outcome.problem() {
        ui::step(format!("the machine failed: {problem}"));
        failed = true;
    }
    if let Some(error) = &sink.job_error {
        ui::step(format!("the guest could not go on: {error}"));
        failed = true;
    }
    let expected = scenario
        .map(|scenario| scenario.expected_on(&session.kernel.release))
        .unwrap_or_default();
    for (marker, line) in outcome.console.unexpected(&expected) {
        ui::step(format!("the kernel reports {marker}: {line}"));
        // With someone's own module or script it may be what they are after.
        failed |= trusted || *marker == Marker::Panic;
    }
    if failed {
        ui::step(format!(
            "end of the console ({}):",
            session.directory.join(super::qemu::CONSOLE).display()
        ));
        eprint!("{}", outcome.console.tail(40));
        return FAILED;
    }
    if session.terminal {
        return 0;
    }
    match sink.exit.map(|exit| exit.status) {
        Some(Status::Code(code)) => u8::try_from(code).unwrap_or(FAILED),
        Some(Status::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(FAILED),
        Some(status @ Status::TimedOut { .. }) => {
            ui::step(format!("the guest's command: {status}"));
            TIMED_OUT
        }
        Some(status @ Status::NotStarted(_)) => {
            ui::step(format!("the guest's command: {status}"));
            FAILED
        }
        None => {
            ui::step("the guest's command never ended");
            FAILED
        }
    }
}
