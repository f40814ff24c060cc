//! Tasks of this repository that are more than one cargo command: `cargo xtask --help`.

mod bench;
mod build;
mod check;
mod exporttest;
mod hang;
mod paths;
mod process;
mod recorder;
mod setup;
mod test;
mod ui;
mod viewtest;
mod vm;
mod vmtest;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds, tests and tries holdup. Every command installs what it lacks first (Debian and Ubuntu, as root or with sudo).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install everything that building, testing and the VM need
    Setup,
    /// Build holdup (release) with its BPF programs
    Build,
    /// Build holdup and run it on this box
    Run {
        /// Arguments for holdup
        #[arg(last = true, value_name = "HOLDUP ARGS")]
        arguments: Vec<String>,
    },
    /// Formatting and lints, for the host's crates and the BPF programs
    Check,
    /// Every test: formatting, lints, unit and documentation tests, and stock kernels in the VM
    Test {
        /// Only tests whose name contains this; those in the VM are called boot/KERNEL/GROUP/NAME
        filter: Option<String>,
        /// Print the names of the tests in the VM and run nothing
        #[arg(long)]
        list: bool,
    },
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Boot a stock kernel in QEMU, break it on purpose, run holdup inside
    #[command(args_conflicts_with_subcommands = true, after_help = vm::command::HELP)]
    Vm {
        #[command(subcommand)]
        action: Option<VmAction>,
        #[command(flatten)]
        args: vm::command::VmArgs,
    },
}

#[derive(Debug, Subcommand)]
enum VmAction {
    /// Print the kernels and the scenarios
    List,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(cli.task) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<vm::boot::Interrupted>() => {
            ui::step("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            ui::step(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<u8> {
    match task {
        Task::Setup => setup::run().map(|()| 0),
        Task::Build => {
            let binary = build::host()?;
            println!("{}", binary.display());
            Ok(0)
        }
        Task::Check => Ok(u8::from(!check::run())),
        Task::Test { filter, list } => test::run(filter.as_deref(), list),
        Task::Bench(bench) => bench::run(&bench).map(|()| 0),
        Task::Run { arguments } => build::run(&arguments),
        Task::Vm {
            action: Some(VmAction::List),
            ..
        } => {
            vm::command::list();
            Ok(0)
        }
        Task::Vm { action: None, args } => vm::command::run(&args),
    }
}
