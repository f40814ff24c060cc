//! One boot: QEMU runs, the guest's messages arrive, the console is watched, and everything has a deadline.

use super::console::{Console, Marker};
use super::qemu::{self, Accelerator, Qemu};
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use xtask_guest::frame::{Decoder, Item, Malformed};
use xtask_guest::message::{Hello, Message, Verdict};

/// PID 1 must have said hello by then; emulation needs 2 to 8 s on a free CPU.
const HELLO_WITHIN: Duration = Duration::from_secs(90);
/// QEMU must end by itself within this time of the verdict; then it is killed, which is no failure.
const POWER_OFF_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two looks at the console and the process.
const TICK: Duration = Duration::from_millis(50);

/// A machine to boot.
#[derive(Debug)]
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: Vec<u8>,
    pub accelerator: Accelerator,
    pub cpus: u16,
    /// Only CPU 0 is for the scheduler and for devices.
    pub isolated: bool,
    pub memory_mib: u32,
    /// For the whole run.
    pub timeout: Duration,
    /// Takes the console's log and what else QEMU needs as a file.
    pub directory: PathBuf,
    /// The console is the user's terminal.
    pub terminal: bool,
    /// Image of a disk, `/dev/vda` where the kernel has virtio.
    pub disk: Option<PathBuf>,
}

/// What came of a boot.
#[derive(Debug)]
pub struct Outcome {
    pub hello: Option<Hello>,
    /// All that came: one is right.
    pub verdicts: Vec<Verdict>,
    pub malformed: Vec<Malformed>,
    pub console: Console,
    /// Why it was ended from outside.
    pub cut_short: Option<String>,
    /// What QEMU itself said.
    pub qemu: String,
    pub elapsed: Duration,
}

impl Outcome {
    /// Why this boot cannot be trusted, if it cannot: no verdict or two, lost bytes, the plan not carried out.
    /// Console markers are judged elsewhere: some are expected.
    pub fn problem(&self) -> Option<String> {
        let said = if self.qemu.trim().is_empty() {
            String::new()
        } else {
            format!("; QEMU says: {}", self.qemu.trim())
        };
        if let Some(why) = &self.cut_short {
            return Some(format!("{why}{said}"));
        }
        if self.console.has(Marker::Panic) && self.verdicts.is_empty() {
            return Some("the guest's kernel panicked".to_owned());
        }
        let [verdict] = self.verdicts.as_slice() else {
            return Some(match self.verdicts.len() {
                0 => format!("the guest ended without a verdict{said}"),
                count => format!("the guest gave {count} verdicts instead of one"),
            });
        };
        if let Some(first) = self.malformed.first() {
            let count = self.malformed.len();
            return Some(format!("{count} defects in what the guest sent, the first: {first}"));
        }
        verdict
            .error
            .as_ref()
            .map(|error| format!("the guest could not carry out its plan: {error}"))
    }

    /// Whether it died of the emulator's race with text patching, and so may be tried again.
    pub fn is_emulator_race(&self) -> bool {
        self.problem().is_some() && self.console.has(Marker::StrayInt3)
    }
}

/// The user asked to stop.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether SIGINT, SIGTERM or SIGHUP came. The first call installs the handlers; a second signal ends the program.
pub fn interrupted() -> bool {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            // Without a handler the signal ends this program at once, and pdeathsig ends QEMU.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag));
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    });
    flag.load(Ordering::Relaxed)
}

enum Event {
    Channel(Vec<u8>),
    ChannelEnd,
    Qemu(Vec<u8>),
}

/// Boots and stays until the end. Every message goes to `on`; an error from it ends the machine.
///
/// # Errors
/// QEMU could not be started, `on` failed, or [`Interrupted`]. A guest that fails is an [`Outcome`].
pub fn run(machine: &Machine<'_>, on: &mut dyn FnMut(Message) -> Result<()>) -> Result<Outcome> {
    if interrupted() {
        bail!(Interrupted);
    }
    std::fs::create_dir_all(&machine.directory)?;
    for name in [qemu::CONSOLE, qemu::CHANNEL] {
        File::create(machine.directory.join(name)).with_context(|| format!("creating {name}"))?;
    }
    let initramfs = machine.directory.join(qemu::INITRAMFS);
    std::fs::write(&initramfs, &machine.initramfs)?;
    let mut run = Run {
        outcome: Outcome {
            hello: None,
            verdicts: Vec::new(),
            malformed: Vec::new(),
            console: Console::default(),
            cut_short: None,
            qemu: String::new(),
            elapsed: Duration::ZERO,
        },
        decoder: Decoder::default(),
        console: File::open(machine.directory.join(qemu::CONSOLE))?,
        started: Instant::now(),
    };
    let result = run.until_end(machine, on);
    // It is large and can be made again.
    let _ = std::fs::remove_file(initramfs);
    result?;
    run.outcome.elapsed = run.started.elapsed();
    if let Some(rest) = std::mem::take(&mut run.decoder).finish() {
        run.outcome.malformed.push(rest);
    }
    Ok(run.outcome)
}

struct Run {
    outcome: Outcome,
    decoder: Decoder,
    console: File,
    started: Instant,
}

