//! Commands: started, watched, bounded in time, their output carried to the host as it comes.

use crate::channel::Channel;
use crate::machine::{PATH, busybox};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use xtask_guest::frame::MAX_PAYLOAD;
use xtask_guest::message::{Exit, Message, Status};
use xtask_guest::plan::{Command, CommandId, Ready};

/// From SIGTERM to SIGKILL, and from SIGKILL to giving up on the process.
const GRACE: Duration = Duration::from_secs(5);
/// How long output may still come after the exit: a grandchild may keep the pipe open for ever.
const DRAIN: Duration = Duration::from_secs(3);

/// The commands that were started and not yet waited for.
pub struct Commands {
    channel: Channel,
    running: BTreeMap<CommandId, Running>,
}

struct Running {
    pid: u32,
    finished: Receiver<Exit>,
}

impl Commands {
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            running: BTreeMap::new(),
        }
    }

    /// Starts a command and, if asked to, waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended, or its time was up, before it was ready. A command that cannot be started is no error: its exit
    /// status says so.
    pub fn start(&mut self, command: &Command, ready: Option<&Ready>) -> Result<()> {
        let Some((program, args)) = command.argv.split_first() else {
            bail!("a command without a program")
        };
        let started = Instant::now();
        let mut child = match std::process::Command::new(program)
            .args(args)
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("TERM", "linux")
            .current_dir("/root")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                let status = Status::NotStarted(format!("{program}: {error}"));
                self.channel
                    .send(&Message::Exit(command.id, Exit { status, elapsed_ms: 0 }));
                if ready.is_some() {
                    bail!("{program} could not be started: {error}");
                }
                return Ok(());
            }
        };
        let pid = child.id();
        let id = command.id;
        let (drained, pumps) = mpsc::channel();
        let (is_ready, became_ready) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            let (channel, drained) = (self.channel.clone(), drained.clone());
            std::thread::spawn(move || pump(stdout, |bytes| channel.send(&Message::Stdout(id, bytes)), &drained));
        }
        if let Some(stderr) = child.stderr.take() {
            let channel = self.channel.clone();
            let mut watch = ready.map(|ready| LineWatch {
                text: ready.text.clone(),
                line: Vec::new(),
                is_ready,
            });
            std::thread::spawn(move || {
                let each = |bytes: Vec<u8>| {
                    if let Some(watch) = &mut watch {
                        watch.push(&bytes);
                    }
                    channel.send(&Message::Stderr(id, bytes));
                };
                pump(stderr, each, &drained);
            });
        }
        let (exited, exit) = mpsc::channel();
        std::thread::spawn(move || exited.send(child.wait()));
        let (finish, finished) = mpsc::channel();
        let channel = self.channel.clone();
        let timeout = Duration::from_millis(command.timeout_ms);
        std::thread::spawn(move || {
            let status = supervise(pid, &exit, timeout);
            let deadline = Instant::now() + DRAIN;
            for _ in 0..2 {
                if pumps
                    .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                    .is_err()
                {
                    break;
                }
            }
            let exit = Exit {
                status,
                elapsed_ms: started.elapsed().as_millis() as u64,
            };
            channel.send(&Message::Exit(id, exit.clone()));
            finish.send(exit)
        });
        self.running.insert(id, Running { pid, finished });
        ready.map_or(Ok(()), |ready| self.await_ready(id, program, ready, &became_ready))
    }

    /// Waits for a command's end, which its own timeout bounds.
    ///
    /// # Errors
    /// No such command was started.
    pub fn wait(&mut self, id: CommandId) -> Result<()> {
        // A command that could not be started has told the host so already.
        let Some(running) = self.running.remove(&id) else {
            return Ok(());
        };
        running.finished.recv().context("the supervising thread is gone")?;
        Ok(())
    }

    /// Sends a signal to a command and to what it has started.
    ///
    /// # Errors
    /// No such command runs.
    pub fn signal(&self, id: CommandId, signal: &str) -> Result<()> {
        let running = self
            .running
            .get(&id)
            .with_context(|| format!("command {} is not running", id.0))?;
        kill(running.pid, signal)
    }

    /// Stops whatever a job left running, so that the next job meets a quiet machine.
    pub fn stop_all(&mut self) {
        while let Some((id, running)) = self.running.pop_first() {
            if let Ok(_ended) = running.finished.try_recv() {
                continue;
            }
            self.channel
                .note(format!("command {} was left running and is stopped", id.0));
            for signal in ["TERM", "KILL"] {
                if kill(running.pid, signal).is_err() || running.finished.recv_timeout(GRACE + DRAIN).is_ok() {
                    break;
                }
            }
        }
    }

    fn await_ready(&self, id: CommandId, program: &str, ready: &Ready, became: &Receiver<()>) -> Result<()> {
        let within = Duration::from_millis(ready.within_ms);
        match became.recv_timeout(within) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "{program} (command {}) did not say \"{}\" within {within:?}",
                    id.0,
                    ready.text
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!(
                    "{program} (command {}) closed its standard error before it said \"{}\"",
                    id.0,
                    ready.text
                )
            }
        }
    }
}

/// Waits for the exit; ends the process when its time is up.
fn supervise(pid: u32, exit: &Receiver<std::io::Result<ExitStatus>>, timeout: Duration) -> Status {
    if let Ok(ended) = exit.recv_timeout(timeout) {
        return status_of(ended);
    }
    let after_ms = timeout.as_millis() as u64;
    for signal in ["TERM", "KILL"] {
        // A failure to signal shows as `reaped: false`.
        let _ = kill(pid, signal);
        if exit.recv_timeout(GRACE).is_ok() {
            return Status::TimedOut { after_ms, reaped: true };
        }
    }
    Status::TimedOut {
        after_ms,
        reaped: false,
    }
}

fn status_of(ended: std::io::Result<ExitStatus>) -> Status {
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Status::Code(code),
            (None, Some(signal)) => Status::Signal(signal),
            (None, None) => Status::NotStarted(format!("unknown wait status {status}")),
        },
        Err(error) => Status::NotStarted(format!("waiting failed: {error}")),
    }
}

fn kill(group: u32, signal: &str) -> Result<()> {
    busybox(&["kill", &format!("-{signal}"), &format!("-{group}")])
}

/// Carries a pipe to the host until it ends.
fn pump(mut pipe: impl Read, mut each: impl FnMut(Vec<u8>), drained: &Sender<()>) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => each(buffer.get(..count).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Nobody listens any more if the drain time is over.
    let _ = drained.send(());
}

/// Looks for a text in the lines of a stream.
struct LineWatch {
    text: String,
    line: Vec<u8>,
    is_ready: Sender<()>,
}

impl LineWatch {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            if String::from_utf8_lossy(&self.line).contains(&self.text) {
                // The waiter is gone once it has heard it.
                let _ = self.is_ready.send(());
            }
            self.line.clear();
        }
    }
}
