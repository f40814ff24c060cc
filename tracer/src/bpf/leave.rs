//! Links that may have to outlive the process.
//!
//! Taking a program off its tracepoint changes kernel code, and stopping a timer asks its CPU: both wait for an answer of every CPU
//! concerned (KERNEL: `text_poke_sync`, arch/x86/kernel/alternative.c; `cpu_function_call`, kernel/events/core.c), with preemption
//! off. Where a CPU takes no interrupts any more the wait never ends, and takes another CPU down. A link that has a name in bpffs
//! is not taken off when the process ends, whatever ends it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use aya::programs::kprobe::KProbeLink;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::perf_event::PerfEventLink;

use crate::ids::CpuId;

const BPFFS: &str = "/sys/fs/bpf";
/// Names of the directories begin so.
const PREFIX: &str = "holdup-";
/// Runs of one process id whose remains may lie side by side.
const MOST_REMAINS: u32 = 64;

/// Whose answer it takes to take a link off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Every CPU takes an interrupt (kernel code is changed).
    EveryCpu,
    /// The same, and then an RCU grace period ends (KERNEL: `unregister_kprobes`, kernel/kprobes.c).
    GracePeriod,
    /// This CPU takes an interrupt.
    Cpu(CpuId),
}

/// Something that is attached.
#[derive(Debug)]
pub enum Attachment {
    /// A program on a BTF tracepoint.
    Tracepoint(FdLink),
    /// A program on a function, by a trampoline.
    Function(FdLink),
    /// A kprobe or kretprobe.
    Kprobe(KProbeLink),
    /// A program on a CPU's timer or counter.
    Timer(PerfEventLink),
}

impl Attachment {
    /// Names it below bpffs. When that fails it is taken off.
    fn name(self, path: &Path) -> Result<PinnedLink> {
        const OLD: &str = "this kernel (before 5.15) cannot keep it longer than its process";
        let fd = match self {
            Self::Tracepoint(fd) | Self::Function(fd) => fd,
            Self::Kprobe(link) => FdLink::try_from(link).context(OLD)?,
            Self::Timer(link) => FdLink::try_from(link).context(OLD)?,
        };
        fd.pin(path).with_context(|| format!("naming {}", path.display()))
    }
}

/// One link; it stays attached as long as this lives, and for ever if it has a name and is not taken off.
#[derive(Debug)]
pub enum Link {
    /// Ends with the process.
    Plain(String, Attachment),
    /// Ends when it is taken off.
    Named(PinnedLink),
}

impl Link {
    /// With a home it gets a name at once.
    ///
    /// # Errors
    /// When bpffs refuses the name; then it is not attached any more.
    pub fn new(name: String, what: Attachment, home: Option<&Home>) -> Result<Self> {
        match home {
            Some(home) => Ok(Self::Named(what.name(&home.name(&name))?)),
            None => Ok(Self::Plain(name, what)),
        }
    }

    /// Takes it off and waits for that.
    pub fn take_off(self) {
        match self {
            // What drops is taken off.
            Self::Plain(..) => {}
            Self::Named(link) => {
                // Without its name, closing it takes it off. If somebody has removed the name already, so much the better.
                let _ = link.unpin();
            }
        }
    }

    /// Leaves it attached when the process ends.
    fn leave(self, home: &Home) -> Result<()> {
        if let Self::Plain(name, what) = self {
            what.name(&home.name(&name))?;
        }
        Ok(())
    }
}

/// A directory in bpffs for the links of one run. Its lock tells whether the run is over.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes one for this process.
    ///
    /// # Errors
    /// When bpffs is not there, or refuses.
    pub fn new() -> Result<Self> {
        let own = std::process::id();
        for number in 0..MOST_REMAINS {
            let path = Path::new(BPFFS).join(format!("{PREFIX}{own}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let lock = File::open(&path)
                        .and_then(|directory| directory.lock().map(|()| directory))
                        .with_context(|| format!("locking {}", path.display()))?;
                    return Ok(Self { path, _lock: lock });
                }
                // An earlier process of this id has left it.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "making {} (is bpffs mounted? `mount -t bpf bpf {BPFFS}`)",
                            path.display()
                        )
                    });
                }
            }
        }
        bail!("{BPFFS} has {MOST_REMAINS} directories {PREFIX}{own}-N already; remove them")
    }

    /// Names in bpffs have no dots.
    fn name(&self, link: &str) -> PathBuf {
        self.path.join(link.replace('.', "_"))
    }
}

