//! Tests that run in the VM.
//!
//! A test is a row of a table: on which kernels, in which boot, which steps in the guest, and a check on the host over
//! everything that came back. **To add tests, write a file like [`base`] and add its table to [`TABLES`].**
//!
//! ```ignore
//! pub const TESTS: &[VmTest] = &[VmTest {
//!     name: "self-deadlock",
//!     kernels: &["6.1", "6.12"],
//!     group: "mutex",               // tests of one group share a boot, in the order of the table
//!     expects: &[],                 // kernel messages beyond those of the scenarios that the steps trigger
//!     steps: |steps| {
//!         steps.start_attached("live", &["live", "--text"]); // returns when holdup has said that it is attached
//!         steps.trigger("mutex-aa");
//!         steps.established("mutex-aa");
//!         steps.truth("truth");     // what /proc/lockfault says
//!         steps.signal("live", "INT");
//!         steps.wait("live");
//!     },
//!     check: |run| {
//!         let worker = run.truth("truth")?.task("mutex-aa", "worker")?;
//!         let live = run.output("live")?;
//!         live.exited_with(0)?;
//!         live.stdout_has(&format!("pid {worker}"))
//!     },
//! }];
//! ```
//!
//! What a scenario breaks stays broken for the later tests of its boot: give a group of its own to whatever disturbs
//! others. Each step has a deadline ([`Steps::limit`] for commands). An error in a step fails its test and the next one
//! of the boot still runs; a machine that dies fails those whose results had not arrived. Each boot also counts as a
//! test itself, called `machine`: one verdict, nothing lost on the way, no kernel message that no test expects.
//!
//! Console, outputs and returned files stay below `target/vm/KERNEL-GROUP/` until the next run.

pub mod armed;
pub mod base;
pub mod contention;
pub mod dead_word;
pub mod findings;
pub mod holders;
pub mod live;
pub mod module_lines;
pub mod names;
pub mod power_cut;
pub mod record;
pub mod reinit;
pub mod results;
pub mod runner;
pub mod share;
pub mod snapshot;
pub mod spin;
pub mod spin_holder;
pub mod stalls;
pub mod steps;
pub mod task_facts;
pub mod task_locks;
pub mod truth;
pub mod user_stacks;
pub mod verdict;
pub mod waits;
pub mod watch;

pub use results::GuestRun;
pub use steps::Steps;

use crate::vm::console::Marker;
use anyhow::Result;

/// One test.
pub struct VmTest {
    /// Unique within its group.
    pub name: &'static str,
    /// Stock kernels by name; each gives a test of its own.
    pub kernels: &'static [&'static str],
    /// Tests of the same group and kernel share a boot.
    pub group: &'static str,
    /// Kernel messages that are no failure, besides those of the scenarios that are triggered.
    pub expects: &'static [Marker],
    /// What happens in the guest.
    pub steps: fn(&mut Steps),
    /// Judges what came back. The job's own errors have failed the test before this is asked.
    pub check: fn(&GuestRun) -> Result<()>,
}

/// All stock kernels.
pub const EVERY_KERNEL: &[&str] = &["6.1", "6.12", "6.12-rt"];

/// Those without PREEMPT_RT.
pub const WITHOUT_RT: &[&str] = &["6.1", "6.12"];

/// The tables of all tests.
pub const TABLES: &[&[VmTest]] = &[
    armed::TESTS,
    base::TESTS,
    contention::TESTS,
    holders::TESTS,
    live::TESTS,
    names::TESTS,
    share::TESTS,
    record::TESTS,
    reinit::TESTS,
    snapshot::TESTS,
    task_facts::TESTS,
    user_stacks::TESTS,
    module_lines::TESTS,
    spin::TESTS,
    spin_holder::TESTS,
    dead_word::TESTS,
    stalls::TESTS,
    waits::TESTS,
    watch::TESTS,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::STOCK;
    use crate::vm::scenarios;
    use std::collections::BTreeSet;

    #[test]
    fn tables_are_sound() {
        let mut names = BTreeSet::new();
        for test in TABLES.iter().copied().flatten() {
            assert!(
                !test.kernels.is_empty(),
                "{}/{} runs on no kernel",
                test.group,
                test.name
            );
            for kernel in test.kernels {
                assert!(
                    STOCK.iter().any(|stock| stock.name == *kernel),
                    "{}: no kernel {kernel}",
                    test.name
                );
                assert!(
                    names.insert((kernel, test.group, test.name)),
                    "{}/{} twice",
                    test.group,
                    test.name
                );
            }
            assert_ne!(test.name, runner::MACHINE, "the name of the boot itself");
            let mut steps = Steps::new(0, 0);
            (test.steps)(&mut steps);
            assert_eq!(steps.unknown_labels(), [""; 0], "{}: never started", test.name);
            for trigger in steps.triggers() {
                scenarios::find(trigger).unwrap();
            }
        }
    }

    #[test]
    fn every_kernel_is_every_kernel() {
        let stock: Vec<&str> = STOCK.iter().map(|stock| stock.name).collect();
        assert_eq!(EVERY_KERNEL, stock);
    }
}
