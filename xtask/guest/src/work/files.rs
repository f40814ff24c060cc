//! Locks of inodes, super blocks and pipes.

use super::{for_ever, in_turn, say, system};
use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, XattrFlags};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
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

/// What others may have done in the meantime is no failure.
fn raced<T>(result: io::Result<T>) -> Result<()> {
    match result {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => Err(error.into()),
        _ => Ok(()),
    }
}

/// All threads change, move and link files in a few directories, each with a file that all have open. No file goes away, so that what a
/// contended lock lies in is there when it is looked at.
pub fn tree(path: &str) -> Result<()> {
    const DIRECTORIES: usize = 5;
    const FILES: usize = 2;
    let mut shared: Vec<File> = Vec::new();
    for directory in 0..DIRECTORIES {
        fs::create_dir_all(format!("{path}/{directory}")).context("mkdir")?;
        for file in 0..FILES {
            fs::write(format!("{path}/{directory}/{file}"), [1; 512]).context("creating a file")?;
        }
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(format!("{path}/{directory}/shared"));
        shared.push(file.context("creating a file")?);
    }
    in_turn(|turn| {
        let at = turn.of(DIRECTORIES);
        let (here, there) = (
            format!("{path}/{at}"),
            format!("{path}/{}", (at + turn.thread) % DIRECTORIES),
        );
        // Another thread may have moved it: then there is nothing to do with it.
        let file = format!("{here}/{}", turn.thread % FILES);
        let (moved, link) = (
            format!("{there}/moved{}-{}", at, turn.thread),
            format!("{there}/link{}-{}", at, turn.thread),
        );
        raced(
            File::options()
                .write(true)
                .truncate(true)
                .open(&file)
                .and_then(|mut file| file.write_all(&[1; 512])),
        )
        .context("write")?;
        raced(fs::hard_link(&file, &link)).context("link")?;
        raced(fs::remove_file(&link)).context("unlink")?;
        if fs::rename(&file, &moved).is_ok() {
            fs::rename(&moved, &file).context("rename")?;
        }
        raced(fs::metadata(&file)).context("stat")?;
        let entries = fs::read_dir(&here).context("readdir")?;
        anyhow::ensure!(entries.count() > 0, "{here} is empty");
        let Some(mut shared) = shared.get(at) else {
            return Ok(());
        };
        shared.write_all(&[2; 256]).context("append")?;
        shared.rewind().context("lseek")?;
        shared.read_exact(&mut [0; 8]).or_else(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Ok(()),
            _ => Err(error),
        })?;
        rustix::fs::flock(shared, FlockOperation::LockExclusive).context("flock")?;
        rustix::fs::flock(shared, FlockOperation::Unlock).context("flock")?;
        // KERNEL: tmpfs has no attributes of users before 6.6.
        let _ = rustix::fs::fsetxattr(shared, "user.work", &[turn.thread as u8], XattrFlags::empty());
        if turn.every(16) {
            shared.set_len(0).context("truncate")?;
        }
        if turn.every(32) {
            shared.sync_data().context("fdatasync")?;
        }
        Ok(())
    })
}

/// Each thread mounts and unmounts a file system of its own, in a namespace that all are in.
pub fn mounts(path: &str) -> Result<()> {
    in_turn(|turn| {
        let at = format!("{path}/{}", turn.thread);
        fs::create_dir_all(&at).context("mkdir")?;
        system::mount_tmpfs(&at)?;
        fs::write(format!("{at}/file"), [0; 4096]).context("write")?;
        if turn.every(8) {
            rustix::fs::sync();
        }
        system::unmount(&at)
    })
}
