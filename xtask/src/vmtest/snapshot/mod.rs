//! Verdicts of `holdup snapshot`, started after the fault: each hanging scenario, compared in full.

pub(super) mod check;
mod reach;
mod rt;
mod stopped;

use super::verdict::{DEADLOCKS, HOLDERS, ORPHAN, RWSEM_AA, Verdict, WAITING_HOLDERS, judge, says, start};
use super::{Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, bail, ensure};
use check::{called_from, pile_up, waiters_of, whole};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// Snapshots of a busy machine until its storms are over. Any deadlock among the findings ends them. Prints how many were taken, and
/// in how many somebody waited for a lock.
const BUSY: &str = r#"
    taken=0; waiting=0
    while grep -q 'state contend-mutex established' /proc/lockfault; do
        holdup snapshot --json > /tmp/busy 2> /tmp/busy.err
        code=$?
        if [ $code = 1 ] || [ $code = 3 ] || grep -Eq '"kind":"(self-deadlock|cycle|context-deadlock|dead-lock-word|orphaned-lock)"' /tmp/busy; then
            cat /tmp/busy.err /tmp/busy >&2
            exit 1
        fi
        taken=$((taken + 1))
        if grep -q '"place":[0-9]' /tmp/busy; then waiting=$((waiting + 1)); fi
    done
    echo $taken $waiting
"#;

