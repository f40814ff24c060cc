//! Verdicts of `holdup snapshot`, started after the fault: each hanging scenario, compared in full.

pub(super) mod check;

use super::live::Expected;
use super::{Steps, VmTest};
use anyhow::{Context as _, Result, ensure};
use check::{called_from, judge, pile_up, report, severity, waiters_of};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A scenario, and what a snapshot has to say of it.
struct Verdict {
    scenario: &'static str,
    parameters: &'static str,
    findings: &'static [Expected],
}

const DEADLOCKS: &[Verdict] = &[
    Verdict {
        scenario: "mutex-aa",
        parameters: "",
        findings: &[Expected {
            kind: "self-deadlock",
            certainty: "proven",
            tasks: &["worker"],
            locks: &["lockfault_aa_mutex"],
            first: ("worker", "lockfault_mutex_aa_inner"),
            victims: &["flusher"],
            later: &[],
            title: "that it holds itself; at lockfault_mutex_aa_inner",
        }],
    },
    Verdict {
        scenario: "ww-mutex-aa",
        parameters: "",
        findings: &[Expected {
            kind: "self-deadlock",
            certainty: "proven",
            tasks: &["worker"],
            locks: &["heap.ww_aa.reservation"],
            first: ("worker", "lockfault_ww_mutex_aa_reserve"),
            victims: &["flusher"],
            later: &[],
            title: "that it holds itself; at lockfault_ww_mutex_aa_reserve",
        }],
    },
    Verdict {
        scenario: "mutex-abba",
        parameters: "",
        findings: &[Expected {
            kind: "cycle",
            certainty: "proven",
            tasks: &["first", "second"],
            locks: &["lockfault_abba_a", "lockfault_abba_b"],
            first: ("first", "lockfault_mutex_abba_first"),
            victims: &[],
            later: &[],
            title: "wait for each other",
        }],
    },
    Verdict {
        scenario: "mixed-cycle",
        parameters: "",
        findings: &[Expected {
            kind: "cycle",
            certainty: "proven",
            tasks: &["mutex-holder", "rwsem-holder", "rtmutex-holder"],
            locks: &["heap.mixed.mutex", "heap.mixed.rwsem", "heap.mixed.rtmutex"],
            first: ("mutex-holder", "lockfault_mixed_mutex_holder"),
            victims: &[],
            later: &[],
            title: "3 tasks wait for each other in a circle",
        }],
    },
];

const HOLDERS: &[Verdict] = &[
    Verdict {
        scenario: "holder-asleep",
        parameters: "ms=600000",
        findings: &[Expected {
            kind: "root-blocker",
            certainty: "proven",
            tasks: &["holder"],
            locks: &["lockfault_asleep_mutex"],
            first: ("waiter", ""),
            victims: &["waiter"],
            later: &[],
            title: "is asleep (uninterruptible); 8 tasks wait behind it",
        }],
    },
    Verdict {
        scenario: "owner-exited",
        parameters: "waiters=3",
        findings: &[Expected {
            kind: "orphaned-lock",
            certainty: "proven",
            tasks: &["owner"],
            locks: &["heap.exited.lock"],
            first: ("waiter", ""),
            victims: &["waiter"],
            later: &[],
            title: "whose owner lf_exit_owner",
        }],
    },
];

