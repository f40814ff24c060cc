//! Brings the files of `/out` back.

use crate::channel::Channel;
use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use xtask_guest::frame::MAX_PAYLOAD;
use xtask_guest::message::{FileHead, Message};
use xtask_guest::plan::OUT_DIR;

/// Sends every regular file below `/out`, in path order. What cannot be read is noted.
pub fn send_all(channel: &Channel) {
    let mut pending = vec![PathBuf::from(OUT_DIR)];
    let mut files = Vec::new();
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => channel.note(format!("{} is no regular file and stays", entry.path().display())),
            }
        }
    }
    files.sort();
    for file in files {
        if let Err(error) = send(channel, &file) {
            channel.note(format!("{} did not come back: {error:#}", file.display()));
        }
    }
}

fn send(channel: &Channel, file: &Path) -> Result<()> {
    let relative = file
        .strip_prefix(OUT_DIR)?
        .to_str()
        .context("its name is not UTF-8")?
        .to_owned();
    let reader = std::fs::File::open(file)?;
    let size = reader.metadata()?.len();
    channel.send(&Message::File(FileHead { path: relative, size }));
    // A file that grows meanwhile is cut at the size announced; one that shrinks is noticed by the host.
    let mut limited = reader.take(size);
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match limited.read(&mut buffer)? {
            0 => return Ok(()),
            count => channel.send(&Message::FileData(buffer.get(..count).unwrap_or_default().to_vec())),
        }
    }
}
