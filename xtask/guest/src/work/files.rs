//! Locks of inodes, super blocks and pipes.

use super::{for_ever, say, system};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

/// Device and inode, as `stat` has them.
fn identity(path: &str) -> Result<String> {
    let stat = fs::metadata(path).with_context(|| path.to_owned())?;
    let (major, minor) = (libc::major(stat.dev()), libc::minor(stat.dev()));
    Ok(format!("inode {} device {major}:{minor}", stat.ino()))
}

/// All threads make and remove directories in one directory.
pub fn directories(path: &str) -> Result<()> {
    fs::create_dir_all(path).with_context(|| path.to_owned())?;
    say(&identity(path)?)?;
    for_ever(|thread| {
        let name = format!("{path}/{thread}");
        fs::create_dir(&name).context("mkdir")?;
        fs::remove_dir(&name).context("rmdir")
    })
}

/// All threads remount one file system, of which they also flush everything.
pub fn super_block(path: &str) -> Result<()> {
    say(&identity(path)?)?;
    for_ever(|_| system::remount(path))
}

/// All threads but one write to one pipe.
pub fn pipe() -> Result<()> {
    let (mut reader, writer) = std::io::pipe().context("pipe")?;
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let result = for_ever(|_| {
        (&writer).write_all(&[1; 64]).context("writing to the pipe")?;
        Ok(())
    });
    drop(writer);
    let _ = drain.join();
    result
}
