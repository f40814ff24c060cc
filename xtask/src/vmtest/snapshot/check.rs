//! What snapshots say, compared with what the fault module says.

use crate::vmtest::GuestRun;
use crate::vmtest::verdict::report;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// Readers that queue in the pile-up.
pub const READERS: usize = 1500;
/// A snapshot keeps no more than this; see docs/SNAPSHOT.md.
const MOST_MB: f64 = 256.0;

/// The report of a snapshot. What live may lose in a storm of events, a snapshot must not: there are none.
pub fn whole(run: &GuestRun, label: &str) -> Result<Value> {
    let report = report(run, label)?;
    let losses = &report["losses"];
    ensure!(
        losses.as_array().is_some_and(Vec::is_empty),
        "something was lost: {losses}"
    );
    Ok(report)
}

/// Thread id, kind of the lock, mode and place of everybody who waits for a lock.
pub fn waiters_of(report: &Value, lock: &str) -> BTreeSet<(u64, String, String, Option<u64>)> {
    let rows = report["tasks"].as_array().into_iter().flatten();
    rows.filter(|row| row["wait"]["lock"]["address"] == lock)
        .filter_map(|row| {
            let wait = &row["wait"];
            let text = |value: &Value| value.as_str().map(str::to_owned);
            Some((
                row["tid"].as_u64()?,
                text(&wait["lock"]["kind"])?,
                text(&wait["mode"])?,
                wait["place"].as_u64(),
            ))
        })
        .collect()
}

/// The call site of everybody who waits for the lock, and the first frame of their stacks that is not machinery, are this function.
pub fn called_from(report: &Value, lock: &str, site: &str) -> Result<()> {
    let rows = report["tasks"].as_array().into_iter().flatten();
    for row in rows.filter(|row| row["wait"]["lock"]["address"] == lock) {
        ensure!(row["site"] == site, "the call site is not {site}: {row:#}");
        let stack = row["stack"].as_str().context("no stack")?;
        let frames = report["stacks"][stack]
            .as_array()
            .with_context(|| format!("stack {stack} is not told"))?;
        let caller = frames.iter().find(|frame| frame["machinery"] == false);
        ensure!(
            caller.is_some_and(|frame| frame["symbol"] == site && frame["module"] == "lockfault"),
            "{site} is not the caller in {frames:#?}"
        );
    }
    Ok(())
}

/// Threads and megabytes kept, of each look at all threads.
fn looks(stderr: &str) -> Result<Vec<(usize, f64)>> {
    let lines = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("holdup: looked at "));
    lines
        .map(|line| {
            let threads = line.split(' ').next().context("no number of threads")?;
            let kept = line.rsplit_once("kept ").and_then(|(_, kept)| kept.strip_suffix(" MB"));
            Ok((threads.parse()?, kept.context("no memory")?.parse()?))
        })
        .collect()
}

/// The reader that left with the key: the one holder, the writer first in the queue, every reader behind it.
pub fn pile_up(run: &GuestRun) -> Result<()> {
    run.output("pile")?.exited_with(4)?;
    let (report, truth) = (whole(run, "pile")?, run.truth("pile-truth")?);
    let looks = looks(&run.output("pile")?.stderr())?;
    let [.., (first, a), (second, b)] = looks.as_slice() else {
        bail!("it does not say what it cost: {}", run.output("pile")?.shown());
    };
    ensure!(
        *first.min(second) > READERS && (0.1..=MOST_MB).contains(a) && (0.1..=MOST_MB).contains(b),
        "looked at {first} and {second} threads, kept {a} and {b} MB"
    );
    let lock = format!("{:#018x}", truth.lock("heap.reader_io.sem")?);
    let holder = truth.task("rwsem-reader-io", "holder")?;
    let writer = u64::from(truth.task("rwsem-reader-io", "writer")?);
    let readers: BTreeSet<u64> = truth
        .tasks("rwsem-reader-io", "reader")
        .into_iter()
        .map(u64::from)
        .collect();
    ensure!(readers.len() == READERS, "{} readers", readers.len());
    let findings = || {
        let all = report["findings"].as_array().into_iter().flatten();
        all.filter(|finding| finding["locks"][0]["address"] == *lock)
    };
    let root = findings()
        .find(|f| f["kind"] == "root-blocker")
        .context("no root blocker")?;
    ensure!(
        root["certainty"] == "likely" && root["severity"] == "warning" && root["tasks"][0]["tid"] == holder,
        "{root:#}"
    );
    let title = root["title"].as_str().unwrap_or_default();
    ensure!(
        title.contains("for reading and is asleep in block I/O; 1501 tasks wait behind it"),
        "{title}"
    );
    ensure!(root["victims"]["count"] == READERS + 1, "{root:#}");
    ensure!(root["tasks"][0]["site"] == "lockfault_fake_block_io", "{root:#}");
    let pile = findings()
        .find(|f| f["kind"] == "reader-pile-up")
        .context("no pile-up")?;
    ensure!(pile["tasks"][0]["tid"] == writer, "{pile:#}");
    ensure!(findings().count() == 2, "more findings than are true");
    let waiters = waiters_of(&report, &lock);
    let mut places: Vec<(u64, u64, bool)> = waiters
        .iter()
        .filter_map(|(tid, kind, mode, place)| (kind == "rwsem").then_some((*place.as_ref()?, *tid, mode == "shared")))
        .collect();
    places.sort_unstable();
    ensure!(
        places.len() == READERS + 1,
        "{} of the waiters are told with their place",
        places.len()
    );
    ensure!(
        places.iter().map(|(place, ..)| *place).eq(0..=READERS as u64),
        "places are missing"
    );
    ensure!(
        places.first() == Some(&(0, writer, false)),
        "the writer is not the first"
    );
    let behind: BTreeSet<u64> = places
        .iter()
        .skip(1)
        .filter(|(.., shared)| *shared)
        .map(|(_, tid, _)| *tid)
        .collect();
    ensure!(behind == readers, "others than the readers stand behind it");
    run.output("pile-text")?.stdout_has("1500 tasks wait at least")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_cost_is_read() {
        let line = "holdup: looked at 1631 threads in 350.2 ms (in the kernel 63.6 ms), kept 2.0 MB\n";
        assert_eq!(looks(&format!("other\n{line}{line}")).unwrap(), [(1631, 2.0); 2]);
        assert!(looks("holdup: looked at 1631 threads\n").is_err());
    }
}
