//! Links that may have to outlive the process.
//!
//! Taking a program off its tracepoint changes kernel code, and stopping a timer asks its CPU: both wait for an answer of every CPU
//! concerned (KERNEL: `text_poke_sync`, arch/x86/kernel/alternative.c; `cpu_function_call`, kernel/events/core.c), with preemption
//! off. Where a CPU takes no interrupts any more the wait never ends, and takes another CPU down. A link that has a name in bpffs
//! is not taken off when the process ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::programs::links::FdLink;

const BPFFS: &str = "/sys/fs/bpf";

/// The links of one run, each with its name.
#[derive(Debug, Default)]
pub struct Links(Vec<(String, FdLink)>);

impl Links {
    /// Keeps a link attached as long as this lives.
    pub fn keep(&mut self, name: &str, link: FdLink) {
        self.0.push((name.to_owned(), link));
    }

    /// Names every link below bpffs, so that none is taken off when this process ends. Returns where they are; `None` when
    /// there is nothing to leave.
    ///
    /// # Errors
    /// When bpffs is not there or refuses a name; what has no name by then is taken off when the process ends.
    pub fn leave(&mut self) -> Result<Option<PathBuf>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let directory = Path::new(BPFFS).join(format!("holdup-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {} (is bpffs mounted there?)", directory.display()))?;
        for (name, link) in self.0.drain(..) {
            let path = directory.join(name);
            link.pin(&path).with_context(|| format!("naming {}", path.display()))?;
        }
        Ok(Some(directory))
    }
}
