//! Files that come back from the guest.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use xtask_guest::message::FileHead;

/// Writes the guest's files below one directory of the host.
#[derive(Debug)]
pub struct Returned {
    directory: PathBuf,
    current: Option<Incoming>,
    /// Complete files, relative to the directory.
    pub complete: Vec<PathBuf>,
    /// What did not arrive whole.
    pub broken: Vec<String>,
}

#[derive(Debug)]
struct Incoming {
    path: PathBuf,
    file: File,
    missing: u64,
}

impl Returned {
    /// Will write below `directory`, which is made with the first file.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            current: None,
            complete: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// A file begins.
    ///
    /// # Errors
    /// A path that leads out of the directory, or a disk that cannot take it.
    pub fn begin(&mut self, head: &FileHead) -> Result<()> {
        self.end();
        let path = inside(&head.path)?;
        let target = self.directory.join(&path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let file = File::create(&target).with_context(|| format!("creating {}", target.display()))?;
        self.current = Some(Incoming {
            path,
            file,
            missing: head.size,
        });
        Ok(())
    }

    /// Bytes of the file that was begun.
    ///
    /// # Errors
    /// None was begun, more come than were announced, or the disk is full.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(current) = &mut self.current else {
            bail!("the guest sends file data without a file")
        };
        let Some(missing) = current.missing.checked_sub(bytes.len() as u64) else {
            bail!("the guest sends more of {} than it announced", current.path.display());
        };
        current.missing = missing;
        current
            .file
            .write_all(bytes)
            .with_context(|| format!("writing {}", current.path.display()))
    }

    /// No more bytes will come.
    pub fn end(&mut self) {
        let Some(Incoming { path, file: _, missing }) = self.current.take() else {
            return;
        };
        if missing == 0 {
            self.complete.push(path);
        } else {
            self.broken
                .push(format!("{} lacks its last {missing} bytes", path.display()));
        }
    }
}

/// The guest is not to be trusted with paths.
fn inside(path: &str) -> Result<PathBuf> {
    let plain = Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if path.is_empty() || !plain {
        bail!("the guest sends a file with the path \"{path}\"");
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str, size: u64) -> FileHead {
        FileHead {
            path: path.into(),
            size,
        }
    }

    #[test]
    fn files_arrive_whole_or_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Returned::new(directory.path().to_owned());
        files.begin(&head("a/b.bin", 4)).unwrap();
        files.data(&[0, 255]).unwrap();
        files.data(&[1, 2]).unwrap();
        assert!(files.data(&[3]).is_err(), "more than announced");
        files.begin(&head("empty", 0)).unwrap();
        files.begin(&head("short", 9)).unwrap();
        files.data(b"abc").unwrap();
        files.end();
        assert_eq!(std::fs::read(directory.path().join("a/b.bin")).unwrap(), [0, 255, 1, 2]);
        assert_eq!(files.complete, [PathBuf::from("a/b.bin"), PathBuf::from("empty")]);
        assert_eq!(files.broken, ["short lacks its last 6 bytes"]);
        assert!(files.data(b"x").is_err(), "no file");
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "./a", "a/.."] {
            let result = inside(path);
            assert!(result.is_err(), "{path:?} gave {result:?}");
        }
        assert_eq!(inside("a/b").unwrap(), PathBuf::from("a/b"));
    }
}
