//! File, line and inlined functions of kernel addresses, from a vmlinux and the files of modules with debug information.
//!
//! Only when it was asked for: reading a file of hundreds of megabytes takes memory and seconds, and a disk. A thread of its own
//! does it, so that neither delays an event nor, on a disk that hangs, anything else.

mod modules;
#[cfg(test)]
mod tests;
mod unpack;
mod vmlinux;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};

use self::modules::Modules;
pub use vmlinux::{Vmlinux, VmlinuxError};

use super::facts::KernelFacts;
use super::sysroot::Sysroot;
use crate::event::{CodeLine, Inlined, Place};
use crate::ids::KernelAddr;

/// Addresses asked for and not yet answered; beyond it, no more are asked for.
const MAX_OPEN: usize = 65_536;

/// Looks addresses up, in a thread of its own.
#[derive(Debug)]
pub struct Lines {
    ask: Sender<(KernelAddr, Option<Arc<str>>)>,
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
    /// Show file, line and inlined functions of frames in modules, from files with debug information: DIR/MODULE.ko, also
    /// compressed (.gz, .xz, .zst), or where distributions put them. A file must have the build id of the module that is loaded; others are passed over.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub module_debug: Option<PathBuf>,
}

impl LineArgs {
    /// What looks them up, if it was asked for.
    ///
    /// # Errors
    /// As for [`Lines::start`].
    pub fn start(&self, facts: &KernelFacts) -> Result<Option<Lines>, VmlinuxError> {
        let named = |path: &'_ PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        let root = Sysroot::host();
        let vmlinux = match &self.vmlinux {
            Some(path) => {
                let symbols = facts.files.symbols().ok_or_else(vmlinux::no_symbols)?;
                Some(Vmlinux::open(named(path).as_deref(), &facts.release, symbols, &root)?)
            }
            None => None,
        };
        let modules = self.module_debug.as_ref();
        let modules = modules.map(|dir| Modules::new(&facts.release, named(dir).as_deref(), &root));
        if vmlinux.is_none() && modules.is_none() {
            return Ok(None);
        }
        Lines::start(vmlinux, modules).map(Some)
    }
}

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    fn start(vmlinux: Option<Vmlinux>, modules: Option<Modules>) -> Result<Self, VmlinuxError> {
        let (ask, asked) = channel();
        let (answer, answers) = channel();
        // It ends when the last asker is gone, or with the process: nobody waits for it.
        thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || look_up(vmlinux.as_ref(), modules, &asked, &answer))
            .map_err(VmlinuxError::Thread)?;
        Ok(Self { ask, answers, open: 0 })
    }

    /// Asks for an address of the kernel proper or of a module, as it stands in a stack.
    pub fn ask(&mut self, addr: KernelAddr, module: Option<&Arc<str>>) {
        if self.open < MAX_OPEN && self.ask.send((addr, module.cloned())).is_ok() {
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

fn look_up(
    vmlinux: Option<&Vmlinux>,
    mut modules: Option<Modules>,
    asked: &Receiver<(KernelAddr, Option<Arc<str>>)>,
    answer: &Sender<Option<CodeLine>>,
) {
    let symbolizer = Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .build();
    let vmlinux = vmlinux.map(|vmlinux| (vmlinux, Source::Elf(Elf::new(vmlinux.path()))));
    while let Ok((addr, module)) = asked.recv() {
        let found = match (&module, &vmlinux, &mut modules) {
            (Some(module), _, Some(modules)) => modules.line(module, addr),
            (None, Some((vmlinux, source)), _) => line(&symbolizer, source, vmlinux, addr),
            _ => None,
        };
        if answer.send(found).is_err() {
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
