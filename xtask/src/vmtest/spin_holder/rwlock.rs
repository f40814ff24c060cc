//! The same with a rwlock: who has it and how, who is first in line, and who stands in the queue inside of it.

use super::super::findings::{FINDINGS, Named, snapshot};
use super::super::{GuestRun, Steps};
use super::{SCENARIO, live};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// How it is held, and wanted by whom.
pub struct Case {
    held: &'static str,
    /// What its word says.
    word: &'static str,
    /// Modes of who is first in line and who comes next.
    wanted: [&'static str; 2],
}

pub const WRITTEN: Case = Case {
    held: "",
    word: "its word is 0x2ff: held by a writer, 1 reader first in line",
    wanted: ["shared", "exclusive"],
};

pub const READ: Case = Case {
    held: " for reading",
    word: "its word is 0x300: held by 1 reader, a writer first in line",
    wanted: ["exclusive", "shared"],
};

/// Seen by a live run that was there before, and by a snapshot; then the device answers, and all go on.
pub fn steps(steps: &mut Steps, trigger: &str) {
    steps.limit(Duration::from_secs(60));
    steps.start_attached("holdup", &["live", "--json", "--duration", "14"]);
    steps.trigger(trigger);
    steps.established(SCENARIO);
    steps.truth("truth");
    steps.holdup("snapshot", &["snapshot", "--json"]);
    steps.wait("holdup");
    let answers = "/sys/module/lockfault/parameters/spin_holder_answers";
    steps.shell("answer", &format!("echo Y > {answers}"));
    steps.done(SCENARIO);
    steps.shell("again", &format!("echo N > {answers}"));
}

pub fn judge(run: &GuestRun, case: &Case) -> Result<()> {
    run.output("holdup")?.exited_with(FINDINGS)?;
    run.output("snapshot")?.exited_with(FINDINGS)?;
    let looked = snapshot(&run.output("snapshot")?.stdout())?;
    for (found, how) in [(live(run)?, "live"), (looked, "snapshot")] {
        case.compare(run, &found).with_context(|| how.to_owned())?;
    }
    Ok(())
}

impl Case {
    fn compare(&self, run: &GuestRun, found: &[Value]) -> Result<()> {
        let truth = run.truth("truth")?;
        let task = |role| truth.task(SCENARIO, role);
        let (holder, first, second) = (task("holder")?, task("pending")?, task("waiter")?);
        let lock = format!("{:#018x}", truth.lock("heap.spin_holder.rwlock")?);
        let about = |f: &&Value| {
            let id = f["id"].as_str().unwrap_or_default();
            id.contains("spin-") || id == format!("root-blocker:{holder}")
        };
        let found: Vec<&Value> = found.iter().filter(about).collect();
        let [finding] = found.as_slice() else {
            anyhow::bail!("{} findings instead of one: {found:#?}", found.len());
        };
        let rwlock = Named::of(finding, &lock).words("rwlock", &lock);
        let who = format!("lf_shd_holder ({holder})");
        let evidence = finding["evidence"].as_array().context("no evidence")?;
        let says: Vec<(&str, &str)> = evidence
            .iter()
            .filter_map(|line| Some((line["source"].as_str()?, line["text"].as_str()?)))
            .collect();
        let reading = |mode: &str| if mode == "shared" { " for reading" } else { "" };
        let [one, two] = self.wanted;
        let title = format!(
            "{who} holds {rwlock}{} and is running on CPU 1; 2 tasks wait behind it",
            self.held
        );
        let elimination = format!(
            "{who} may hold {rwlock}: no other CPU can: each was seen without a spinlock since, or with no more than it waits for itself"
        );
        let head = format!(
            "first in the queue of {rwlock}: lf_shd_pending ({first}){}, for TIME; 2 in all",
            reading(one)
        );
        let order = format!(
            "its word and the CPUs' queue nodes give the order of those who wait: 1. lf_shd_pending ({first}) on CPU 2, 2. \
             lf_shd_waiter ({second}) on CPU 3"
        );
        for (source, text) in [
            ("cpu-sample", elimination.as_str()),
            ("owner-word", self.word),
            ("owner-word", &order),
        ] {
            ensure!(says.contains(&(source, text)), "not [{source}] {text}: {finding:#}");
        }
        ensure!(says.iter().any(|(_, text)| *text == head), "not {head}: {finding:#}");
        let told = json!([
            finding["title"],
            finding["severity"],
            finding["certainty"],
            finding["victims"]["count"]
        ]);
        ensure!(told == json!([title, "warning", "likely", 2]), "{told}: {finding:#}");
        let victims = finding["victims"]["tasks"].as_array().context("no victims")?;
        for (tid, mode) in [(first, one), (second, two)] {
            let victim = victims.iter().find(|victim| victim["waiter"]["tid"] == tid);
            let on = &victim.with_context(|| format!("{tid} is no victim: {finding:#}"))?["on"];
            let told = json!([on["kind"], on["address"], on["mode"]]);
            ensure!(
                told == json!(["rwlock", lock, mode]),
                "{tid} waits for {told}: {finding:#}"
            );
        }
        Ok(())
    }
}
