//! Debian's and Ubuntu's packages: which are missing, and how they get here.

use crate::{process, ui};
use anyhow::{Context as _, Result, bail};
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// How to see that something is there already, from a package or otherwise.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// A program on the search path.
    Program(&'static str),
    /// A program on the search path that needs no libraries.
    StaticProgram(&'static str),
    /// A file.
    File(&'static str),
    /// One of Debian's directories for libraries holds it.
    Library(&'static str),
}

/// A package and what it is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    pub package: &'static str,
    pub proof: Proof,
}

impl Need {
    /// Whether it is there.
    pub fn is_met(&self) -> bool {
        match self.proof {
            Proof::Program(name) => process::which(name).is_some(),
            Proof::StaticProgram(name) => process::which(name)
                .and_then(|path| std::fs::read(path).ok())
                .is_some_and(|elf| !asks_for_interpreter(&elf)),
            Proof::File(path) => Path::new(path).exists(),
            Proof::Library(name) => [
                "/usr/lib/x86_64-linux-gnu",
                "/lib/x86_64-linux-gnu",
                "/usr/lib64",
                "/usr/lib",
            ]
            .iter()
            .any(|directory| Path::new(directory).join(name).exists()),
        }
    }
}

/// Whether an ELF file (64 bits, little-endian) has a program header of type `PT_INTERP`: the dynamic linker's path.
fn asks_for_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let word = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0u64, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    let headers = || {
        Some((
            usize::try_from(word(32, 8)?).ok()?,
            word(54, 2)? as usize,
            word(56, 2)? as usize,
        ))
    };
    let Some((table, size, count)) = headers() else {
        return false;
    };
    (0..count).any(|index| table.checked_add(index * size).and_then(|at| word(at, 4)) == Some(PT_INTERP.into()))
}

/// Installs what is missing of `needs`, and says so; silent if nothing is.
///
/// # Errors
/// Not a Debian or Ubuntu, no root and no sudo, or apt's own failure. Each error lists the packages.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)?;
    let still: Vec<&str> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package)
        .collect();
    if !still.is_empty() {
        bail!(
            "apt installed {}, yet this is still missing: {}",
            missing.join(" "),
            still.join(" ")
        );
    }
    Ok(())
}

/// Installs a package that is named like the program it brings, unless the program is there.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_program(name: &str) -> Result<()> {
    if process::which(name).is_some() {
        return Ok(());
    }
    install(&[name])
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if process::which("apt-get").is_none() {
        bail!("this box has no apt; install what these Debian packages bring, then try again: {list}");
    }
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(packages);
    {
        let _long = ui::long(format!("installing {list}"));
        if as_root(&install).is_err() {
            // Names or versions may be newer than this box's index.
            update()?;
            as_root(&install).with_context(|| format!("installing {list}"))?;
        }
    }
    Ok(())
}

/// Refreshes the package index, at most once in this process.
///
/// # Errors
/// As [`ensure`].
pub fn update() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    if process::which("apt-get").is_none() {
        bail!("this box has no apt");
    }
    let _long = ui::long("refreshing the package index (apt-get update)");
    as_root(&["update", "-q"])?;
    DONE.get_or_init(|| ());
    Ok(())
}

fn as_root(arguments: &[&str]) -> Result<()> {
    let mut words = vec![
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::Retries=3",
    ];
    words.extend(arguments);
    if std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) {
        process::capture(Command::new(words[0]).args(&words[1..]))?;
        return Ok(());
    }
    if process::which("sudo").is_none() {
        bail!(
            "root is needed and sudo is not here; as root run: {}",
            words[1..].join(" ")
        );
    }
    ui::step(format!("sudo {}", words.join(" ")));
    let mut sudo = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        // Nobody could type a password.
        sudo.arg("-n");
    }
    let status = sudo.args(&words).status().context("starting sudo")?;
    if !status.success() {
        bail!("failed ({status}): sudo {}", words.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header, and one program header of the given type behind it.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..4].copy_from_slice(b"\x7fELF");
        (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
        bytes[64] = kind;
        bytes
    }

    #[test]
    fn dynamic_programs_are_told_apart() {
        assert!(asks_for_interpreter(&elf(3)));
        assert!(!asks_for_interpreter(&elf(1)));
        for length in 0..elf(3).len() {
            // Cut anywhere: no panic, and nothing is found that is not there.
            assert!(!asks_for_interpreter(&elf(1)[..length]));
        }
        let mut endless = elf(1);
        endless[32..40].fill(0xff);
        assert!(!asks_for_interpreter(&endless));
    }
}
