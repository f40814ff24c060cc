//! The `vm` subcommand: its arguments, and the run as a whole.

use super::forward::{self, FAILED, Forward};
use super::kernels;
use super::module;
use super::scenarios::{self, SCENARIOS};
use super::script;
use super::session::Session;
use super::stock_modules;
use super::terminal::Terminal;
use crate::setup::{self, Part};
use crate::{build, paths, ui};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` says below the options.
pub const HELP: &str = "\
Exit code: that of holdup (or of the guest script), 124 if its time was up, 125 if the machine failed: a panic, a hang, a \
kernel message that does not belong to the scenario. Standard output and error are those of the guest's command.

On the terminal Ctrl-A X switches the machine off.

Environment:
  HOLDUP_CACHE          where kernels are kept [default: $XDG_CACHE_HOME/holdup or ~/.cache/holdup]
  HOLDUP_VM_ACCEL       kvm or tcg, instead of trying
  HOLDUP_GUEST_BINARY   a static holdup to run in the guest instead of building one

Example: cargo xtask vm --kernel 6.12 --scenario mutex-abba -- live --text --duration 10";
/// Longest time that can be asked for: 30 days, in seconds.
const LONGEST: i64 = 30 * 86_400;

/// When holdup starts, seen from the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// holdup's probes are active, then the kernel is broken.
    Before,
    /// The kernel is broken, then holdup starts.
    After,
}

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Stock kernel (see `vm list`), or the path of a kernel image of your own
    #[arg(long, default_value = "6.1", value_name = "NAME|PATH")]
    kernel: String,
    /// Build directory for modules of a kernel of your own
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// How to break the kernel (see `vm list`); parameters may follow the name: "rwsem-reader-io readers=1500"
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// Whether holdup attaches before or after the scenario (or, with holdup arguments, the guest script)
    #[arg(long, value_enum, default_value = "after")]
    pub attach: Attach,
    /// Build and load the out-of-tree kernel modules in this directory; may be repeated
    #[arg(long, value_name = "DIR")]
    module: Vec<PathBuf>,
    /// Load a module of the kernel's own (with what it depends on) first; may be repeated
    #[arg(long, value_name = "NAME")]
    stock_module: Vec<String>,
    /// Run this shell script in the guest, with holdup on its PATH; what it leaves in /out comes back (--out)
    #[arg(long, value_name = "FILE")]
    pub guest_script: Option<PathBuf>,
    /// Seconds for the guest's commands, booting comes on top [default: 300; for the live view on this terminal: none]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=LONGEST))]
    timeout: Option<u32>,
    /// CPUs of the guest
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    smp: u16,
    /// Let emulated CPUs really run at the same time, even if the scenario does not need it
    #[arg(long)]
    parallel: bool,
    /// Directory for the files that the guest leaves in /out
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Arguments for holdup in the guest; without any, its live view on this terminal (Ctrl-A X ends the machine)
    #[arg(last = true, value_name = "HOLDUP ARGS")]
    pub holdup: Vec<String>,
}

impl VmArgs {
    /// Whether the terminal shows holdup's live view.
    fn is_interactive(&self) -> bool {
        self.holdup.is_empty() && self.guest_script.is_none()
    }

    /// Time for the guest's commands.
    pub fn limit(&self) -> Duration {
        let default = if self.is_interactive() { LONGEST } else { 300 };
        Duration::from_secs(self.timeout.map_or(default, i64::from).unsigned_abs())
    }
}

/// Prints what `--kernel` and `--scenario` take.
pub fn list() {
    println!("kernels:");
    for stock in kernels::STOCK {
        println!("  {:<22} {}", stock.name, stock.meaning);
    }
    println!(
        "  {:<22} a kernel image of your own; modules need --headers DIR",
        "PATH"
    );
    println!("\nscenarios:");
    for scenario in SCENARIOS {
        println!("  {:<22} {}", scenario.name, scenario.meaning);
        let mut remarks = Vec::new();
        if !scenario.expects.is_empty() {
            let markers: Vec<String> = scenario.expects.iter().map(ToString::to_string).collect();
            remarks.push(format!("the kernel may report: {}", markers.join(", ")));
        }
        if scenario.parallel {
            remarks.push("runs its CPUs in parallel".to_owned());
        }
        if scenario.isolated {
            remarks.push("boots with isolcpus".to_owned());
        }
        if !scenario.on_rt {
            remarks.push("not on PREEMPT_RT".to_owned());
        }
        if !remarks.is_empty() {
            println!("  {:<22}   {}", "", remarks.join("; "));
        }
    }
}

/// Runs the machine. The result is the exit code: that of the guest's command, 124 if it had to be stopped, 125 if the
/// machine failed.
///
/// # Errors
/// What could not be prepared or started.
pub fn run(args: &VmArgs) -> Result<u8> {
    let scenario = args.scenario.as_deref().map(scenarios::find).transpose()?;
    let script = match &args.guest_script {
        Some(path) => Some(std::fs::read(path).with_context(|| format!("--guest-script {}", path.display()))?),
        None => None,
    };
    let interactive = args.is_interactive();
    // Before anything is fetched or built: without a terminal there is nothing to show it on.
    let terminal = if interactive { Some(Terminal::save()?) } else { None };
    setup::ensure(&[Part::Machine])?;
    let kernel = kernels::ensure(&args.kernel, args.headers.as_deref())?;
    if let Some(scenario) = scenario {
        scenario.possible_on(&kernel.release)?;
    }
    let mut modules = stock_modules::collect(&kernel, &args.stock_module)?;
    if scenario.is_some() || !args.module.is_empty() {
        setup::ensure(&[Part::Modules])?;
    }
    if scenario.is_some() {
        modules.extend(module::build(&module::lockfault_source(), &kernel)?);
    }
    for directory in &args.module {
        modules.extend(module::build(directory, &kernel)?);
    }
    if interactive {
        ui::step("Ctrl-A X switches the machine off, Ctrl-A C leads to QEMU's monitor and back");
    }
    let plan = script::plan(args, scenario, terminal.as_ref());
    let session = Session {
        holdup: Some(build::guest_holdup()?),
        modules,
        script,
        cpus: args.smp,
        parallel: args.parallel || scenario.is_some_and(|scenario| scenario.parallel),
        isolated: scenario.is_some_and(|scenario| scenario.isolated),
        timeout: args.limit(),
        directory: paths::target().join(format!("vm/run-{}", std::process::id())),
        terminal: interactive,
        disk: None,
        kernel,
    };
    let mut sink = Forward::new(args.out.clone());
    let outcome = session.run(plan, &mut sink);
    drop(terminal);
    if sink.reader_left {
        return Ok(0);
    }
    let trusted = args.module.is_empty() && args.guest_script.is_none();
    let code = forward::report(&session, scenario, trusted, &outcome?, sink);
    if code != FAILED {
        // Only a failure's console is worth a look.
        let _ = std::fs::remove_dir_all(&session.directory);
    }
    Ok(code)
}
