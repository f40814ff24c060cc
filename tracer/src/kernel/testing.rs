//! A tree of files that looks like `/proc` and `/sys`, gone when dropped.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::sysroot::Sysroot;

pub(crate) struct Tree {
    base: PathBuf,
}

impl Tree {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("holdup-tree-{}-{number}", std::process::id()));
        fs::create_dir_all(&base).expect("a temporary directory");
        Self { base }
    }

    pub(crate) fn root(&self) -> Sysroot {
        Sysroot::at(&self.base)
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.place(path), content).expect("a file in the temporary directory");
        self
    }

    pub(crate) fn link(&self, path: &str, to: &str) -> &Self {
        symlink(to, self.place(path)).expect("a link in the temporary directory");
        self
    }

    pub(crate) fn remove(&self, path: &str) -> &Self {
        fs::remove_file(self.place(path)).expect("it was there");
        self
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.root().path(path);
        fs::create_dir_all(place.parent().expect("not the root")).expect("a directory");
        place
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}
