//! The fault module's scenarios: their names are a contract, and `cargo xtask vm list` prints them.

use super::console::Marker::{self, HardLockup, HungTask, RcuStall, SoftLockup, Warning, WorkqueueLockup};
use anyhow::{Context as _, Result};

/// A way to break the kernel's locking on purpose.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What happens, in a line.
    pub meaning: &'static str,
    /// Kernel messages that belong to it.
    pub expects: &'static [Marker],
    /// More of them that only a PREEMPT_RT kernel prints.
    pub expects_rt: &'static [Marker],
    /// It needs CPUs that really run at the same time.
    pub parallel: bool,
    /// It takes interrupts away from a CPU for ever: everything but the scenario's own tasks must stay on CPU 0, or a
    /// bystander's timer or device is lost with that CPU.
    pub isolated: bool,
    /// Whether a PREEMPT_RT kernel can be broken this way.
    pub on_rt: bool,
}

const QUIET: &[Marker] = &[];
const HANGS: &[Marker] = &[HungTask];
const SPINS: &[Marker] = &[SoftLockup, WorkqueueLockup, HardLockup, RcuStall, HungTask];

const fn row(name: &'static str, meaning: &'static str, expects: &'static [Marker]) -> Scenario {
    Scenario {
        name,
        meaning,
        expects,
        expects_rt: QUIET,
        parallel: false,
        isolated: false,
        on_rt: true,
    }
}

/// PREEMPT_RT's mutexes are rt_mutexes, which notice a deadlock themselves and warn (kernel/locking/rtmutex_api.c).
const fn rt_warns(scenario: Scenario) -> Scenario {
    Scenario {
        expects_rt: &[Warning],
        ..scenario
    }
}

const fn isolated(scenario: Scenario) -> Scenario {
    Scenario {
        isolated: true,
        ..scenario
    }
}

/// PREEMPT_RT runs softirqs in threads, so nothing is interrupted.
const fn not_on_rt(scenario: Scenario) -> Scenario {
    Scenario {
        on_rt: false,
        ..scenario
    }
}

/// All scenarios, in the order of the list.
pub const SCENARIOS: &[Scenario] = &[
    rt_warns(row(
        "mutex-aa",
        "a kworker takes a mutex twice; a second task waits in flush_work behind it",
        HANGS,
    )),
    rt_warns(row("ww-mutex-aa", "the same with a ww_mutex", HANGS)),
    row("mutex-abba", "two tasks take two mutexes in opposite order", HANGS),
    row(
        "mixed-cycle",
        "three tasks in a cycle: mutex, rwsem for writing, rt_mutex",
        HANGS,
    ),
    row(
        "rwsem-aa",
        "a task that holds an rwsem for reading takes it for writing",
        HANGS,
    ),
    row(
        "rwsem-reader-io",
        "a reader asleep in (fake) block I/O, a writer behind it, then many readers",
        HANGS,
    ),
    row(
        "mmap-lock-io",
        "the same with the mmap_lock of the process pid=N: ps hangs when it shows its command line",
        HANGS,
    ),
    row("holder-asleep", "a mutex's holder sleeps", HANGS),
    row("holder-running", "a mutex's holder spins on a CPU", SPINS),
    row("holder-starved", "a mutex's holder is runnable and gets no CPU", SPINS),
    row("holder-in-rcu", "a mutex's holder waits for an RCU grace period", HANGS),
    row("holder-in-page", "a mutex's holder waits for a locked page", HANGS),
    row(
        "holder-in-queue",
        "a mutex's holder sleeps in wait_event on a wait queue",
        HANGS,
    ),
    row("holder-stopped", "a mutex's holder is stopped", HANGS),
    row(
        "holder-in-user",
        "a process has returned to user space with a mutex, and can be stopped, traced or frozen there",
        HANGS,
    ),
    row("owner-exited", "a task exited while it held a mutex", HANGS),
    row("contend-mutex", "contention on a mutex that ends", QUIET),
    row("contend-rwsem", "contention on an rwsem that ends", QUIET),
    row("contend-rwlock", "contention on a rwlock that ends", QUIET),
    row("contend-spinlock", "contention on a spinlock that ends", QUIET),
    row("contend-semaphore", "contention on a semaphore that ends", QUIET),
    row("contend-rt-mutex", "contention on an rt_mutex that ends", QUIET),
    row(
        "contend-percpu-rwsem",
        "contention on a percpu_rw_semaphore that ends",
        QUIET,
    ),
    not_on_rt(row(
        "softirq-aa-timer",
        "a timer spins on a lock that the thread it interrupted holds",
        SPINS,
    )),
    not_on_rt(row(
        "softirq-aa-rcu",
        "an RCU callback spins on a lock that the thread it interrupted holds",
        SPINS,
    )),
    isolated(row(
        "hardirq-aa",
        "a hard interrupt spins on a lock that the thread it interrupted holds",
        SPINS,
    )),
    isolated(row(
        "dead-lock-word",
        "a CPU spins, interrupts off, on a word nobody holds; others wait for that CPU",
        SPINS,
    )),
    isolated(row(
        "spin-holder",
        "a CPU polls a dead device with a spinlock held; two others spin on the lock",
        SPINS,
    )),
    row(
        "reinit-completion",
        "a completion is initialised again while a task waits for it",
        HANGS,
    ),
    row(
        "reinit-mutex",
        "a mutex is initialised again while it is held and waited for",
        HANGS,
    ),
    row(
        "reinit-rwsem",
        "an rwsem is initialised again while it is held and waited for",
        HANGS,
    ),
    row(
        "reinit-wait-queue",
        "a wait queue is initialised again while a task waits on it",
        HANGS,
    ),
    row(
        "reinit-rt-mutex",
        "an rt_mutex is initialised again while it is held and waited for",
        HANGS,
    ),
    row(
        "reinit-percpu-rwsem",
        "a percpu_rw_semaphore is initialised again while it is held and waited for",
        HANGS,
    ),
    row(
        "inversion-mutex",
        "mutexes A then B, later B then A; nothing hangs",
        QUIET,
    ),
    row(
        "inversion-rwsem",
        "rwsems A then B, later B then A; nothing hangs",
        QUIET,
    ),
    row(
        "other-waits",
        "flushes of a slow work item, a completion and block I/O that are waited for; all ends",
        QUIET,
    ),
    not_on_rt(row(
        "contend-task-locks",
        "contention on siglock, alloc_lock and pi_lock of the thread pid=N that ends",
        QUIET,
    )),
    row(
        "stack-locks",
        "a thread holds a mutex and waits for a completion, both on its own stack",
        QUIET,
    ),
];

