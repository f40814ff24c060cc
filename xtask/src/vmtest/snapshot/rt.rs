//! PREEMPT_RT, where mutexes and rwsems are built from rt_mutexes: owners, readers and cycles.

use super::check::{called_from, waiters_of, whole};
use super::until;
use crate::vm::console::Marker::HungTask;
use crate::vmtest::VmTest;
use crate::vmtest::verdict::{DEADLOCKS, Expected, HOLDERS, ORPHAN, Verdict, judge, says, start};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;

/// A reader keeps a writer out, which stands on no list.
const READER: Verdict = Verdict {
    scenario: "mmap-lock-io",
    parameters: "",
    findings: &[Expected {
        kind: "root-blocker",
        severity: "warning",
        certainty: "likely",
        tasks: &[("holder", "")],
        locks: &["mm.mmap_lock"],
        first: "writer",
        victims: &["writer"],
        title: "for reading and is asleep in block I/O; 1 task waits behind it",
    }],
};

/// Those whose locks tell the same here. A task that queues behind itself is parked by the kernel.
fn same_here() -> Vec<&'static Verdict> {
    let names = ["mutex-abba", "mixed-cycle", "holder-asleep"];
    let all = DEADLOCKS.iter().chain(HOLDERS).filter(|v| names.contains(&v.scenario));
    all.chain([&ORPHAN]).collect()
}

fn everything() -> Vec<&'static Verdict> {
    same_here().into_iter().chain([&READER]).collect()
}

/// In the boot that looks at this kernel in any case.
pub const PREEMPT_RT: VmTest = VmTest {
    name: "snapshot",
    kernels: &["6.12-rt"],
    group: "base",
    expects: &[HungTask],
    steps: |steps| {
        steps.trigger("contend-rwsem hold=60000 ms=0");
        steps.established("contend-rwsem");
        steps.truth("rwsem-truth");
        steps.holdup("rwsem", &["snapshot", "--json"]);
        same_here().into_iter().for_each(|verdict| start(steps, verdict));
        steps.shell(
            "process",
            "sleep 100000 > /dev/null 2>&1 & pid=$!; until grep -q sleep /proc/$pid/comm; do sleep 0.1; done; \
             echo \"mmap-lock-io pid=$pid\" > /proc/lockfault",
        );
        steps.established("mmap-lock-io");
        until(steps, "all", |file| says(&everything(), file));
        steps.truth("all-truth");
    },
    check: |run| {
        rwsem(run).context("contend-rwsem")?;
        run.output("all")?.exited_with(3)?;
        judge(&whole(run, "all")?, &run.truth("all-truth")?, &everything(), "critical")
    },
};

/// Waiters of an rwsem that is held for writing, and its owner.
fn rwsem(run: &crate::vmtest::GuestRun) -> Result<()> {
    let (report, truth) = (whole(run, "rwsem")?, run.truth("rwsem-truth")?);
    let task = |role| truth.task("contend-rwsem", role).map(u64::from);
    let address = format!("{:#018x}", truth.lock("heap.contend.rwsem")?);
    let waits = |tid: u64, mode: &str| (tid, "rwsem".to_owned(), mode.to_owned(), None);
    let expected = BTreeSet::from([
        waits(task("reader-waiter")?, "shared"),
        waits(task("writer-waiter")?, "exclusive"),
    ]);
    let found = waiters_of(&report, &address);
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    called_from(&report, &address, "lockfault_contend_rwsem_take")?;
    let owner = task("writer-holder")?;
    let rows = report["tasks"].as_array().context("no tasks")?;
    for row in rows.iter().filter(|row| row["wait"]["lock"]["address"] == address) {
        let blocker = row["blocked_by"].as_u64().context("nobody is in its way")?;
        let blocker = rows.get(usize::try_from(blocker)?).context("no such row")?;
        ensure!(blocker["tid"] == owner, "{blocker:#}");
    }
    Ok(())
}
