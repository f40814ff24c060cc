//! One table decides which programs are attached where; `doctor` prints it and [`attach`](super::attach) follows it.

use serde::Serialize;

/// Which probes to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProbeChoice {
    /// Tracepoints where the kernel has them, kprobes on slowpaths where it has not.
    Auto,
    /// Only the contention tracepoints (5.19 and newer).
    Tracepoint,
    /// Only kprobes on lock slowpaths.
    Kprobe,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Begin and end of waits, by tracepoint.
    Contention,
    /// Begin of waits, by kprobe.
    SlowpathEntry,
    /// End of waits, by kretprobe; never on spinlocks.
    SlowpathReturn,
    /// Unlock slowpaths: who released.
    Release,
    /// Init functions: locks that are initialised again while in use.
    Init,
    /// Where those who hold others up spend their time.
    Holders,
    /// Nothing: measures what an event costs by itself.
    Baseline,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// BTF tracepoint of this name.
    Tracepoint(&'static str),
    /// Kprobe or kretprobe on each of these functions that exists, compiler suffixes (`.isra.0`) included.
    Functions(&'static [&'static str]),
}

/// One row: a program and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Name of the program in the BPF object.
    pub program: &'static str,
    /// What it is for.
    pub role: Role,
    /// Where it goes.
    pub via: Via,
    /// What is not seen without it.
    pub shows: &'static str,
}

const fn functions(
    program: &'static str,
    role: Role,
    shows: &'static str,
    functions: &'static [&'static str],
) -> Probe {
    Probe {
        program,
        role,
        via: Via::Functions(functions),
        shows,
    }
}

const fn entry(program: &'static str, shows: &'static str, names: &'static [&'static str]) -> Probe {
    functions(program, Role::SlowpathEntry, shows, names)
}

const fn exit(program: &'static str, shows: &'static str, names: &'static [&'static str]) -> Probe {
    functions(program, Role::SlowpathReturn, shows, names)
}

const fn release(program: &'static str, shows: &'static str, names: &'static [&'static str]) -> Probe {
    functions(program, Role::Release, shows, names)
}

const fn init(program: &'static str, shows: &'static str, names: &'static [&'static str]) -> Probe {
    functions(program, Role::Init, shows, names)
}

/// The outer one is inlined into its callers by some compilers (Debian's 6.1), the inner one exists since 5.15.
const RT_MUTEX_SLOWPATHS: &[&str] = &["rt_mutex_slowlock", "rt_mutex_slowlock_block"];

