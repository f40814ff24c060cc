//! From a choice of kernel and plan to a finished boot, with the bounded retries the emulator needs.

use super::accel;
use super::boot::{self, Machine, Outcome};
use super::initramfs::{self, Content};
use super::kernels::Kernel;
use super::module::Module;
use super::qemu::Accelerator;
use crate::{build, ui};
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;
use xtask_guest::message::Message;
use xtask_guest::plan::Plan;

/// Attempts where the emulator's own race is the cause of failure.
const ATTEMPTS: usize = 3;
/// From QEMU's start to the first step, and from the last step to the end, with room for a busy host.
const OVERHEAD: Duration = Duration::from_secs(120);

/// Everything a boot needs besides its plan.
#[derive(Debug)]
pub struct Session {
    pub kernel: Kernel,
    /// Loaded in this order before the plan's steps.
    pub modules: Vec<Module>,
    pub holdup: Option<PathBuf>,
    pub script: Option<Vec<u8>>,
    pub cpus: u16,
    /// Whether CPUs must really run at the same time.
    pub parallel: bool,
    /// Only CPU 0 is for the scheduler and for devices.
    pub isolated: bool,
    /// For the plan's steps; booting comes on top.
    pub timeout: Duration,
    /// Logs and files of this boot.
    pub directory: PathBuf,
    /// The console is the user's terminal.
    pub terminal: bool,
    /// Image of a disk that outlives the boot.
    pub disk: Option<PathBuf>,
}

/// Where a boot's messages go.
pub trait Sink {
    /// One message of the guest.
    ///
    /// # Errors
    /// It cannot be taken; the boot then ends.
    fn message(&mut self, message: Message) -> Result<()>;

    /// The boot failed for the emulator's sake and would be tried again. Forgets what has come so far and says whether
    /// it can: what a user has seen already cannot be taken back.
    fn start_over(&mut self) -> bool;
}

impl Session {
    /// Boots and carries out `plan`.
    ///
    /// # Errors
    /// What could not be built or started, a failing sink, an interrupt. A failing guest is an [`Outcome`].
    pub fn run(&self, mut plan: Plan, sink: &mut dyn Sink) -> Result<Outcome> {
        plan.modules = self.modules.iter().map(initramfs::module_path).collect();
        let init = build::guest_init()?;
        let content = Content {
            init: &init,
            holdup: self.holdup.as_deref(),
            modules: &self.modules,
            script: self.script.as_deref(),
        };
        let accelerator = match (accel::choose(&self.kernel)?, self.parallel) {
            (Accelerator::Tcg, true) => Accelerator::TcgParallel,
            (accelerator, _) => accelerator,
        };
        let archive = initramfs::build(&content, &plan)?;
        for attempt in 1.. {
            let machine = Machine {
                kernel: &self.kernel.image,
                initramfs: archive.clone(),
                accelerator,
                cpus: self.cpus,
                isolated: self.isolated,
                memory_mib: 1024,
                timeout: self.timeout + OVERHEAD,
                directory: self.directory.clone(),
                terminal: self.terminal,
                disk: self.disk.clone(),
            };
            ui::step(format!(
                "booting {} ({}, {} CPUs, {accelerator})",
                self.kernel.name, self.kernel.release, self.cpus
            ));
            let outcome = boot::run(&machine, &mut |message| sink.message(message))?;
            if attempt == ATTEMPTS || !outcome.is_emulator_race() || !sink.start_over() {
                return Ok(outcome);
            }
            ui::step(format!(
                "the emulator lost its race with the kernel's text patching (stray int3); attempt {}",
                attempt + 1
            ));
        }
        unreachable!("the loop ends by returning")
    }
}
