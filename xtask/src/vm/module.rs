//! Builds out-of-tree kernel modules: the fault module, and whatever a user brings.

use super::headers;
use super::kernels::Kernel;
use crate::{paths, process, ui};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module ready to be loaded.
#[derive(Debug, Clone)]
pub struct Module {
    /// File name, `NAME.ko`.
    pub file: String,
    pub content: Vec<u8>,
}

/// The fault module's source.
pub fn lockfault_source() -> PathBuf {
    paths::root().join("xtask/lockfault")
}

/// Builds the modules in `source` for `kernel`. The source directory stays as it is: the build happens in a copy.
///
/// # Errors
/// The compiler's or kbuild's own words; also if no `.ko` results.
pub fn build(source: &Path, kernel: &Kernel) -> Result<Vec<Module>> {
    let headers = headers::ensure(kernel)?;
    let source = source
        .canonicalize()
        .with_context(|| format!("module source {}", source.display()))?;
    let name = source
        .file_name()
        .context("the module's source has no name")?
        .to_string_lossy()
        .into_owned();
    let copy = paths::target().join("vm/modules").join(&kernel.release).join(name);
    mirror(&source, &copy)?;
    let _long = ui::long(format!(
        "building the modules of {} for {}",
        source.display(),
        kernel.release
    ));
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    process::capture(
        Command::new("make")
            .arg(format!("-j{jobs}"))
            .arg("-C")
            .arg(&headers)
            .arg(format!("M={}", copy.display()))
            // Headers that ship the kernel's BTF make kbuild ask for pahole; modules work without BTF of their own.
            .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
            .arg("modules"),
    )
    .with_context(|| format!("building the modules of {}", source.display()))?;
    let mut modules = Vec::new();
    for entry in std::fs::read_dir(&copy)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            modules.push(Module {
                file,
                // With its debug information: places in the source are looked up in it.
                content: std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?,
            });
        }
    }
    if modules.is_empty() {
        bail!("{} builds no .ko: does its Makefile set obj-m?", source.display());
    }
    modules.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(modules)
}

/// Content of an ELF file without its debugging information.
///
/// # Errors
/// `strip` (binutils) is missing or refuses the file.
pub fn stripped(path: &Path, option: &str) -> Result<Vec<u8>> {
    let output = tempfile::NamedTempFile::new()?;
    process::capture(Command::new("strip").arg(option).arg("-o").arg(output.path()).arg(path))?;
    Ok(std::fs::read(output.path())?)
}

/// Makes `copy` hold the same source files as `source`. Unchanged files keep their time stamps, so make skips them;
/// files that are gone from the source disappear, build products stay.
fn mirror(source: &Path, copy: &Path) -> Result<()> {
    std::fs::create_dir_all(copy)?;
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let to = copy.join(entry.file_name());
        if kind.is_dir() {
            mirror(&entry.path(), &to)?;
        } else if kind.is_file() && !is_product(&entry.path()) {
            let content = std::fs::read(entry.path())?;
            if std::fs::read(&to).ok().as_deref() != Some(&content) {
                std::fs::write(&to, content)?;
            }
        }
    }
    for entry in std::fs::read_dir(copy)? {
        let path = entry?.path();
        let is_source = path
            .extension()
            .is_some_and(|extension| extension == "c" || extension == "h")
            && !path.to_string_lossy().ends_with(".mod.c");
        if is_source && !source.join(path.file_name().unwrap_or_default()).exists() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_product(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".ko", ".o", ".mod", ".mod.c", ".cmd"]
        .iter()
        .any(|end| name.ends_with(end))
        || ["modules.order", "Module.symvers"].contains(&&*name)
}
