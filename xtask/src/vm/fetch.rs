//! Packages unpacked into the cache. An entry is complete or absent: work happens under a temporary name.

use super::packages::Package;
use crate::{paths, process, ui};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cache entry `name`, if it is there.
///
/// # Errors
/// No cache directory.
pub fn cached(name: &str) -> Result<Option<PathBuf>> {
    let entry = kernels()?.join(name);
    Ok(entry.is_dir().then_some(entry))
}

/// The cache entry `name`; if it is not there, downloads and unpacks `packages` and lets `finish` complete the result
/// before it gets its final name. `finish` is told that name.
///
/// # Errors
/// Download, unpacking or `finish` failed; nothing is left behind then.
pub fn ensure(name: &str, packages: &[Package], finish: impl Fn(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
    if let Some(entry) = cached(name)? {
        return Ok(entry);
    }
    let entry = kernels()?.join(name);
    let temporary = tempfile::Builder::new().prefix(".partial-").tempdir_in(kernels()?)?;
    let debs = temporary.path().join("debs");
    let root = temporary.path().join("root");
    std::fs::create_dir(&debs)?;
    std::fs::create_dir(&root)?;
    {
        let specs: Vec<String> = packages.iter().map(Package::spec).collect();
        let _long = ui::long(format!("downloading {}", specs.join(" ")));
        process::capture(
            Command::new("apt-get")
                .args(["-o", "Acquire::Retries=3", "download"])
                .args(&specs)
                .current_dir(&debs),
        )?;
    }
    {
        let _long = ui::long(format!("unpacking {name}"));
        let mut count = 0;
        for deb in std::fs::read_dir(&debs)? {
            process::capture(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&root))?;
            count += 1;
        }
        if count != packages.len() {
            bail!("{} packages were asked for, {count} came", packages.len());
        }
    }
    finish(&root, &entry).with_context(|| format!("preparing {name}"))?;
    match std::fs::rename(&root, &entry) {
        Ok(()) => Ok(entry),
        // Another xtask was faster; its entry is as good.
        Err(_) if entry.is_dir() => Ok(entry),
        Err(error) => Err(error).with_context(|| format!("naming {}", entry.display())),
    }
}

/// Remembers which entry a stock kernel resolved to, for boxes that are off line later.
///
/// # Errors
/// The cache cannot be written.
pub fn remember(stock: &str, value: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(kernels()?)?;
    std::io::Write::write_all(&mut file, value.as_bytes())?;
    file.persist(kernels()?.join(format!("last-{stock}")))?;
    Ok(())
}

/// See [`remember`].
pub fn remembered(stock: &str) -> Option<String> {
    std::fs::read_to_string(kernels().ok()?.join(format!("last-{stock}"))).ok()
}

fn kernels() -> Result<PathBuf> {
    let dir = paths::cache()?.join("kernels");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}
