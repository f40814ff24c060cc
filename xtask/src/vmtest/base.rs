//! The machine itself: it boots what it should, the fault module is the one the table describes, holdup starts.

use super::{EVERY_KERNEL, VmTest};
use crate::vm::scenarios::SCENARIOS;
use anyhow::ensure;
use std::collections::BTreeSet;
use std::time::Duration;
use xtask_guest::message::Status;

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "boots",
        kernels: EVERY_KERNEL,
        group: "base",
        expects: &[],
        steps: |steps| {
            steps.shell("uname", "uname -r; nproc; grep -c . /proc/mounts");
            steps.shell("streams", "printf 'out\\000\\377'; printf 'err' >&2; exit 42");
            steps.shell("file", "mkdir -p /out/boots; seq 1 100000 > /out/boots/numbers");
        },
        check: |run| {
            let uname = run.output("uname")?;
            uname.exited_with(0)?;
            let text = uname.stdout();
            let mut lines = text.lines();
            ensure!(
                lines.next() == Some(&run.release),
                "the guest runs {text}, not {}",
                run.release
            );
            ensure!(
                lines.next() == Some(&run.cpus.to_string()),
                "not {} CPUs: {text}",
                run.cpus
            );
            let streams = run.output("streams")?;
            streams.exited_with(42)?;
            ensure!(
                streams.stdout == b"out\0\xff",
                "stdout is not byte-exact: {:?}",
                streams.stdout
            );
            ensure!(
                streams.stderr == b"err",
                "stderr is not byte-exact: {:?}",
                streams.stderr
            );
            let numbers = std::fs::read_to_string(run.file("boots/numbers")?)?;
            ensure!(
                numbers.lines().eq((1..=100_000).map(|n| n.to_string())),
                "the file came back changed"
            );
            Ok(())
        },
    },
    VmTest {
        name: "fault-module",
        kernels: EVERY_KERNEL,
        group: "base",
        expects: &[],
        steps: |steps| steps.truth("truth"),
        check: |run| {
            let truth = run.truth("truth")?;
            let module: BTreeSet<&str> = truth.states.iter().map(|(name, _)| name.as_str()).collect();
            let table: BTreeSet<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            ensure!(module == table, "the module has {module:?}, the table {table:?}");
            ensure!(
                truth.states.iter().all(|(_, state)| state == "idle"),
                "something runs already: {:?}",
                truth.states
            );
            ensure!(
                truth.locks.iter().all(|(_, address)| *address >= 0xff00 << 48),
                "no kernel address: {:?}",
                truth.locks
            );
            Ok(())
        },
    },
    VmTest {
        name: "doctor",
        kernels: EVERY_KERNEL,
        group: "base",
        expects: &[],
        steps: |steps| steps.holdup("doctor", &["doctor"]),
        check: |run| {
            let doctor = run.output("doctor")?;
            doctor.exited_with(0)?;
            doctor.stdout_has(&run.release)
        },
    },
    VmTest {
        name: "commands",
        kernels: &["6.1"],
        group: "base",
        expects: &[],
        steps: |steps| {
            steps.start_shell(
                "trapped",
                "trap 'echo stopped; exit 9' INT; echo begun; while :; do sleep 0.1; done",
            );
            steps.shell("meanwhile", "cat /proc/uptime");
            steps.signal("trapped", "INT");
            steps.wait("trapped");
            steps.limit(Duration::from_millis(500));
            steps.shell("endless", "echo begun; exec sleep 1000");
            steps.shell("missing", "exec /no/such/program");
        },
        check: |run| {
            let trapped = run.output("trapped")?;
            trapped.exited_with(9)?;
            ensure!(trapped.stdout == b"begun\nstopped\n", "{}", trapped.shown());
            run.output("meanwhile")?.exited_with(0)?;
            let endless = run.output("endless")?;
            let status = endless.exit.as_ref().map(|exit| &exit.status);
            ensure!(
                status
                    == Some(&Status::TimedOut {
                        after_ms: 500,
                        reaped: true
                    }),
                "{status:?}"
            );
            ensure!(
                endless.stdout == b"begun\n",
                "what came before the end is lost: {}",
                endless.shown()
            );
            run.output("missing")?.exited_with(127)
        },
    },
    VmTest {
        name: "scenario-ends",
        kernels: EVERY_KERNEL,
        group: "base",
        expects: &[],
        steps: |steps| {
            steps.trigger("contend-mutex ms=500");
            steps.established("contend-mutex");
            steps.truth("during");
            steps.done("contend-mutex");
            steps.truth("after");
        },
        check: |run| {
            let (during, after) = (run.truth("during")?, run.truth("after")?);
            ensure!(after.state("contend-mutex")? == "done", "{:?}", after.states);
            // The same tasks, or more, that started later.
            let holder = during.task("contend-mutex", "holder")?;
            ensure!(
                after.task("contend-mutex", "holder")? == holder,
                "another holder: {:?}",
                after.tasks
            );
            Ok(())
        },
    },
];
