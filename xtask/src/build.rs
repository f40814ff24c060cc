//! Cargo builds of the project itself.

use crate::setup::rust::MUSL;
use crate::setup::{self, Part};
use crate::{paths, process, ui};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Use this binary as the guest's `holdup` instead of building one.
pub const GUEST_BINARY: &str = "HOLDUP_GUEST_BINARY";

/// Builds `holdup` for this box, in release mode.
///
/// # Errors
/// What is missing, or the compiler's words.
pub fn host() -> Result<PathBuf> {
    setup::ensure(&[Part::Build])?;
    let _long = ui::long("building holdup");
    process::run(cargo().args(["build", "--release", "--package", "tracer", "--bin", "holdup"]))?;
    Ok(paths::target().join("release/holdup"))
}

/// Builds `holdup` for the VM, or takes the one that [`GUEST_BINARY`] names.
///
/// # Errors
/// As [`host`].
pub fn guest_holdup() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(GUEST_BINARY).map(PathBuf::from) {
        return path
            .canonicalize()
            .with_context(|| format!("{GUEST_BINARY}={}", path.display()));
    }
    setup::ensure(&[Part::Build, Part::Guest])?;
    musl("tracer", "holdup")
}

/// Builds PID 1 of the VM, once in this process.
///
/// # Errors
/// As [`host`].
pub fn guest_init() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    setup::ensure(&[Part::Guest])?;
    let path = musl("xtask-guest", "xtask-guest")?;
    *built = Some(path.clone());
    Ok(path)
}

fn musl(package: &str, binary: &str) -> Result<PathBuf> {
    let _long = ui::long(format!("building {binary} for the VM"));
    process::run(cargo().args([
        "build",
        "--release",
        "--target",
        MUSL,
        "--package",
        package,
        "--bin",
        binary,
    ]))?;
    Ok(paths::target().join(MUSL).join("release").join(binary))
}

/// Cargo without its progress lines.
pub fn cargo() -> Command {
    let mut command = process::cargo();
    command.arg("--quiet");
    command
}

/// Builds holdup and runs it on this box, in this program's place.
///
/// # Errors
/// As [`host`], or it cannot be started.
pub fn run(arguments: &[String]) -> Result<u8> {
    use std::os::unix::process::CommandExt as _;
    let binary = host()?;
    let error = Command::new(&binary).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", binary.display()))
}