/// The links of one run.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<(Asks, Link)>,
    home: Option<Arc<Home>>,
}

impl Links {
    /// Links that get their names at once, so that whatever ends the process takes none of them off.
    ///
    /// # Errors
    /// As for [`Home::new`].
    pub fn surviving() -> Result<Self> {
        Ok(Self {
            links: Vec::new(),
            home: Some(Arc::new(Home::new()?)),
        })
    }

    /// Where the links have their names.
    #[must_use]
    pub fn home(&self) -> Option<Arc<Home>> {
        self.home.clone()
    }

    /// Keeps a link attached as long as this lives.
    ///
    /// # Errors
    /// As for [`Link::new`].
    pub fn keep(&mut self, name: &str, what: Attachment, asks: Asks) -> Result<()> {
        let link = Link::new(name.to_owned(), what, self.home.as_deref())?;
        self.links.push((asks, link));
        Ok(())
    }

    /// Takes over a link.
    pub fn add(&mut self, link: Link, asks: Asks) {
        self.links.push((asks, link));
    }

    /// Whether taking some link off waits for a grace period.
    #[must_use]
    pub fn ask_for_grace(&self) -> bool {
        self.links.iter().any(|(asks, _)| *asks == Asks::GracePeriod)
    }

    /// Takes off what is not to stay, and gives names to the rest. Returns where they are and how many; `None` when nothing stays.
    ///
    /// # Errors
    /// When bpffs is not there or refuses a name; what has no name by then is taken off when the process ends.
    pub fn end(&mut self, stays: impl Fn(Asks) -> bool) -> Result<Option<(PathBuf, usize)>> {
        let (stay, go): (Vec<_>, Vec<_>) = self.links.drain(..).partition(|(asks, _)| stays(*asks));
        // The last first: begins before their ends.
        go.into_iter().rev().for_each(|(_, link)| link.take_off());
        let home = match self.home.take() {
            Some(home) => home,
            None if stay.is_empty() => return Ok(None),
            None => Arc::new(Home::new()?),
        };
        if stay.is_empty() {
            // A directory that stays empty is no more than ugly.
            let _ = fs::remove_dir(&home.path);
            return Ok(None);
        }
        let count = stay.len();
        for (_, link) in stay {
            link.leave(&home)?;
        }
        Ok(Some((home.path.clone(), count)))
    }
}

/// What was not ended in good order, when nothing speaks against it: a start that failed.
impl Drop for Links {
    fn drop(&mut self) {
        let _ = self.end(|_| false);
    }
}

/// Directories of runs that are over.
#[must_use]
pub fn remains() -> Vec<Remains> {
    remains_below(Path::new(BPFFS))
}

fn remains_below(root: &Path) -> Vec<Remains> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .filter_map(|entry| {
            let lock = File::open(entry.path()).ok()?;
            lock.try_lock().ok()?;
            Some(Remains {
                path: entry.path(),
                _lock: lock,
            })
        })
        .collect()
}

/// What a run that is over has left behind. Nobody else takes it off as long as this lives.
#[derive(Debug)]
pub struct Remains {
    /// Its directory.
    pub path: PathBuf,
    _lock: File,
}

impl Remains {
    /// Takes its links off, which waits for every CPU. Returns how many there were.
    ///
    /// # Errors
    /// When bpffs refuses.
    pub fn take_off(self) -> Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(&self.path).with_context(|| format!("reading {}", self.path.display()))? {
            let path = entry?.path();
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            count += 1;
        }
        fs::remove_dir(&self.path).with_context(|| format!("removing {}", self.path.display()))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remains_are_those_of_runs_that_are_over() {
        let root = tempfile::tempdir().unwrap();
        for name in ["holdup-1-0", "holdup-2-0", "other"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("holdup-1-0/tp_contention_end"), "").unwrap();
        let alive = File::open(root.path().join("holdup-2-0")).unwrap();
        alive.lock().unwrap();
        let found = remains_below(root.path());
        let paths: Vec<_> = found.iter().map(|remains| remains.path.clone()).collect();
        assert_eq!(paths, [root.path().join("holdup-1-0")]);
        assert!(remains_below(root.path()).is_empty(), "somebody is at it");
        assert_eq!(found.into_iter().next().unwrap().take_off().unwrap(), 1);
        assert!(!root.path().join("holdup-1-0").exists());
        drop(alive);
        assert_eq!(remains_below(root.path()).len(), 1);
    }
}