impl Run {
    fn until_end(&mut self, machine: &Machine<'_>, on: &mut dyn FnMut(Message) -> Result<()>) -> Result<()> {
        let mut qemu = Qemu::start(machine)?;
        let (sender, events) = mpsc::channel();
        let (stdout, stderr) = qemu.take_pipes();
        if let Some(stdout) = stdout {
            read_on(stdout, sender.clone(), Event::Channel, Some(Event::ChannelEnd));
        }
        if let Some(stderr) = stderr {
            read_on(stderr, sender.clone(), Event::Qemu, None);
        }
        let mut verdict_at = None;
        let mut ended = None;
        let mut channel_open = !machine.terminal;
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Channel(bytes)) => self.receive(&bytes, on)?,
                Ok(Event::ChannelEnd) => channel_open = false,
                Ok(Event::Qemu(bytes)) => self.outcome.qemu.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.read_console()?;
            if interrupted() {
                bail!(Interrupted);
            }
            if ended.is_none() {
                ended = qemu.try_wait()?;
            }
            if ended.is_some() && !channel_open {
                break;
            }
            if verdict_at.is_none() && !self.outcome.verdicts.is_empty() {
                verdict_at = Some(Instant::now());
            }
            if verdict_at.is_some_and(|at: Instant| at.elapsed() > POWER_OFF_WITHIN) {
                break;
            }
            let elapsed = self.started.elapsed();
            if self.outcome.qemu.contains("KVM internal error") {
                self.outcome.cut_short = Some("KVM failed".to_owned());
                break;
            }
            if self.outcome.hello.is_none() && elapsed > HELLO_WITHIN.min(machine.timeout) && !machine.terminal {
                self.outcome.cut_short = Some(format!("the guest's PID 1 did not report within {elapsed:.0?}"));
                break;
            }
            if elapsed > machine.timeout && ended.is_none() {
                self.outcome.cut_short = Some(format!("the time limit of {:?} is over", machine.timeout));
                break;
            }
        }
        drop(qemu);
        if machine.terminal {
            let bytes = std::fs::read(machine.directory.join(qemu::CHANNEL))?;
            self.receive(&bytes, on)?;
        }
        self.read_console()
    }

    fn receive(&mut self, bytes: &[u8], on: &mut dyn FnMut(Message) -> Result<()>) -> Result<()> {
        self.decoder.push(bytes);
        while let Some(item) = self.decoder.next_item() {
            match item {
                Item::Malformed(defect) => self.outcome.malformed.push(defect),
                Item::Frame(frame) => {
                    let message = Message::from_frame(frame)?;
                    match &message {
                        Message::Hello(hello) => self.outcome.hello = Some(hello.clone()),
                        Message::Verdict(verdict) => self.outcome.verdicts.push(verdict.clone()),
                        _ => {}
                    }
                    on(message)?;
                }
            }
        }
        Ok(())
    }

    fn read_console(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.console.read_to_end(&mut bytes)?;
        self.outcome.console.push(&bytes);
        Ok(())
    }
}

fn read_on(
    mut pipe: impl Read + Send + 'static,
    sender: Sender<Event>,
    event: impl Fn(Vec<u8>) -> Event + Send + 'static,
    end: Option<Event>,
) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(event(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
        if let Some(end) = end {
            // The boot is over and nobody listens any more.
            let _ = sender.send(end);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(verdicts: usize, console: &str) -> Outcome {
        let verdict = Verdict { jobs: 1, error: None };
        let mut outcome = Outcome {
            hello: None,
            verdicts: vec![verdict; verdicts],
            malformed: Vec::new(),
            console: Console::default(),
            cut_short: None,
            qemu: String::new(),
            elapsed: Duration::ZERO,
        };
        outcome.console.push(console.as_bytes());
        outcome
    }

    #[test]
    fn one_verdict_and_nothing_else_is_right() {
        assert_eq!(outcome(1, "").problem(), None);
        let problem = |outcome: Outcome| outcome.problem().unwrap_or_default();
        assert!(problem(outcome(0, "")).contains("without a verdict"));
        assert!(problem(outcome(2, "")).contains("2 verdicts"));
        assert!(problem(outcome(0, "Kernel panic - not syncing: x\n")).contains("panicked"));
        let lost = Outcome {
            malformed: vec![Malformed::Gap { expected: 3, got: 5 }],
            ..outcome(1, "")
        };
        assert!(problem(lost).contains("frame 3 was expected, 5 came"));
        let cut = Outcome {
            cut_short: Some("too late".into()),
            qemu: "oh no\n".into(),
            ..outcome(1, "")
        };
        assert_eq!(problem(cut), "too late; QEMU says: oh no");
        let verdicts = vec![Verdict {
            jobs: 0,
            error: Some("insmod".into()),
        }];
        assert!(
            problem(Outcome {
                verdicts,
                ..outcome(0, "")
            })
            .contains("insmod")
        );
    }

    #[test]
    fn only_a_failed_boot_with_a_stray_int3_is_tried_again() {
        let int3 = "[    1.2] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n";
        assert!(outcome(0, int3).is_emulator_race());
        assert!(!outcome(1, int3).is_emulator_race(), "it went on and did its work");
        assert!(!outcome(0, "[    1.2] Oops: Oops: 0002 [#1]\n").is_emulator_race());
    }
}
