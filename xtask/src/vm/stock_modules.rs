//! The kernel's own modules, with what they depend on.

use super::kernels::Kernel;
use super::module::Module;
use crate::setup::{self, Part};
use crate::{process, ui};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;

/// The modules `names` of `kernel` in loading order, dependencies first, none twice. What is built into the kernel is
/// there without loading.
///
/// # Errors
/// A kernel of the user's own without modules, an unknown name, or a compressed module that cannot be unpacked.
pub fn collect(kernel: &Kernel, names: &[String]) -> Result<Vec<Module>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let Some(root) = &kernel.modules else {
        bail!(
            "{} comes without its modules, so {} cannot be loaded",
            kernel.name,
            names.join(", ")
        );
    };
    let directory = root.join("lib/modules").join(&kernel.release);
    let index = directory.join("modules.dep");
    if !index.exists() {
        // The package makes it when it is installed, which it never is here.
        setup::ensure(&[Part::Modules])?;
        let depmod = process::which("depmod").unwrap_or_else(|| "/usr/sbin/depmod".into());
        process::capture(Command::new(depmod).arg("-b").arg(root).arg(&kernel.release))?;
    }
    let index = std::fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    let builtin = std::fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    let mut modules = Vec::new();
    for path in resolve(&index, &builtin, names).with_context(|| format!("modules of {}", kernel.release))? {
        modules.push(load(&directory, &path)?);
    }
    Ok(modules)
}

/// Paths in loading order, from the text of `modules.dep` and `modules.builtin`.
fn resolve(index: &str, builtin: &str, names: &[String]) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in names {
        let wanted = plain(name);
        if builtin.lines().any(|path| plain(path) == wanted) {
            ui::step(format!("{name} is built into the kernel"));
            continue;
        }
        let (path, dependencies) = index
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| plain(path) == wanted)
            .with_context(|| format!("there is no module {name}"))?;
        // depmod lists the nearest dependency first.
        for path in dependencies.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// A module's name as the kernel compares it.
fn plain(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn load(directory: &Path, path: &str) -> Result<Module> {
    let source = directory.join(path);
    let file = format!("{}.ko", plain(path));
    let content = if path.ends_with(".xz") {
        let output = Command::new("xz")
            .arg("-dc")
            .arg(&source)
            .output()
            .context("starting xz")?;
        if !output.status.success() {
            bail!("xz cannot unpack {}", source.display());
        }
        output.stdout
    } else {
        std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?
    };
    Ok(Module { file, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
        kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\n\
        kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio.ko:\n";

    fn order(names: &[&str]) -> Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        resolve(INDEX, "kernel/drivers/virtio/virtio_pci.ko\n", &names)
    }

    #[test]
    fn dependencies_come_first_and_once() {
        assert_eq!(
            order(&["jbd2", "ext4", "virtio-pci", "virtio-blk"]).unwrap(),
            [
                "kernel/fs/jbd2/jbd2.ko.xz",
                "kernel/lib/crc16.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/block/virtio_blk.ko",
            ]
        );
        assert!(order(&["ext"]).unwrap_err().to_string().contains("no module ext"));
        assert_eq!(plain("kernel/a/b-c.ko.xz"), "b_c");
    }
}
