//! The files of a recording: created for nobody else's eyes, rotated, cut back to whole frames when the disk is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Output, SinkError};

/// Captures name processes, locks and addresses.
const OWNER_ONLY: u32 = 0o600;

/// Where frames are written.
pub enum Files {
    /// Standard output.
    Stdout(io::Stdout),
    /// Files, the newest one open.
    Disk(Rotated),
}

/// The files of one recording.
pub struct Rotated {
    path: PathBuf,
    keep: u32,
    file: File,
    /// No regular file: not cut, not synchronised, not renamed.
    special: bool,
    /// Bytes of whole frames.
    whole: u64,
    begun: bool,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> SinkError {
    let what = format!("{what} {}", path.display());
    move |source| SinkError {
        what,
        source: Some(source),
    }
}

impl Files {
    /// Creates the first file.
    pub fn create(output: &Output) -> Result<Self, SinkError> {
        let Output::Files { path, keep, overwrite } = output else {
            return Ok(Self::Stdout(io::stdout()));
        };
        let special = fs::metadata(path).is_ok_and(|meta| {
            let kind = meta.file_type();
            kind.is_block_device() || kind.is_char_device() || kind.is_fifo()
        });
        let file = if special {
            OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(failed("opening", path))?
        } else {
            let old: Vec<PathBuf> = older(path, *keep).filter(|old| old.exists()).collect();
            if let Some(old) = old.first().filter(|_| !overwrite) {
                return Err(exists(old));
            }
            if *overwrite {
                for old in old.iter().chain([path]) {
                    match fs::remove_file(old) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(failed("replacing", old)(error));
                        }
                        _ => {}
                    }
                }
            }
            new_file(path)?
        };
        Ok(Self::Disk(Rotated {
            path: path.clone(),
            keep: *keep,
            file,
            special,
            whole: 0,
            begun: false,
        }))
    }

    /// Starts the next file, or the first one that was created, with its header.
    pub fn next(&mut self, header: &[u8]) -> Result<(), SinkError> {
        if let Self::Disk(files) = self {
            files.rotate()?;
        }
        self.append(header)
    }

    /// Appends a frame.
    pub fn append(&mut self, frame: &[u8]) -> Result<(), SinkError> {
        match self {
            Self::Stdout(out) => out
                .write_all(frame)
                .and_then(|()| out.flush())
                .map_err(|source| SinkError {
                    what: "writing the capture to stdout".to_owned(),
                    source: Some(source),
                }),
            Self::Disk(files) => files.append(frame),
        }
    }

    /// Makes sure that what was written survives a power cut.
    pub fn sync(&mut self) -> Result<(), SinkError> {
        match self {
            Self::Disk(files) if !files.special => files.file.sync_data().map_err(failed("synchronising", &files.path)),
            _ => Ok(()),
        }
    }
}

impl Rotated {
    fn append(&mut self, frame: &[u8]) -> Result<(), SinkError> {
        if let Err(source) = self.file.write_all(frame) {
            if !self.special {
                // A half frame is skipped by readers, too; without it the file is simply shorter.
                let _ = self.file.set_len(self.whole);
            }
            let what = format!(
                "writing {}: the recording ends here; the {} bytes before can be read",
                self.path.display(),
                self.whole
            );
            return Err(SinkError {
                what,
                source: Some(source),
            });
        }
        self.whole += frame.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), SinkError> {
        if self.special || !std::mem::replace(&mut self.begun, true) {
            return sync_directory(&self.path);
        }
        self.file.sync_data().map_err(failed("synchronising", &self.path))?;
        let names: Vec<PathBuf> = [self.path.clone()]
            .into_iter()
            .chain(older(&self.path, self.keep))
            .collect();
        for pair in names.windows(2).rev() {
            let [from, to] = pair else { continue };
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("renaming", from)(error)),
                _ => {}
            }
        }
        if self.keep == 0 {
            fs::remove_file(&self.path).map_err(failed("replacing", &self.path))?;
        }
        (self.file, self.whole) = (new_file(&self.path)?, 0);
        sync_directory(&self.path)
    }
}

/// `PATH.1` to `PATH.KEEP`.
fn older(path: &Path, keep: u32) -> impl Iterator<Item = PathBuf> {
    (1..=keep).map(move |n| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        name.into()
    })
}

fn new_file(path: &Path) -> Result<File, SinkError> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => failed("creating", path)(error),
    })
}

fn exists(path: &Path) -> SinkError {
    let what = format!(
        "{} is there already: choose another name, or replace it with --overwrite",
        path.display()
    );
    SinkError { what, source: None }
}

/// A file whose name is lost in a power cut is lost itself.
fn sync_directory(path: &Path) -> Result<(), SinkError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Some file systems cannot synchronise a directory; the file's own contents are synchronised in any case.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}