/// From the first look at all threads to a proof: two looks and what is between them, emulated.
const PROVEN_WITHIN_S: f64 = 4.0;
/// From the start to a proof: nearly all of it is the loading of programs, which takes less than a second where it is not emulated.
const LOADED_WITHIN_S: f64 = 40.0;

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "healthy",
        kernels: WITHOUT_RT,
        group: "snapshot",
        expects: &[],
        steps: |steps| steps.holdup("healthy", &["snapshot", "--json"]),
        check: |run| {
            run.output("healthy")?.exited_with(0)?;
            let report = whole(run, "healthy")?;
            ensure!(report["findings"].as_array().is_some_and(Vec::is_empty), "{report:#}");
            Ok(())
        },
    },
    VmTest {
        name: "kinds",
        kernels: WITHOUT_RT,
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
            let report = whole(run, "kinds")?;
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
    reach::OTHER_WAITS,
    reach::ALL,
    stopped::HOLDERS,
    stopped::VFORK,
    VmTest {
        name: "holders",
        kernels: WITHOUT_RT,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            holders().into_iter().for_each(|verdict| start(steps, verdict));
            // From five seconds on it is worth a warning.
            until(steps, "holders", |file| says(&holders(), file));
            steps.truth("holders-truth");
        },
        check: |run| {
            run.output("holders")?.exited_with(4)?;
            judge(
                &whole(run, "holders")?,
                &run.truth("holders-truth")?,
                &holders(),
                "critical",
            )
        },
    },
    reach::BLIND_TO_PROC,
    VmTest {
        name: "reader-pile-up",
        kernels: WITHOUT_RT,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(300));
            steps.trigger("rwsem-reader-io readers=1500");
            steps.established("rwsem-reader-io");
            steps.truth("pile-truth");
            until(steps, "pile", |file| format!("grep -q reader-pile-up {file}"));
            steps.holdup("pile-text", &["snapshot"]);
        },
        check: pile_up,
    },
    VmTest {
        name: "deadlocks",
        kernels: WITHOUT_RT,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            deadlocks().into_iter().for_each(|verdict| start(steps, verdict));
            until(steps, "deadlocks", |file| says(&deadlocks(), file));
            steps.truth("deadlocks-truth");
            steps.holdup("deadlocks-text", &["snapshot"]);
        },
        check: |run| {
            run.output("deadlocks")?.exited_with(3)?;
            // What the earlier tests broke is explained, too: nothing critical but what was broken.
            let all = [deadlocks(), vec![&ORPHAN]].concat();
            judge(
                &whole(run, "deadlocks")?,
                &run.truth("deadlocks-truth")?,
                &all,
                "critical",
            )?;
            run.output("deadlocks-text")?
                .stdout_has("for work lockfault_mutex_aa_worker to be flushed")
        },
    },
    VmTest {
        name: "ps-hangs",
        kernels: WITHOUT_RT,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            // Before it has become another program, its address space is another one, too. It waits for its own lock when told to.
            steps.shell(
                "stuck",
                "/init work map-when /tmp/map-now > /tmp/map.out & pid=$!; echo $pid > /tmp/stuck.pid; \
                 until grep -q ready /tmp/map.out; do sleep 0.1; done; \
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
            let report = whole(run, "ps-snapshot")?;
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
        kernels: WITHOUT_RT,
        group: "snapshot",
        expects: &[],
        steps: |steps| {
            steps.shell("seeded-at", "cut -d' ' -f1 /proc/uptime");
            steps.holdup(
                "seeded",
                &["live", "--json", "--tuples", "--until", "deadlock", "--duration", "60"],
            );
        },
        check: |run| {
            run.output("seeded")?.exited_with(3)?;
            let stdout = run.output("seeded")?.stdout();
            let lines = stdout
                .lines()
                .map(serde_json::from_str::<Value>)
                .collect::<Result<Vec<_>, _>>()?;
            let proven = |line: &&Value| line["type"] == "finding" && line["finding"]["certainty"] == "proven";
            let seconds = |time: &Value| time.as_f64().map(|ns| ns / 1e9).context("no time");
            let told = seconds(&lines.iter().find(proven).context("nothing proven")?["time_ns"])?;
            let looked = lines.iter().find(|line| line["type"] == "tuple");
            let looked = seconds(&looked.context("no tuple of the first look")?["time"])?;
            let started: f64 = run.output("seeded-at")?.stdout().trim().parse()?;
            let (since_look, since_start) = (told - looked, told - started);
            ensure!(
                since_look < PROVEN_WITHIN_S && since_start < LOADED_WITHIN_S,
                "a deadlock of long ago was told {since_look} s after the first look, {since_start} s after the start"
            );
            Ok(())
        },
    },
    rt::PREEMPT_RT,
    VmTest {
        name: "no-false-deadlock",
        kernels: WITHOUT_RT,
        group: "healthy",
        expects: &[],
        steps: |steps| {
            steps.limit(Duration::from_secs(300));
            for storm in ["contend-mutex", "contend-rwsem", "contend-semaphore"] {
                steps.trigger(&format!("{storm} ms=60000 threads=4 hold=100"));
                steps.established(storm);
            }
            steps.shell("busy", BUSY);
        },
        check: |run| {
            let busy = run.output("busy")?;
            busy.exited_with(0)?;
            let stdout = busy.stdout();
            let mut numbers = stdout.split_whitespace().map(str::parse::<usize>);
            let (Some(Ok(taken)), Some(Ok(waiting))) = (numbers.next(), numbers.next()) else {
                bail!("not two numbers: {}", busy.shown());
            };
            // Two on the slowest machine; the more there is time for, the more.
            ensure!(taken >= 2, "only {taken} snapshots");
            ensure!(
                waiting > 0,
                "nobody waited in any of {taken} snapshots: nothing was tested"
            );
            Ok(())
        },
    },
];

/// Those that a machine with few CPUs endures for long.
fn holders() -> Vec<&'static Verdict> {
    let asleep = HOLDERS.iter().filter(|verdict| verdict.scenario == "holder-asleep");
    asleep.chain(WAITING_HOLDERS).chain([&ORPHAN]).collect()
}

fn deadlocks() -> Vec<&'static Verdict> {
    DEADLOCKS.iter().chain([&RWSEM_AA]).collect()
}

/// Takes snapshots until the condition holds for the file of one, and prints that one.
fn until(steps: &mut Steps, label: &str, condition: impl Fn(&str) -> String) {
    let file = format!("/tmp/{label}");
    let condition = condition(&file);
    let script = format!(
        "until holdup snapshot --json > {file} 2> {file}.err; code=$?; {condition}; do sleep 0.5; done; \
         cat {file}; cat {file}.err >&2; exit $code"
    );
    steps.shell(label, &script);
}