/// Whether a kernel is PREEMPT_RT, as far as its name tells.
fn is_rt(release: &str) -> bool {
    release.contains("-rt-")
}

impl Scenario {
    /// Whether `release` can be broken this way.
    ///
    /// # Errors
    /// It cannot, by its nature.
    pub fn possible_on(&self, release: &str) -> Result<()> {
        anyhow::ensure!(
            self.on_rt || !is_rt(release),
            "scenario {} cannot happen on PREEMPT_RT ({release})",
            self.name
        );
        Ok(())
    }

    /// Kernel messages that are no failure on `release`.
    pub fn expected_on(&self, release: &str) -> Vec<Marker> {
        let rt = if is_rt(release) { self.expects_rt } else { QUIET };
        self.expects.iter().chain(rt).copied().collect()
    }
}

/// The scenario that a trigger (`NAME` or `NAME param=value ...`) starts.
///
/// # Errors
/// No scenario of that name.
pub fn find(trigger: &str) -> Result<&'static Scenario> {
    let name = trigger.split_whitespace().next().unwrap_or_default();
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario \"{name}\"; `cargo xtask vm list` prints them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names in the module's scenario structures.
    fn names_in_the_module() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(crate::vm::module::lockfault_source()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "c") {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let mut scenario = false;
            for line in text.lines() {
                scenario = line.starts_with("struct lockfault_scenario lockfault_") || (scenario && line != "};");
                if scenario && let Some(rest) = line.trim().strip_prefix(".name = \"") {
                    names.insert(rest.split('"').next().unwrap().to_owned());
                    scenario = false;
                }
            }
        }
        names
    }

    #[test]
    fn table_and_module_name_the_same_scenarios() {
        let table: BTreeSet<String> = SCENARIOS.iter().map(|scenario| scenario.name.to_owned()).collect();
        assert_eq!(table.len(), SCENARIOS.len(), "no name twice");
        let module = names_in_the_module();
        assert!(module.contains("mutex-aa"), "the search itself works: {module:?}");
        assert_eq!(module, table);
    }

    #[test]
    fn triggers_find_their_scenario() {
        assert_eq!(find("rwsem-reader-io readers=1500").unwrap().name, "rwsem-reader-io");
        assert!(find("mutex").is_err());
        assert!(find("").is_err());
    }

    #[test]
    fn only_rt_may_warn() {
        let scenario = find("mutex-aa").unwrap();
        assert!(!scenario.expected_on("6.12.1-cloud-amd64").contains(&Warning));
        assert!(scenario.expected_on("6.12.1+deb12-rt-amd64").contains(&Warning));
    }
}
