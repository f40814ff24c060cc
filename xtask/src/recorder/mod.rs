//! The recorder on this box under real contention: how much memory and CPU it takes, how large its files become, and whether
//! everything it saw is in them.

pub mod size;
pub mod soak;
mod workload;

use crate::process;
use crate::test::{Line, Single};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For the probes to be attached on a busy box.
const ATTACHED_WITHIN: Duration = Duration::from_secs(60);
/// For a recording to end in good order.
const ENDED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub const TEST: Single = Single {
    name: "record/host/rotation",
    run: || match impossible() {
        Some(why) => Line::Skipped(why.to_owned()),
        None => Line::from(soak::run(SHORT.0, SHORT.1, false)),
    },
};

/// The hour of [`soak`], shortened; with every wait, so that files fill up in that time.
const SHORT: (Duration, &[&str]) = (Duration::from_secs(20), &["--all"]);

/// Why nothing can be recorded here.
pub fn impossible() -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() != 0) {
        return Some("only root can attach probes");
    }
    (!Path::new("/sys/kernel/btf/vmlinux").exists()).then_some("this kernel has no BTF")
}

/// A running `holdup record`; killed when dropped.
struct Recorder {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Memory that it has in RAM, in KiB.
    resident: u64,
    /// CPU time in seconds.
    cpu: f64,
}

impl Recorder {
    /// Starts it and waits until its probes are active.
    fn start(holdup: &Path, directory: &Path, arguments: &[&str]) -> Result<Self> {
        let (stdout, stderr) = (directory.join("stdout"), directory.join("stderr"));
        let file = |path: &Path| fs::File::create(path).with_context(|| format!("creating {}", path.display()));
        let mut command = Command::new(holdup);
        command.arg("record").args(arguments);
        let child = command
            .stdin(Stdio::null())
            .stdout(file(&stdout)?)
            .stderr(file(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start: {}", process::shown(&command)))?;
        let mut recorder = Self { child, stdout, stderr };
        let deadline = Instant::now() + ATTACHED_WITHIN;
        while !recorder.said()?.contains("holdup: attached") {
            let ended = recorder.child.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "it did not attach: {}",
                recorder.said()?
            );
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(recorder)
    }

    /// Its standard error so far.
    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.stderr)?)
    }

    fn usage(&self) -> Result<Usage> {
        let about = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(&path).with_context(|| format!("reading {path}: has it ended? {:?}", self.said()))
        };
        let (status, stat) = (about("status")?, about("stat")?);
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        // Behind the name, which may contain anything: utime and stime are the 12th and 13th field (proc(5)).
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).flat_map(str::parse).collect();
        Ok(Usage {
            resident: resident.context("no VmRSS")?,
            cpu: ticks.iter().sum::<f64>() / 100.0,
        })
    }

    /// Ends it as Ctrl-C does. Result: what it said, on stdout and on stderr.
    fn end(mut self) -> Result<(String, String)> {
        process::run(Command::new("kill").args(["-INT", &self.child.id().to_string()]))?;
        let deadline = Instant::now() + ENDED_WITHIN;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None => ensure!(Instant::now() < deadline, "it did not end: {}", self.said()?),
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let said = (fs::read_to_string(&self.stdout)?, self.said()?);
        ensure!(
            matches!(status.code(), Some(0 | 3 | 4)),
            "it failed ({status}): {}",
            said.1
        );
        Ok(said)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Both fail once it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number before a word in a line like `holdup: recorded 12 events, 345 bytes in 6 files: FILE`.
fn number_before(text: &str, word: &str) -> Option<u64> {
    let before = text.split(word).next()?.trim_end();
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_before_their_words() {
        let line = "holdup: recorded 12 events, 345 bytes in 6 files: c.holdup";
        assert_eq!(number_before(line, " events,"), Some(12));
        assert_eq!(number_before(line, " bytes"), Some(345));
        assert_eq!(number_before(line, " files:"), Some(6));
        assert_eq!(number_before(line, " samples"), None);
        assert_eq!(
            number_before("(63333 samples)", " samples"),
            None,
            "not with its bracket"
        );
    }
}
