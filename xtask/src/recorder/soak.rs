//! A long recording in the default mode with rotation: memory stays flat, files rotate, nothing is lost uncounted.

use super::workload::{Workload, during};
use super::{Recorder, Usage, number_before};
use crate::{build, paths, ui};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const TMPFS: &str = "/dev/shm";
const MAX_SIZE: u64 = 64 << 10;
const KEEP: usize = 3;
/// A file ends with the block that makes it as large as it may be, and an index behind it.
const MOST: u64 = MAX_SIZE + (128 << 10);
/// Growth of the resident memory over the last three quarters of the time that is no growth.
const FLAT: u64 = 2 << 10;
/// Waits that may have been open when a file began.
const REPEATED: usize = 50;
/// What is printed on the way.
const TELL_EVERY: Duration = Duration::from_secs(300);

/// For files to fill up where there is little contention.
const FULL_WITHIN: Duration = Duration::from_secs(180);

/// Records for so long, and until a file had to go for a newer one; prints what it took. The threads contend in bursts, or
/// without rest.
///
/// # Errors
/// What was not as it must be.
pub fn run(length: Duration, arguments: &[&str], rest: bool) -> Result<()> {
    let holdup = build::host()?;
    let directory = paths::target().join(format!("record/{}", length.as_secs()));
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let capture = directory.join("c.holdup");
    let name = capture.to_str().context("a path that is no text")?;
    let (size, keep) = (MAX_SIZE.to_string(), KEEP.to_string());
    let fixed = ["-o", name, "--max-size", &size, "--keep", &keep, "--json", "--tuples"];
    let tmpfs = tempfile::tempdir_in(TMPFS).with_context(|| format!("no tmpfs at {TMPFS}"))?;
    let workload = Workload {
        threads: 3,
        rest: rest.then_some((50, Duration::from_millis(20))),
        hold_every: Some(Duration::from_millis(500)),
    };
    let ((usage, took, stdout, stderr), made) = during(workload, tmpfs.path(), || {
        let recorder = Recorder::start(&holdup, &directory, &[&fixed, arguments].concat())?;
        let started = Instant::now();
        let oldest = directory.join(format!("c.holdup.{KEEP}"));
        let mut usage = sample(&recorder, length)?;
        let full = Instant::now() + FULL_WITHIN;
        while !oldest.exists() && Instant::now() < full {
            usage.extend(sample(&recorder, Duration::from_secs(1))?);
        }
        let took = started.elapsed().as_secs_f64();
        let (stdout, stderr) = recorder.end()?;
        Ok((usage, took, stdout, stderr))
    })?;
    let files = files(&directory)?;
    let recorded = number_before(&stderr, " events,").with_context(|| format!("no count of events: {stderr}"))?;
    let parts = number_before(&stderr, " files:").with_context(|| format!("there was no rotation: {stderr}"))?;
    let last = usage.last().context("it was too short")?;
    println!(
        "{took:.0} s, {made} directories: {recorded} events in {parts} files, {} kept with {} bytes; {:.2} s of CPU ({:.2} %); \
         memory {} to {} KiB, {} after a quarter of the time",
        files.len(),
        files.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        last.cpu,
        last.cpu / took * 100.0,
        usage.iter().map(|u| u.resident).min().unwrap_or(0),
        most(&usage),
        most(usage.get(..usage.len() / 4).unwrap_or_default()),
    );
    flat(&usage)?;
    rotated(&files, parts)?;
    told_and_kept(&holdup, &files, &stdout, recorded, &stderr)
}

fn sample(recorder: &Recorder, length: Duration) -> Result<Vec<Usage>> {
    let (started, mut told) = (Instant::now(), Duration::ZERO);
    let mut usage = Vec::new();
    while started.elapsed() < length {
        std::thread::sleep(Duration::from_millis(500).min(length));
        usage.push(recorder.usage()?);
        if started.elapsed() > told + TELL_EVERY
            && let Some(now) = usage.last()
        {
            told = started.elapsed();
            ui::step(format!("{:.0} s: {now:?}", told.as_secs_f64()));
        }
    }
    Ok(usage)
}

