//! Holders of watched locks that sleep: proven, because their acquisition was seen, with the place where it happened.

use super::super::findings::told;
use super::super::{GuestRun, Steps};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// A holder that does not let go.
struct Case {
    scenario: &'static str,
    comm: &'static str,
    lock: &'static str,
    kind: &'static str,
    /// As findings call the kind.
    words: &'static str,
    mode: &'static str,
    site: &'static str,
    waiters: usize,
}

const CASES: &[Case] = &[
    Case {
        scenario: "holder-asleep",
        comm: "lf_asl_holder",
        lock: "lockfault_asleep_mutex",
        kind: "mutex",
        words: "mutex",
        mode: "exclusive",
        site: "lockfault_asleep_holder",
        waiters: 8,
    },
    // Nothing in the lock itself says who reads.
    Case {
        scenario: "rwsem-reader-io",
        comm: "lf_io_holder",
        lock: "heap.reader_io.sem",
        kind: "rwsem",
        words: "rw_semaphore",
        mode: "shared",
        site: "lockfault_reader_io_fault",
        waiters: 4,
    },
];

/// Ends when both holders are told as proven, or with the scenarios.
const HELD: &str = "rm -f /tmp/said /tmp/told
for lock in mutex:lockfault_asleep_mutex rwsem:heap.reader_io.sem; do
  address=$(awk -v name=${lock#*:} '$2 == name {print $3}' /proc/lockfault)
  watch=\"$watch --watch ${lock%:*}:$address\"
done
holdup live --json $watch > /tmp/told 2> /tmp/said &
until grep -qs '^holdup: attached' /tmp/said; do sleep 0.1; kill -0 $! || { cat /tmp/said >&2; exit 1; }; done
echo 'holder-asleep ms=20000' > /proc/lockfault
echo 'rwsem-reader-io ms=20000 readers=3' > /proc/lockfault
over() { grep -qE \"state $1 (done|failed)\" /proc/lockfault; }
proven() { grep root-blocker /tmp/told | grep proven | grep -q $1; }
until proven lf_asl_holder && proven lf_io_holder; do
  over holder-asleep && over rwsem-reader-io && break
  sleep 0.2
done
kill -INT $!
wait $!
code=$?
cat /tmp/told
cat /tmp/said >&2
until over holder-asleep && over rwsem-reader-io; do sleep 0.2; done
exit $code";

pub fn steps(steps: &mut Steps) {
    steps.limit(Duration::from_secs(180));
    steps.shell("live", HELD);
    steps.truth("truth");
}

pub fn judge(run: &GuestRun) -> Result<()> {
    let truth = run.truth("truth")?;
    let output = run.output("live")?;
    let stdout = output.stdout();
    let found = told(&stdout, |kind| kind == "root-blocker")?;
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default()).context("no report")?;
    for case in CASES {
        let tid = truth.task(case.scenario, "holder")?;
        let lock = format!("{:#018x}", truth.lock(case.lock)?);
        case.finding(&found, tid, &lock)
            .and_then(|()| case.row(&report, tid, &lock))
            .with_context(|| format!("{}: {}", case.scenario, output.shown()))?;
    }
    Ok(())
}

impl Case {
    fn finding(&self, found: &[Value], tid: u32, lock: &str) -> Result<()> {
        let own = found
            .iter()
            .find(|f| f["tasks"][0]["tid"] == tid)
            .context("no finding")?;
        ensure!(own["certainty"] == "proven", "not proven: {own:#}");
        ensure!(own["victims"]["count"] == self.waiters, "its victims: {own:#}");
        let name = own["locks"][0]["name"].as_str().context("the lock has no name")?;
        let lock = format!("{} {name} ({lock})", self.words);
        let reading = if self.mode == "shared" { " for reading" } else { "" };
        let title = format!("{} ({tid}) holds {lock}{reading} and is asleep", self.comm);
        ensure!(
            own["title"].as_str().is_some_and(|told| told.starts_with(&title)),
            "not \"{title}\": {own:#}"
        );
        let seen = json!({"source": "acquisition", "text": format!(
            "{} ({tid}) was seen to take {lock}{reading} at {}, TIME ago, and not to release it", self.comm, self.site)});
        let evidence = own["evidence"].as_array().context("no evidence")?;
        ensure!(evidence.contains(&seen), "not {seen}: {own:#}");
        let doubts = evidence.iter().filter(|line| line["source"] == "missing");
        ensure!(doubts.count() == 0, "in doubt: {own:#}");
        Ok(())
    }

    /// Whom the report names as who holds it now.
    fn row(&self, report: &Value, tid: u32, lock: &str) -> Result<()> {
        let rows = report["watched"].as_array().context("no watched locks")?;
        let row = rows.iter().find(|row| row["address"] == lock).context("no row")?;
        let [holder] = row["holders"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            anyhow::bail!("not one holder: {row:#}");
        };
        let told = json!([row["kind"], holder["name"]["tid"], holder["mode"], holder["site"]]);
        let expected = json!([self.kind, tid, self.mode, self.site]);
        ensure!(told == expected, "{told}, not {expected}");
        Ok(())
    }
}
