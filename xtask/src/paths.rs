//! Where things lie.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where downloads are kept: `HOLDUP_CACHE`, else `$XDG_CACHE_HOME/holdup`, else `~/.cache/holdup`.
///
/// # Errors
/// None of the three variables is set, or the directory cannot be made.
pub fn cache() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let dir = set("HOLDUP_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("holdup")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/holdup")))
        .context("no place for downloads: set HOLDUP_CACHE (or HOME)")?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make the cache directory {}", dir.display()))?;
    Ok(dir)
}
