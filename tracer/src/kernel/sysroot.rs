//! Where `/proc` and `/sys` are: the real ones, or a tree that a test made.

use std::{fs, io, path::PathBuf};

/// The directory below which `proc` and `sys` lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysroot {
    base: PathBuf,
}

impl Sysroot {
    /// The running system.
    pub fn host() -> Self {
        Self::at("/")
    }

    /// A tree of one's own.
    pub fn at(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The place of an absolute path in this tree.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.base.join(absolute.trim_start_matches('/'))
    }

    /// A small text file, without white space at its ends; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn text(&self, absolute: &str) -> io::Result<String> {
        let bytes = fs::read(self.path(absolute))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Whether something is there.
    pub fn exists(&self, absolute: &str) -> bool {
        fs::symlink_metadata(self.path(absolute)).is_ok()
    }

    /// What a symbolic link says, whether or not that exists.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn link(&self, absolute: &str) -> io::Result<PathBuf> {
        fs::read_link(self.path(absolute))
    }
}
