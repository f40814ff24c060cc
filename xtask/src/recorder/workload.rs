//! Contention on tmpfs: threads that create and remove directories next to each other, and a file whose lock is held for tens
//! of milliseconds at a time.

use anyhow::Result;
use std::fs::{self, File};
use std::io::{IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How hard they try.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Threads that create and remove directories.
    pub threads: usize,
    /// Between two bursts of so many directories; without rest they never stop.
    pub rest: Option<(u32, Duration)>,
    /// Also hold a file's lock for long, once in this time.
    pub hold_every: Option<Duration>,
}

/// What is written under one hold of the file's lock.
const PIECE: usize = 16 << 20;
const PIECES: usize = 8;

/// Runs `work` meanwhile. Result: its own, and how many directories were made.
pub fn during<T>(workload: Workload, directory: &Path, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let goes_on = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for thread in 0..workload.threads {
            let path = directory.join(thread.to_string());
            let (goes_on, made) = (&goes_on, &made);
            scope.spawn(move || {
                while goes_on() {
                    for _ in 0..workload.rest.map_or(1, |(burst, _)| burst) {
                        // What matters is the parent's lock; whether each call succeeds does not.
                        let _ = fs::create_dir(&path);
                        let _ = fs::remove_dir(&path);
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some((_, rest)) = workload.rest {
                        std::thread::sleep(rest);
                    }
                }
            });
        }
        if let Some(every) = workload.hold_every {
            let path = directory.join("held");
            let (held, goes_on) = (path.clone(), &goes_on);
            scope.spawn(move || hold(&held, every, goes_on));
            scope.spawn(move || {
                while goes_on() {
                    if let Ok(file) = File::options().write(true).open(&path) {
                        let _ = file.write_at(b"x", 0);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    })
    .map(|result| (result, made.load(Ordering::Relaxed)))
}

/// One write holds the inode's lock until all of it is copied (mm/filemap.c, `generic_file_write_iter`).
fn hold(path: &Path, every: Duration, goes_on: impl Fn() -> bool) {
    let piece = vec![1; PIECE];
    let pieces = [IoSlice::new(&piece); PIECES];
    while goes_on() {
        if let Ok(mut file) = File::options().write(true).create(true).truncate(false).open(path) {
            let _ = file.write_vectored(&pieces);
        }
        std::thread::sleep(every);
    }
}
