//! File, line and inlined functions of kernel addresses, from a vmlinux with debug information.
//!
//! Only when it was asked for: reading a file of hundreds of megabytes takes memory and seconds, and a disk. A thread of its own
//! does it, so that neither delays an event nor, on a disk that hangs, anything else.

#[cfg(test)]
mod tests;
mod vmlinux;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};

pub use vmlinux::{Vmlinux, VmlinuxError};

use super::facts::KernelFacts;
use super::symbols::Symbols;
use super::sysroot::Sysroot;
use crate::event::{CodeLine, Inlined, Place};
use crate::ids::KernelAddr;

/// Addresses asked for and not yet answered; beyond it, no more are asked for.
const MAX_OPEN: usize = 65_536;

/// Looks addresses up, in a thread of its own.
#[derive(Debug)]
pub struct Lines {
    ask: Sender<KernelAddr>,
    answers: Receiver<Option<CodeLine>>,
    open: usize,
}

/// How file and line are asked for on the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LineArgs {
    /// Show file, line and inlined functions of kernel frames, from the vmlinux with debug information: FILE, or where
    /// distributions put it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub vmlinux: Option<PathBuf>,
}

impl LineArgs {
    /// What looks them up, if it was asked for.
    ///
    /// # Errors
    /// As for [`Lines::start`].
    pub fn start(&self, facts: &KernelFacts) -> Result<Option<Lines>, VmlinuxError> {
        let Some(path) = &self.vmlinux else { return Ok(None) };
        let symbols = facts.files.symbols().ok_or_else(vmlinux::no_symbols)?;
        let path = Some(path.as_path()).filter(|path| !path.as_os_str().is_empty());
        Lines::start(path, &facts.release, symbols, &Sysroot::host()).map(Some)
    }
}

impl Lines {
    /// Opens the vmlinux of the running kernel: `path`, or where distributions put it.
    ///
    /// # Errors
    /// When there is none, it is another kernel's, or its addresses cannot be related to those of the running kernel.
    pub fn start(path: Option<&Path>, release: &str, symbols: &Symbols, root: &Sysroot) -> Result<Self, VmlinuxError> {
        let vmlinux = Vmlinux::open(path, release, symbols, root)?;
        let (ask, asked) = channel();
        let (answer, answers) = channel();
        // It ends when the last asker is gone, or with the process: nobody waits for it.
        thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || look_up(&vmlinux, &asked, &answer))
            .map_err(VmlinuxError::Thread)?;
        Ok(Self { ask, answers, open: 0 })
    }

    /// Asks for an address of the kernel proper, as it stands in a stack.
    pub fn ask(&mut self, addr: KernelAddr) {
        if self.open < MAX_OPEN && self.ask.send(addr).is_ok() {
            self.open += 1;
        }
    }

    /// How many addresses have not been answered yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// The answers that are there.
    pub fn take(&mut self) -> Vec<CodeLine> {
        self.wait(Duration::ZERO)
    }

    /// The answers that come within this time.
    pub fn wait(&mut self, at_most: Duration) -> Vec<CodeLine> {
        let deadline = Instant::now() + at_most;
        let mut lines = Vec::new();
        while self.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(answer) = self.answers.recv_timeout(left) else {
                break;
            };
            self.open -= 1;
            lines.extend(answer);
        }
        lines
    }
}

fn look_up(vmlinux: &Vmlinux, asked: &Receiver<KernelAddr>, answer: &Sender<Option<CodeLine>>) {
    let symbolizer = Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .build();
    let source = Source::Elf(Elf::new(vmlinux.path()));
    while let Ok(addr) = asked.recv() {
        if answer.send(line(&symbolizer, &source, vmlinux, addr)).is_err() {
            return;
        }
    }
}

/// The line of the call: what stands in a stack is the address behind it.
fn line(symbolizer: &Symbolizer, source: &Source<'_>, vmlinux: &Vmlinux, addr: KernelAddr) -> Option<CodeLine> {
    let in_file = vmlinux.address(addr)?.checked_sub(1)?;
    let found = symbolizer.symbolize_single(source, Input::VirtOffset(in_file)).ok()?;
    let symbol = found.as_sym()?;
    let (place, inlined) = places(symbol);
    let line = CodeLine { addr, place, inlined };
    (line.place != Place::default() || !line.inlined.is_empty()).then_some(line)
}

/// Where a symbol's address comes from in the source, and the inlined functions that it belongs to, outermost first.
pub(super) fn places(symbol: &Sym<'_>) -> (Place, Vec<Inlined>) {
    let inlined = symbol.inlined.iter().map(|function| Inlined {
        name: function.name.as_ref().into(),
        place: place(function.code_info.as_ref()),
    });
    (place(symbol.code_info.as_deref()), inlined.collect())
}

fn place(info: Option<&CodeInfo<'_>>) -> Place {
    let Some(info) = info else { return Place::default() };
    Place {
        file: Some(info.to_path().to_string_lossy().into()),
        line: info.line,
    }
}