fn most(usage: &[Usage]) -> u64 {
    usage.iter().map(|u| u.resident).max().unwrap_or(0)
}

fn flat(usage: &[Usage]) -> Result<()> {
    let (first, rest) = usage.split_at(usage.len() / 4);
    ensure!(
        most(rest) <= most(first) + FLAT,
        "memory grew from {} to {} KiB: {usage:?}",
        most(first),
        most(rest)
    );
    Ok(())
}

/// The capture's files with their sizes, the oldest first.
fn files(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for number in (0..100).rev() {
        let name = if number == 0 {
            "c.holdup".to_owned()
        } else {
            format!("c.holdup.{number}")
        };
        let path = directory.join(name);
        if let Ok(meta) = fs::metadata(&path) {
            ensure!(
                meta.permissions().mode() & 0o777 == 0o600,
                "{} is not for its owner only",
                path.display()
            );
            files.push((path, meta.len()));
        }
    }
    Ok(files)
}

fn rotated(files: &[(PathBuf, u64)], parts: u64) -> Result<()> {
    let expected = (KEEP + 1).min(usize::try_from(parts)?);
    ensure!(
        files.len() == expected,
        "{} files are kept of {parts}: {files:?}",
        files.len()
    );
    let Some((_, older)) = files.split_last() else {
        return Ok(());
    };
    ensure!(
        older.iter().all(|(_, bytes)| (MAX_SIZE..MOST).contains(bytes)),
        "files end too early or too late: {files:?}"
    );
    Ok(())
}

/// Every wait that was shown since the oldest file began is in the files, in the same order, and every event is there or
/// counted as lost.
fn told_and_kept(holdup: &Path, files: &[(PathBuf, u64)], stdout: &str, recorded: u64, stderr: &str) -> Result<()> {
    let output = Command::new(holdup)
        .args(["replay", "--json", "--tuples"])
        .args(files.iter().map(|(path, _)| path))
        .output()
        .context("starting the replay")?;
    let damage = String::from_utf8_lossy(&output.stderr);
    ensure!(
        matches!(output.status.code(), Some(0 | 3 | 4)) && damage.is_empty(),
        "the replay failed ({}): {damage}",
        output.status
    );
    let (live, live_report) = split(stdout)?;
    let replayed = String::from_utf8_lossy(&output.stdout);
    let (replay, replay_report) = split(&replayed)?;
    let taken = &live_report["totals"]["events"];
    ensure!(
        taken.as_u64() == Some(recorded),
        "the model took {taken} events, the capture {recorded}"
    );
    let (live_lost, replay_lost) = (&live_report["losses"], &replay_report["losses"]);
    ensure!(
        live_lost == replay_lost || stderr.contains("are not in the capture"),
        "live lost {live_lost}, the replay tells of {replay_lost}"
    );
    // The oldest file begins with the waits that were open then: they come a second time.
    let same = live
        .iter()
        .rev()
        .zip(replay.iter().rev())
        .take_while(|(live, replay)| live == replay);
    let same = same.count();
    ensure!(
        same > 100 && replay.len() - same <= REPEATED,
        "of {} replayed lines only the last {same} are those that were shown: {:?}",
        replay.len(),
        replay.iter().rev().nth(same)
    );
    ui::step(format!(
        "the last {same} of {} lines are in the kept files; losses: {live_lost}",
        live.len()
    ));
    Ok(())
}

/// The waits of a stream, and the report at its end.
fn split(text: &str) -> Result<(Vec<&str>, Value)> {
    let report = text.lines().last().context("nothing was printed")?;
    let report: Value = serde_json::from_str(report).with_context(|| format!("no JSON: {report}"))?;
    ensure!(report["type"] == "report", "the last line is no report: {report}");
    let waits = text.lines().filter(|line| line.contains("\"type\":\"tuple\""));
    Ok((waits.collect(), report))
}
