//! Builds the BPF object with whatever BPF-capable toolchain this machine has, and puts it where `bpf::object` embeds it from.
//!
//! Order: `HOLDUP_BPF_RUSTC` if set; a rustup nightly with rust-src; Debian's rustc with the prebuilt BPF core library.
//! Environment: `HOLDUP_BPF_RUSTC` (a rustc with a prebuilt core for bpfel-unknown-none), `HOLDUP_BPF_TOOLCHAIN` (name of the rustup
//! toolchain, default `nightly`), `HOLDUP_BPF_LINKER` (path of bpf-linker).

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OBJECT: &str = "holdup-bpf";
const WATCHED: [&str; 3] = ["HOLDUP_BPF_RUSTC", "HOLDUP_BPF_TOOLCHAIN", "HOLDUP_BPF_LINKER"];

fn main() {
    if let Err(error) = run() {
        // One readable paragraph instead of a Debug dump of the error chain.
        println!("cargo::error={}", error.to_string().replace('\n', "\ncargo::error="));
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let tracer = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let root = tracer.parent().ok_or("the tracer crate has no parent directory")?;
    let out = PathBuf::from(var("OUT_DIR")?);
    for name in WATCHED {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["tracer-ebpf", "tracer-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    if var("CARGO_CFG_TARGET_ENDIAN")? != *"little" {
        return Err("holdup builds its BPF object for little-endian kernels only (x86-64, arm64)".into());
    }

    let toolchain = Toolchain::find()?;
    let linker = find_linker()?;
    println!("cargo::rerun-if-changed={}", linker.display());

    let target_dir = out.join("bpf");
    let built = target_dir.join("bpfel-unknown-none/release").join(OBJECT);
    let embedded = out.join(OBJECT);
    // Whatever an earlier, different build left must not be embedded if this one fails.
    for stale in [&built, &embedded] {
        match fs::remove_file(stale) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", arch.to_string_lossy()),
        // bpf_loop and the verifier's messages need function and line info.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Compare-and-swap needs cpu v3 (kernel 5.12).
        "-Ctarget-cpu=v3".into(),
        format!("-Clinker={}", linker.display()),
    ];
    let mut cargo = toolchain.cargo();
    cargo
        .args([
            "build",
            "--release",
            "--target",
            "bpfel-unknown-none",
            "--package",
            "tracer-ebpf",
        ])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // Clippy and cargo set these for the host build; they must not leak into this one.
    for name in [
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_BUILD_TARGET",
        "RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    let output = cargo.output().map_err(|e| format!("cannot run {cargo:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "building the BPF programs with {} and {} failed:\n{}\nIf the linker does not know the compiler's bitcode, its LLVM is \
             older than rustc's: reinstall it with `cargo xtask setup`.",
            toolchain.describe(),
            linker.display(),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    fs::copy(&built, &embedded).map_err(|e| format!("no BPF object at {}: {e}", built.display()))?;
    Ok(())
}

fn var(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set; build.rs must be run by cargo"))
}

/// A compiler that can build for bpfel-unknown-none.
enum Toolchain {
    /// A rustup toolchain with rust-src: core is built from source.
    Rustup(String),
    /// A rustc with a prebuilt core for the target.
    Prebuilt(PathBuf),
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        if let Some(rustc) = env::var_os("HOLDUP_BPF_RUSTC") {
            let rustc = PathBuf::from(rustc);
            return if has_prebuilt_core(&rustc) {
                Ok(Self::Prebuilt(rustc))
            } else {
                Err(format!(
                    "HOLDUP_BPF_RUSTC={} has no prebuilt core for bpfel-unknown-none",
                    rustc.display()
                ))
            };
        }
        let name = env::var("HOLDUP_BPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".into());
        if rustup_has_source(&name) {
            return Ok(Self::Rustup(name));
        }
        let debian = PathBuf::from("/usr/bin/rustc");
        if has_prebuilt_core(&debian) {
            return Ok(Self::Prebuilt(debian));
        }
        Err(format!(
            "no compiler for BPF programs found. Install one of:\n  rustup toolchain install {name} && rustup component add rust-src \
             --toolchain {name}\n  apt-get install rustc-web libstd-rust-web-dev-bpf   (Debian, Ubuntu)\nor run `cargo xtask \
             setup`, or name a compiler in HOLDUP_BPF_RUSTC."
        ))
    }

    fn cargo(&self) -> Command {
        match self {
            Self::Rustup(name) => {
                let mut command = Command::new("rustup");
                command
                    .args(["run", name, "cargo", "-Zbuild-std=core"])
                    .env_remove("RUSTC")
                    .env_remove("CARGO");
                command
            }
            Self::Prebuilt(rustc) => {
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                // The atomics intrinsics are unstable; the flag is for this child only.
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Rustup(name) => format!("the rustup toolchain {name}"),
            Self::Prebuilt(rustc) => rustc.display().to_string(),
        }
    }
}

fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn rustup_has_source(toolchain: &str) -> bool {
    stdout_of(
        Command::new("rustup")
            .args(["run", toolchain, "rustc", "--print", "sysroot"])
            .env_remove("RUSTC"),
    )
    .is_some_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists()
    })
}

fn has_prebuilt_core(rustc: &Path) -> bool {
    let libdir = stdout_of(Command::new(rustc).args(["--print", "target-libdir", "--target", "bpfel-unknown-none"]));
    let Some(entries) = libdir.and_then(|dir| fs::read_dir(dir).ok()) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore"))
}

fn find_linker() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("HOLDUP_BPF_LINKER") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("HOLDUP_BPF_LINKER={} is not a file", path.display()))
        };
    }
    let cargo_bin = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(cargo_bin).map(|dir| dir.join("bpf-linker")).find(|candidate| candidate.is_file()).ok_or_else(
        || {
            "bpf-linker is not installed. Install it with `cargo binstall bpf-linker`, or with `cargo xtask setup`, which builds \
             one whose LLVM matches the compiler, or name it in HOLDUP_BPF_LINKER."
                .into()
        },
    )
}
