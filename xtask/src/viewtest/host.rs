//! On this box: real contention, seen in the view.

use super::tmux::Tmux;
use super::{Done, Screens};
use crate::{bench, build, recorder, ui};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const TMPFS: &str = "/dev/shm";
/// For anything to happen on a busy box.
const SOON: Duration = Duration::from_secs(20);
/// From the start to a screen with the kernel's name and figures on it. On a quiet box it takes less than one; the rest is
/// for a box that runs everything else at the same time.
const STARTED_WITHIN: Duration = Duration::from_secs(3);
const THREADS: usize = 8;
/// Name of the threads that contend, as the kernel shows it.
const THREAD: &str = bench::CONTENDER;

/// Threads that create and remove directories next to each other wait for their parent's lock; the view shows it with its
/// owner, and gives the terminal back.
pub fn contention(screens: &Screens) -> Result<Done> {
    if let Some(why) = recorder::impossible() {
        return Ok(Done::Skipped(why.to_owned()));
    }
    let holdup = build::host()?;
    let directory = tempfile::tempdir_in(TMPFS).with_context(|| format!("no tmpfs at {TMPFS}"))?;
    let inode = directory.path().metadata().context("the directory")?.ino();
    bench::contended(directory.path(), THREADS, || walk(&holdup, inode, screens))?;
    Ok(Done::Passed)
}

/// What of a name fits into the list's first column.
fn first_column(name: &str) -> &str {
    const WIDTH: usize = 30;
    name.get(..WIDTH).unwrap_or(name)
}

fn walk(holdup: &Path, inode: u64, screens: &Screens) -> Result<()> {
    let command = format!(
        "LANG=C.UTF-8 {} live; echo \"left with $?\"; stty -a; exec sleep 600",
        holdup.display()
    );
    let started = Instant::now();
    let terminal = Tmux::start(100, 30, &command)?;
    terminal.until_all(&["holdup · live", "LIVE", "ev/s", "1 Findings"], SOON)?;
    let took = started.elapsed();
    ui::step(format!("first useful screen after {:.2} s", took.as_secs_f32()));
    ensure!(took < STARTED_WITHIN, "the first useful screen took {took:?}");

    // The parent's lock among the contended ones, held by one of the threads: named after the inode where this kernel lets
    // holdup read objects, else after where it is taken.
    let names = [
        format!("inode.i_rwsem of inode {inode} (tmpfs"),
        "wanted at do_rmdir".to_owned(),
        "wanted at filename_create".to_owned(),
    ];
    terminal.keys(&["3"])?;
    let locks = terminal.until("a lock held by a thread of ours", SOON, |screen| {
        let mut rows = screen.lines().skip(4);
        let named = |row: &str| names.iter().any(|name| row.starts_with(first_column(name)));
        rows.any(|row| named(row) && row.contains(THREAD))
    })?;
    screens.keep("locks", &locks)?;
    terminal.keys(&["/", THREAD, "Enter"])?;
    terminal.until_all(&["filter: contender"], SOON)?;
    terminal.keys(&["Enter"])?;
    let lock = terminal.until_all(
        &["── rw_semaphore", "held by", "waits that ended", "how long they took"],
        SOON,
    )?;
    screens.keep("lock", &lock)?;
    ensure!(
        names
            .iter()
            .any(|name| lock.contains(&format!("── rw_semaphore {name}"))),
        "it is none of {names:?}:\n{lock}"
    );
    terminal.keys(&["Escape"])?;
    terminal.until_all(&["owner", "filter: contender"], SOON)?;

    terminal.keys(&["i"])?;
    let run = terminal.until_all(&["── this run", "events taken in", "tp_contention_begin"], SOON)?;
    screens.keep("run", &run)?;
    terminal.keys(&["?"])?;
    terminal.until_all(&["keys (any other key closes)"], SOON)?;
    terminal.keys(&["?", "Space"])?;
    terminal.until_all(&["PAUSED at"], SOON)?;
    terminal.keys(&["Space"])?;
    terminal.until_all(&["LIVE"], SOON)?;

    let file = screens.file("snapshot.json")?;
    let name = file.to_str().context("a path that is no text")?;
    terminal.keys(&["W", "C-u", name, "Enter"])?;
    terminal.until_all(&["snapshot saved to"], SOON)?;
    let snapshot: Value = serde_json::from_slice(&std::fs::read(&file)?).context("the snapshot is no JSON")?;
    ensure!(
        snapshot["source"]["mode"] == "snapshot",
        "it is something else: {snapshot}"
    );

    terminal.keys(&["q"])?;
    let left = terminal.until_all(&["left with 0", "icanon"], SOON)?;
    ensure!(
        !left.contains("-icanon") && !left.contains("-echo "),
        "the terminal is not as it was:\n{left}"
    );
    Ok(())
}
