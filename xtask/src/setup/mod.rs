//! Gets the box ready. Each subcommand asks for the parts it needs; `cargo xtask setup` asks for all of them.

pub mod apt;
pub mod rust;

use crate::ui;
use anyhow::Result;
use apt::{Need, Proof};

/// To run a virtual machine.
const MACHINE: &[Need] = &[
    Need {
        package: "qemu-system-x86",
        proof: Proof::Program("qemu-system-x86_64"),
    },
    Need {
        package: "busybox-static",
        proof: Proof::StaticProgram("busybox"),
    },
    Need {
        package: "binutils",
        proof: Proof::Program("strip"),
    },
];

/// For the C parts (zstd) of static binaries.
const GUEST: &[Need] = &[Need {
    package: "musl-tools",
    proof: Proof::Program("musl-gcc"),
}];

/// A terminal that tests can look at.
const TERMINAL: &[Need] = &[Need {
    package: "tmux",
    proof: Proof::Program("tmux"),
}];

const GRAPHS: &[Need] = &[Need {
    package: "graphviz",
    proof: Proof::Program("dot"),
}];

const TRACES: &[Need] = &[Need {
    package: "python3-pip",
    proof: Proof::Program("pip3"),
}];

/// To build kernel modules. gcc-12 is the compiler Debian 12's kernels were built with, and their makefiles name it.
const MODULES: &[Need] = &[
    Need {
        package: "make",
        proof: Proof::Program("make"),
    },
    Need {
        package: "gcc-12",
        proof: Proof::Program("gcc-12"),
    },
    Need {
        package: "libelf1",
        proof: Proof::Library("libelf.so.1"),
    },
    Need {
        package: "kmod",
        proof: Proof::Program("depmod"),
    },
    Need {
        package: "xz-utils",
        proof: Proof::Program("xz"),
    },
];

/// To build `bpf-linker`.
const LINKER_BUILD: &[Need] = &[
    Need {
        package: "g++",
        proof: Proof::Program("g++"),
    },
    Need {
        package: "llvm-22-dev",
        proof: Proof::File("/usr/lib/llvm-22/bin/llvm-config"),
    },
    Need {
        package: "libpolly-22-dev",
        proof: Proof::File("/usr/lib/llvm-22/lib/libPolly.a"),
    },
    Need {
        package: "libzstd-dev",
        proof: Proof::File("/usr/include/zstd.h"),
    },
    Need {
        package: "zlib1g-dev",
        proof: Proof::File("/usr/include/zlib.h"),
    },
];

/// The way without a nightly.
const DEBIAN_BPF: &[Need] = &[
    Need {
        package: "rustc-web",
        proof: Proof::File("/usr/bin/rustc"),
    },
    Need {
        package: "libstd-rust-web-dev-bpf",
        proof: Proof::File("/usr/lib/rustlib/bpfel-unknown-none/lib"),
    },
];

/// What [`ensure`] can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Building the workspace, BPF programs included.
    Build,
    /// Formatting and lints.
    Lints,
    /// Static binaries for the VM.
    Guest,
    /// QEMU and what the initramfs is made of.
    Machine,
    /// Building kernel modules.
    Modules,
    /// Tests of the view on a terminal.
    Terminal,
    /// Tests that draw graphs.
    Graphs,
    /// Tests of traces for Perfetto.
    Traces,
}

/// Every part.
pub const ALL: &[Part] = &[
    Part::Build,
    Part::Lints,
    Part::Guest,
    Part::Machine,
    Part::Modules,
    Part::Terminal,
    Part::Graphs,
    Part::Traces,
];

/// Installs what the parts lack; says what it does and is silent about what is there.
///
/// # Errors
/// Says what is missing and how to get it.
pub fn ensure(parts: &[Part]) -> Result<()> {
    for part in parts {
        match part {
            Part::Build => {
                rust::ensure_bpf_compiler()?;
                rust::ensure_bpf_linker()?;
            }
            Part::Lints => rust::ensure_lints()?,
            Part::Guest => {
                rust::ensure_musl()?;
                apt::ensure(GUEST)?;
            }
            Part::Machine => apt::ensure(MACHINE)?,
            Part::Modules => apt::ensure(MODULES)?,
            Part::Terminal => apt::ensure(TERMINAL)?,
            Part::Graphs => apt::ensure(GRAPHS)?,
            Part::Traces => apt::ensure(TRACES)?,
        }
    }
    Ok(())
}

/// `cargo xtask setup`.
///
/// # Errors
/// As [`ensure`], after every part was tried.
pub fn run() -> Result<()> {
    let mut failures = Vec::new();
    for part in ALL {
        match ensure(&[*part]) {
            Ok(()) => ui::step(format!("{part:?}: ready")),
            Err(error) => {
                ui::step(format!("{part:?}: {error:#}"));
                failures.push(format!("{part:?}"));
            }
        }
    }
    anyhow::ensure!(failures.is_empty(), "not ready: {}", failures.join(", "));
    Ok(())
}
