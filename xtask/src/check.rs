//! The fast checks: formatting, and clippy for the host's crates and for the BPF programs.

use crate::setup::rust::{self, BpfCompiler};
use crate::setup::{self, Part};
use crate::{build, process, ui};
use anyhow::Result;
use std::process::Command;

/// The crate that is not for the host.
const BPF_CRATE: &str = "tracer-ebpf";

/// One check.
pub struct Check {
    pub name: &'static str,
    pub run: fn() -> Result<Done>,
}

/// How a check that did not fail ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    Passed,
    /// It cannot be made on this box, for the reason given.
    Skipped(String),
}

/// All of them, the quickest first.
pub const CHECKS: &[Check] = &[
    Check { name: "fmt", run: fmt },
    Check {
        name: "clippy (host)",
        run: clippy_host,
    },
    Check {
        name: "clippy (BPF)",
        run: clippy_bpf,
    },
];

/// Makes every check, says how each ended, and whether all is well.
pub fn run() -> bool {
    let mut fine = true;
    for check in CHECKS {
        ui::step(format!("{} ...", check.name));
        match (check.run)() {
            Ok(Done::Passed) => ui::step(format!("{}: ok", check.name)),
            Ok(Done::Skipped(why)) => ui::step(format!("{}: skipped, {why}", check.name)),
            Err(error) => {
                ui::step(format!("{}: FAILED: {error:#}", check.name));
                fine = false;
            }
        }
    }
    fine
}

fn fmt() -> Result<Done> {
    setup::ensure(&[Part::Lints])?;
    process::run(process::cargo().args(["fmt", "--all", "--", "--check"]))?;
    Ok(Done::Passed)
}

fn clippy_host() -> Result<Done> {
    setup::ensure(&[Part::Lints, Part::Build])?;
    let arguments = [
        "clippy",
        "--workspace",
        "--exclude",
        BPF_CRATE,
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    process::run(build::cargo().args(arguments))?;
    Ok(Done::Passed)
}

fn clippy_bpf() -> Result<Done> {
    match rust::ensure_bpf_compiler()? {
        BpfCompiler::Nightly => {}
        BpfCompiler::Debian => return Ok(Done::Skipped("Debian's BPF compiler has no clippy".to_owned())),
        BpfCompiler::Environment => return Ok(Done::Skipped("the environment chooses the BPF compiler".to_owned())),
    }
    rust::ensure_bpf_clippy()?;
    // Not `cargo()`: the nightly toolchain brings its own. Its target directory is its own, too, or the two toolchains
    // would throw away each other's results.
    let mut command = Command::new("rustup");
    command.args([
        "run",
        "nightly",
        "cargo",
        "--quiet",
        "clippy",
        "--package",
        BPF_CRATE,
        "--target",
        BPF_TARGET,
    ]);
    command.args(["-Z", "build-std=core", "--", "-D", "warnings"]);
    command
        .current_dir(crate::paths::root())
        .env("CARGO_TARGET_DIR", crate::paths::target().join("bpf-clippy"));
    for inherited in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(inherited);
    }
    process::run(&mut command)?;
    Ok(Done::Passed)
}

/// Little-endian BPF; the lints do not depend on the byte order.
const BPF_TARGET: &str = "bpfel-unknown-none";