/// Every probe holdup knows. KERNEL: slowpath names of 5.10 to 6.18, kernel/locking/.
pub const PROBES: &[Probe] = &[
    // The ends come first: a begin whose end nobody listens to yet would be a wait that does not end.
    Probe {
        program: "tp_contention_end",
        role: Role::Contention,
        via: Via::Tracepoint("contention_end"),
        shows: "how long waits took",
    },
    Probe {
        program: "tp_contention_begin",
        role: Role::Contention,
        via: Via::Tracepoint("contention_begin"),
        shows: "waits on every kind of lock",
    },
    entry(
        "kp_mutex",
        "mutex waits",
        &[
            "__mutex_lock_slowpath",
            "__mutex_lock_killable_slowpath",
            "__mutex_lock_interruptible_slowpath",
        ],
    ),
    entry(
        "kp_ww_mutex",
        "ww_mutex waits",
        &["__ww_mutex_lock_slowpath", "__ww_mutex_lock_interruptible_slowpath"],
    ),
    entry(
        "kp_rwsem_read",
        "rwsem readers that wait",
        &["rwsem_down_read_slowpath"],
    ),
    entry(
        "kp_rwsem_write",
        "rwsem writers that wait",
        &["rwsem_down_write_slowpath"],
    ),
    entry(
        "kp_semaphore",
        "semaphore waits",
        &["__down", "__down_interruptible", "__down_killable", "__down_timeout"],
    ),
    entry("kp_rt_mutex", "rt_mutex waits", RT_MUTEX_SLOWPATHS),
    entry("kp_percpu_rwsem", "percpu-rwsem waits", &["percpu_rwsem_wait"]),
    entry(
        "kp_spinlock",
        "spinlock contention",
        &[
            "native_queued_spin_lock_slowpath",
            "__pv_queued_spin_lock_slowpath",
            "queued_spin_lock_slowpath",
        ],
    ),
    entry(
        "kp_rwlock_read",
        "rwlock readers that wait",
        &["queued_read_lock_slowpath"],
    ),
    entry(
        "kp_rwlock_write",
        "rwlock writers that wait",
        &["queued_write_lock_slowpath"],
    ),
    exit(
        "krp_void",
        "how long mutex, semaphore and percpu-rwsem waits took",
        &["__mutex_lock_slowpath", "__down", "percpu_rwsem_wait"],
    ),
    exit(
        "krp_int",
        "how long interruptible waits took",
        &[
            "__mutex_lock_killable_slowpath",
            "__mutex_lock_interruptible_slowpath",
            "__ww_mutex_lock_slowpath",
            "__ww_mutex_lock_interruptible_slowpath",
            "__down_interruptible",
            "__down_killable",
            "__down_timeout",
            // Of one wait the inner function's return is seen first; the outer one's then finds it ended.
            "rt_mutex_slowlock_block",
            "rt_mutex_slowlock",
        ],
    ),
    exit(
        "krp_ptr",
        "how long rwsem waits took",
        &["rwsem_down_read_slowpath", "rwsem_down_write_slowpath"],
    ),
    Probe {
        program: "tp_empty",
        role: Role::Baseline,
        via: Via::Tracepoint("contention_begin"),
        shows: "nothing: the cost of an event by itself",
    },
    Probe {
        program: "tp_sched_switch",
        role: Role::Holders,
        via: Via::Tracepoint("sched_switch"),
        shows: "whether who holds others up runs, wants to run, sleeps or is in I/O",
    },
    Probe {
        program: "tp_sched_wakeup",
        role: Role::Holders,
        via: Via::Tracepoint("sched_wakeup"),
        shows: "since when it wants to run",
    },
    release(
        "kp_mutex_unlock",
        "who released a contended mutex",
        &["__mutex_unlock_slowpath"],
    ),
    release("kp_rwsem_wake", "who released a contended rwsem", &["rwsem_wake"]),
    release("kp_up", "who released a contended semaphore", &["__up"]),
    release(
        "kp_rt_mutex_unlock",
        "who released a contended rt_mutex",
        &["rt_mutex_slowunlock"],
    ),
    init(
        "kp_init_mutex",
        "mutexes initialised again while in use",
        &["__mutex_init"],
    ),
    init(
        "kp_init_rwsem",
        "rwsems initialised again while in use",
        &["__init_rwsem"],
    ),
    init(
        "kp_init_completion",
        "completions initialised again while in use",
        &["__init_swait_queue_head"],
    ),
    init(
        "kp_init_wait_queue",
        "wait queues initialised again while in use",
        &["__init_waitqueue_head"],
    ),
    init(
        "kp_init_rt_mutex",
        "rt_mutexes initialised again while in use",
        // The second one is PREEMPT_RT's mutex_init().
        &["__rt_mutex_init", "__mutex_rt_init"],
    ),
    init(
        "kp_init_percpu_rwsem",
        "percpu-rwsems initialised again while in use",
        &["__percpu_init_rwsem"],
    ),
];

/// Finds the real names behind a function name; knows kallsyms.
pub trait FunctionNames {
    /// `name` and its compiler variants (`.isra.N`, `.constprop.N`), as far as they can be probed.
    fn variants(&self, name: &str) -> Vec<String>;
}

/// Whether `choice` takes probes of this role on a kernel that has the tracepoints or not.
#[must_use]
pub fn selected(role: Role, choice: ProbeChoice, tracepoints: bool, releases: bool) -> bool {
    let use_tracepoints = match choice {
        ProbeChoice::Auto => tracepoints,
        ProbeChoice::Tracepoint => true,
        ProbeChoice::Kprobe => false,
    };
    match role {
        Role::Contention => use_tracepoints,
        Role::SlowpathEntry | Role::SlowpathReturn => !use_tracepoints,
        Role::Release => releases,
        // Asked for by options of their own.
        Role::Init | Role::Holders | Role::Baseline => false,
    }
}
