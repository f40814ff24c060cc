//! The guest's whole file system.

use super::cpio::Archive;
use super::module::{self, Module};
use crate::process;
use anyhow::{Context as _, Result};
use std::path::Path;
use xtask_guest::plan::{PLAN_PATH, Plan};

/// Directory of the kernel modules in the guest.
const MODULES: &str = "modules";
/// Where a user's script lies in the guest.
pub const SCRIPT: &str = "/script.sh";

/// What goes in besides directories and device nodes.
#[derive(Debug)]
pub struct Content<'a> {
    /// The binary of `xtask-guest`, PID 1.
    pub init: &'a Path,
    /// `holdup`, if the plan needs it.
    pub holdup: Option<&'a Path>,
    /// Modules, in loading order.
    pub modules: &'a [Module],
    /// A user's script.
    pub script: Option<&'a [u8]>,
}

/// Path of a module in the guest.
pub fn module_path(module: &Module) -> String {
    format!("/{MODULES}/{}", module.file)
}

/// Builds the archive.
///
/// # Errors
/// A file that cannot be read, no busybox, or no `strip`.
pub fn build(content: &Content<'_>, plan: &Plan) -> Result<Vec<u8>> {
    let Content {
        init,
        holdup,
        modules,
        script,
    } = content;
    let mut archive = Archive::new();
    for directory in [
        "bin", "sbin", "dev", "etc", "proc", "sys", "tmp", "run", "root", "out", "usr", "usr/bin", "usr/sbin",
    ] {
        archive.directory(directory);
    }
    archive.directory(MODULES);
    // PID 1's own words go here until it has its channel.
    archive.character_device("dev/console", 5, 1);
    // Its first children need it before devtmpfs is mounted.
    archive.character_device("dev/null", 1, 3);
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    // With its symbols: its functions are looked for in stacks.
    archive.file("init", 0o755, &module::stripped(init, "--strip-debug")?);
    let busybox = process::which("busybox").context("busybox is not on the search path")?;
    archive.file("bin/busybox", 0o755, &std::fs::read(busybox)?);
    if let Some(holdup) = holdup {
        // The BPF object inside is data to strip and stays whole.
        archive.file("bin/holdup", 0o755, &module::stripped(holdup, "--strip-all")?);
    }
    for module in *modules {
        archive.file(module_path(module).trim_start_matches('/'), 0o644, &module.content);
    }
    if let Some(script) = script {
        archive.file(SCRIPT.trim_start_matches('/'), 0o755, script);
    }
    archive.file(
        PLAN_PATH.trim_start_matches('/'),
        0o644,
        &serde_json::to_vec_pretty(plan)?,
    );
    Ok(archive.finish())
}
