//! Kernel headers in the cache, laid out so that an out-of-tree module builds against them without installing anything.

use super::kernels::{Headers, Kernel};
use super::{fetch, packages};
use crate::setup::apt;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// The build directory for modules of this kernel.
///
/// # Errors
/// There is none for a user's own image unless `--headers` names one, or the download failed.
pub fn ensure(kernel: &Kernel) -> Result<PathBuf> {
    match &kernel.headers {
        Headers::Directory(directory) => Ok(directory.clone()),
        Headers::None => bail!(
            "a kernel module cannot be built for {} ({}): name its build directory with --headers DIR",
            kernel.name,
            kernel.release
        ),
        Headers::Package(name) => {
            let entry = from_package(name)?;
            Ok(entry.join("usr/src").join(name))
        }
    }
}

fn from_package(name: &str) -> Result<PathBuf> {
    // Off line, an entry of any version of this release will do: the release is what modules are tied to.
    let stanza = packages::show(name);
    if let Ok(stanza) = &stanza {
        for compiler in stanza.depends.iter().filter_map(|package| compiler(&package.name)) {
            apt::ensure_program(&compiler)?;
        }
    }
    let entry = match &stanza {
        Ok(stanza) => format!("{name}_{}", stanza.package.version.as_deref().unwrap_or("unversioned")),
        Err(_) => fetch::remembered(name).unwrap_or_default(),
    };
    if !entry.is_empty()
        && let Some(entry) = fetch::cached(&entry)?
    {
        return Ok(entry);
    }
    let stanza = stanza?;
    let mut wanted = stanza.depends_on(&["linux-headers-", "linux-kbuild-"]);
    wanted.push(stanza.package);
    let root = fetch::ensure(&entry, &wanted, |root, final_root| relocate(name, root, final_root))?;
    fetch::remember(name, &entry)?;
    Ok(root)
}

/// The compiler that the kernel was built with and its makefiles name, if this dependency stands for it.
fn compiler(package: &str) -> Option<String> {
    let rest = package
        .strip_prefix("linux-compiler-")
        .unwrap_or(package)
        .strip_prefix("gcc-")?;
    let version: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!version.is_empty()).then(|| format!("gcc-{version}"))
}

/// The packages expect to live in `/usr`: their makefile includes an absolute path, all their links are relative.
fn relocate(name: &str, root: &Path, final_root: &Path) -> Result<()> {
    let build = root.join("usr/src").join(name);
    let makefile = build.join("Makefile");
    let text = std::fs::read_to_string(&makefile).with_context(|| format!("reading {}", makefile.display()))?;
    let moved = text.replace(
        "include /usr/src/",
        &format!("include {}/usr/src/", final_root.display()),
    );
    if moved == text {
        bail!("the headers' Makefile has an unknown form:\n{text}");
    }
    std::fs::write(&makefile, moved)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_is_found_among_the_dependencies() {
        assert_eq!(compiler("gcc-12").as_deref(), Some("gcc-12"));
        assert_eq!(compiler("linux-compiler-gcc-12-x86").as_deref(), Some("gcc-12"));
        assert_eq!(compiler("gcc-14-for-host").as_deref(), Some("gcc-14"));
        for other in ["linux-kbuild-6.1", "gcc", "gcc-base", "linux-headers-6.1.0-56-common"] {
            assert_eq!(compiler(other), None, "{other}");
        }
    }
}
