//! Toolchains, targets and components.

use crate::{paths, process, ui};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Target of everything that runs in the VM: static, so a bare initramfs is enough.
pub const MUSL: &str = "x86_64-unknown-linux-musl";
/// The linker's version that fits the `aya` family in use.
const BPF_LINKER: &str = "0.13.0";
/// Where Debian puts the LLVM that this linker is built with.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Which compiler builds the BPF programs; `tracer/build.rs` decides the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BpfCompiler {
    /// rustup's nightly with `rust-src`.
    Nightly,
    /// Debian's `rustc-web` with its prebuilt `core` for BPF.
    Debian,
    /// Named by the environment; this program then installs nothing for it.
    Environment,
}

/// The active toolchain has the target for the VM.
///
/// # Errors
/// It has not, and rustup is not there or fails.
pub fn ensure_musl() -> Result<()> {
    let sysroot = sysroot(&[])?;
    if sysroot.join("lib/rustlib").join(MUSL).join("lib").is_dir() {
        return Ok(());
    }
    rustup(&["target", "add", MUSL]).with_context(|| format!("the target {MUSL} is missing"))
}

/// `cargo fmt` and `cargo clippy` work.
///
/// # Errors
/// As [`ensure_musl`].
pub fn ensure_lints() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if process::capture(process::cargo().args([subcommand, "--version"])).is_err() {
            rustup(&["component", "add", component]).with_context(|| format!("cargo {subcommand} does not work"))?;
        }
    }
    Ok(())
}

/// A compiler for the BPF programs is there.
///
/// # Errors
/// None is there and none can be installed; names both ways.
pub fn ensure_bpf_compiler() -> Result<BpfCompiler> {
    if ["HOLDUP_BPF_RUSTC", "HOLDUP_BPF_TOOLCHAIN"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return Ok(BpfCompiler::Environment);
    }
    if process::which("rustup").is_some() {
        let installed = process::capture(Command::new("rustup").args(["toolchain", "list"]))?;
        if !installed.lines().any(|line| line.starts_with("nightly")) {
            let install = [
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "-c",
                "rust-src",
                "-c",
                "clippy",
            ];
            if let Err(error) = rustup(&install) {
                ui::step(format!("{error:#}"));
                return debian();
            }
        }
        if !sysroot(&["+nightly"])?
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
        {
            rustup(&["component", "add", "rust-src", "--toolchain", "nightly"])?;
        }
        return Ok(BpfCompiler::Nightly);
    }
    debian()
}

/// Clippy of the toolchain that builds the BPF programs.
///
/// # Errors
/// It cannot be installed.
pub fn ensure_bpf_clippy() -> Result<()> {
    let version = process::capture(Command::new("cargo").args(["+nightly", "clippy", "--version"]));
    if version.is_err() {
        rustup(&["component", "add", "clippy", "--toolchain", "nightly"])?;
    }
    Ok(())
}

/// `bpf-linker` is there.
///
/// # Errors
/// It is not, and cannot be built.
pub fn ensure_bpf_linker() -> Result<()> {
    if std::env::var_os("HOLDUP_BPF_LINKER").is_some() || find_bpf_linker().is_some() {
        return Ok(());
    }
    super::apt::ensure(super::LINKER_BUILD)?;
    let _long = ui::long(format!("building bpf-linker {BPF_LINKER} (once, one to three minutes)"));
    let arguments = [
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--no-default-features",
        "--features",
        "llvm-22",
    ];
    process::run(Command::new("cargo").args(arguments).env("LLVM_PREFIX", LLVM_PREFIX))
        .context("bpf-linker could not be built; `cargo binstall bpf-linker` is another way")
}

/// `bpf-linker` on the search path or where cargo installs programs.
pub fn find_bpf_linker() -> Option<PathBuf> {
    process::which("bpf-linker").or_else(|| {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
        Some(home.join("bin/bpf-linker")).filter(|file| file.is_file())
    })
}

fn debian() -> Result<BpfCompiler> {
    super::apt::ensure(super::DEBIAN_BPF).context(
        "no compiler for BPF: either `rustup toolchain install nightly -c rust-src`, or Debian's rustc-web and \
         libstd-rust-web-dev-bpf",
    )?;
    Ok(BpfCompiler::Debian)
}

fn sysroot(toolchain: &[&str]) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc
        .args(toolchain)
        .args(["--print", "sysroot"])
        .current_dir(paths::root());
    Ok(PathBuf::from(process::capture(&mut rustc)?.trim()))
}

fn rustup(arguments: &[&str]) -> Result<()> {
    if process::which("rustup").is_none() {
        bail!("rustup is not here; it would be: rustup {}", arguments.join(" "));
    }
    let _long = ui::long(format!("rustup {}", arguments.join(" ")));
    process::capture(Command::new("rustup").args(arguments).current_dir(paths::root()))?;
    Ok(())
}