/// A waiter of a lock that is in the way of nobody for ever: role, kind of the lock, mode, place on its list.
type Waiter = (&'static str, &'static str, &'static str, Option<u64>);

/// Scenario, its lock, the call site of all waiters, and those. The locks are held for a minute.
const KINDS: &[(&str, &str, &str, &[Waiter])] = &[
    (
        "contend-mutex",
        "lockfault_contend_mutex_lock",
        "lockfault_contend_mutex_take",
        &[
            ("waiter", "mutex", "exclusive", Some(0)),
            ("waiter", "mutex", "exclusive", Some(1)),
            ("waiter", "mutex", "exclusive", Some(2)),
        ],
    ),
    (
        "contend-rwsem",
        "heap.contend.rwsem",
        "lockfault_contend_rwsem_take",
        &[
            ("reader-waiter", "rwsem", "shared", Some(0)),
            ("writer-waiter", "rwsem", "exclusive", Some(1)),
        ],
    ),
    (
        "contend-semaphore",
        "lockfault_contend_sem",
        "lockfault_contend_semaphore_take",
        &[
            ("waiter", "semaphore", "exclusive", Some(0)),
            ("waiter", "semaphore", "exclusive", Some(1)),
        ],
    ),
    (
        "contend-percpu-rwsem",
        "lockfault_contend_percpu",
        "lockfault_contend_percpu_take",
        &[
            ("reader-waiter", "percpu-rwsem", "shared", Some(0)),
            ("writer-waiter", "percpu-rwsem", "exclusive", Some(1)),
        ],
    ),
    (
        "contend-rt-mutex",
        "lockfault_contend_rtm",
        "lockfault_contend_rt_mutex_take",
        &[
            ("waiter", "rt-mutex", "exclusive", None),
            ("waiter", "rt-mutex", "exclusive", None),
        ],
    ),
];

/// Snapshots of a healthy, busy machine on each kernel.
const SNAPSHOTS: usize = 25;
/// Takes them; any deadlock among the findings ends it. Prints in how many somebody waited for a lock.
const BUSY: &str = r#"
    n=0; waiting=0
    while [ $n -lt 25 ]; do
        n=$((n + 1))
        holdup snapshot --json > /tmp/busy 2> /tmp/busy.err
        code=$?
        if [ $code = 1 ] || [ $code = 3 ] || grep -Eq '"kind":"(self-deadlock|cycle|context-deadlock|orphaned-lock)"' /tmp/busy; then
            cat /tmp/busy.err /tmp/busy >&2
            exit 1
        fi
        if grep -q '"place":[0-9]' /tmp/busy; then waiting=$((waiting + 1)); fi
    done
    echo $waiting
"#;

const STOCK: &[&str] = &["6.1", "6.12"];

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "healthy",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| steps.holdup("healthy", &["snapshot", "--json"]),
        check: |run| {
            run.output("healthy")?.exited_with(0)?;
            let report = report(run, "healthy")?;
            ensure!(report["findings"].as_array().is_some_and(Vec::is_empty), "{report:#}");
            Ok(())
        },
    },
    VmTest {
        name: "kinds",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            for (scenario, ..) in KINDS {
                steps.trigger(&format!("{scenario} hold=60000 ms=0"));
                steps.established(scenario);
                steps.truth(&format!("{scenario}-truth"));
            }
            steps.holdup("kinds", &["snapshot", "--json"]);
        },
        check: |run| {
            let report = report(run, "kinds")?;
            KINDS.iter().try_for_each(|(scenario, lock, site, waiters)| {
                let truth = run.truth(&format!("{scenario}-truth"))?;
                let address = format!("{:#018x}", truth.lock(lock)?);
                let mut pids: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
                let mut expected = BTreeSet::new();
                for (role, kind, mode, place) in *waiters {
                    let left = pids.entry(role).or_insert_with(|| truth.tasks(scenario, role));
                    ensure!(!left.is_empty(), "no more tasks with the role {role}");
                    expected.insert((
                        u64::from(left.remove(0)),
                        (*kind).to_owned(),
                        (*mode).to_owned(),
                        *place,
                    ));
                }
                let found = waiters_of(&report, &address);
                ensure!(found == expected, "{scenario}: {found:?} instead of {expected:?}");
                called_from(&report, &address, site).with_context(|| (*scenario).to_owned())
            })
        },
    },
    VmTest {
        name: "holders",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            HOLDERS.iter().for_each(|verdict| start(steps, verdict));
            // From five seconds on it is worth a warning.
            until(steps, "holders", "\"severity\":\"warning\"");
        },
        check: |run| {
            run.output("holders")?.exited_with(4)?;
            let report = report(run, "holders")?;
            HOLDERS.iter().try_for_each(|verdict| judge(run, &report, verdict))
        },
    },
    VmTest {
        name: "reader-pile-up",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(300));
            steps.trigger("rwsem-reader-io readers=1500");
            steps.established("rwsem-reader-io");
            steps.truth("pile-truth");
            until(steps, "pile", "reader-pile-up");
            steps.holdup("pile-text", &["snapshot"]);
        },
        check: pile_up,
    },
    VmTest {
        name: "deadlocks",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            DEADLOCKS.iter().for_each(|verdict| start(steps, verdict));
            steps.holdup("deadlocks", &["snapshot", "--json"]);
            steps.holdup("deadlocks-text", &["snapshot"]);
        },
        check: |run| {
            run.output("deadlocks")?.exited_with(3)?;
            let report = report(run, "deadlocks")?;
            DEADLOCKS.iter().try_for_each(|verdict| judge(run, &report, verdict))?;
            // What the earlier tests broke is explained, too: nothing critical but what was broken.
            let critical = severity(&report, "critical");
            ensure!(
                critical == 5,
                "{critical} critical findings instead of 4 and the orphaned lock"
            );
            run.output("deadlocks-text")?
                .stdout_has("for work lockfault_mutex_aa_worker to be flushed")
        },
    },
    VmTest {
        name: "rwsem-self",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            steps.trigger("rwsem-aa");
            steps.established("rwsem-aa");
            steps.truth("rwsem-aa-truth");
            until(
                steps,
                "rwsem-aa",
                "for writing, which it seems to hold for reading itself",
            );
        },
        check: |run| {
            let report = report(run, "rwsem-aa")?;
            let truth = run.truth("rwsem-aa-truth")?;
            let holder = truth.task("rwsem-aa", "holder")?;
            let list = report["findings"].as_array().into_iter().flatten();
            let mut of_holder = list.filter(|f| f["kind"] == "self-deadlock" && f["tasks"][0]["tid"] == holder);
            let finding = of_holder.next().context("no self-deadlock of the holder")?;
            ensure!(finding["certainty"] != "proven", "a hint proves nothing: {finding:#}");
            Ok(())
        },
    },
    VmTest {
        name: "ps-hangs",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            // Before it has become another program, its address space is another one, too.
            steps.shell(
                "stuck",
                "sleep 100000 & pid=$!; echo $pid > /tmp/stuck.pid; until grep -q sleep /proc/$pid/comm; do sleep 0.1; done; \
                 echo \"mmap-lock-io pid=$pid\" > /proc/lockfault",
            );
            steps.established("mmap-lock-io");
            steps.truth("ps-truth");
            // Started and left: who reads the command line does not come back.
            steps.shell("ps", "ps -o pid,args > /tmp/ps 2>&1 & echo $! | tee /tmp/ps.pid");
            steps.shell(
                "ps-is-stuck",
                "until grep -q ') D ' /proc/$(cat /tmp/ps.pid)/stat; do sleep 0.1; done",
            );
            steps.holdup("ps-snapshot", &["snapshot", "--json"]);
        },
        check: |run| {
            let truth = run.truth("ps-truth")?;
            let (holder, writer) = (
                truth.task("mmap-lock-io", "holder")?,
                u64::from(truth.task("mmap-lock-io", "writer")?),
            );
            run.output("ps-is-stuck")?.exited_with(0)?;
            let report = report(run, "ps-snapshot")?;
            let ps: u64 = run.output("ps")?.stdout().trim().parse()?;
            let lock = format!("{:#018x}", truth.lock("mm.mmap_lock")?);
            let expected = BTreeSet::from([
                (writer, "rwsem".to_owned(), "exclusive".to_owned(), Some(0)),
                (ps, "rwsem".to_owned(), "shared".to_owned(), Some(1)),
            ]);
            let found = waiters_of(&report, &lock);
            ensure!(found == expected, "{found:?} instead of {expected:?}");
            let rows = report["tasks"].as_array().into_iter().flatten();
            let blocked_by = rows.filter(|row| row["tid"] == ps).map(|row| &row["blocked_by"]);
            let row = blocked_by
                .filter_map(Value::as_u64)
                .next()
                .context("nobody is in the way of ps")?;
            let blocker = &report["tasks"][usize::try_from(row)?];
            ensure!(blocker["tid"] == holder && blocker["state"] == "in-io", "{blocker:#}");
            Ok(())
        },
    },
    VmTest {
        name: "seeding",
        kernels: STOCK,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            steps.shell("seeded-at", "cut -d' ' -f1 /proc/uptime");
            steps.holdup("seeded", &["live", "--json", "--until", "deadlock", "--duration", "60"]);
        },
        check: |run| {
            run.output("seeded")?.exited_with(3)?;
            let stdout = run.output("seeded")?.stdout();
            let lines = stdout
                .lines()
                .map(serde_json::from_str::<Value>)
                .collect::<Result<Vec<_>, _>>()?;
            let proven = |line: &&Value| line["type"] == "finding" && line["finding"]["certainty"] == "proven";
            let first = lines.iter().find(proven).context("nothing proven")?;
            let told = first["time_ns"].as_f64().context("no time")? / 1e9;
            let started: f64 = run.output("seeded-at")?.stdout().trim().parse()?;
            // Loading and attaching the probes take their time under emulation.
            ensure!(
                told - started < 10.0,
                "a deadlock of long ago was told {} s late",
                told - started
            );
            Ok(())
        },
    },
    VmTest {
        name: "no-false-deadlock",
        kernels: STOCK,
        group: "snapshot-busy",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(600));
            for storm in ["contend-mutex", "contend-rwsem", "contend-semaphore"] {
                steps.trigger(&format!("{storm} ms=600000 threads=4 hold=100"));
            }
            steps.shell("busy", BUSY);
        },
        check: |run| {
            let busy = run.output("busy")?;
            busy.exited_with(0)?;
            let waiting: usize = busy.stdout().trim().parse()?;
            ensure!(
                waiting > 0,
                "nobody waited in any of {SNAPSHOTS} snapshots: nothing was tested"
            );
            Ok(())
        },
    },
];

fn start(steps: &mut Steps, verdict: &Verdict) {
    let scenario = verdict.scenario;
    steps.trigger(format!("{scenario} {}", verdict.parameters).trim());
    steps.established(scenario);
    steps.truth(&format!("{scenario}-truth"));
}

/// Takes snapshots until one says `text`, and prints that one.
fn until(steps: &mut Steps, label: &str, text: &str) {
    let file = format!("/tmp/{label}");
    let script = format!(
        "until holdup snapshot --json > {file} 2> {file}.err; code=$?; grep -q '{text}' {file}; do sleep 0.5; done; \
         cat {file}; cat {file}.err >&2; exit $code"
    );
    steps.shell(label, &script);
}
