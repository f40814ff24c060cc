//! One table decides which programs are attached where; `doctor` prints it and [`attach`] follows it.

use std::fmt;
use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail};
use aya::programs::{BtfTracePoint, Iter, KProbe};
use aya::{Btf, Ebpf};
use serde::Serialize;

use super::leave::{Asks, Attachment, Links};

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

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Program.
    pub program: &'static str,
    /// Function or tracepoint.
    pub target: String,
    /// `None` when attached, else why not.
    pub error: Option<String>,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            None => write!(f, "{} on {}", self.program, self.target),
            Some(error) => write!(f, "{} on {}: {error}", self.program, self.target),
        }
    }
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

/// Attaches every selected probe. A probe that cannot be attached is reported, not fatal, as long as waits can be seen at all.
///
/// # Errors
/// When no probe that shows waits could be attached.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    names: &dyn FunctionNames,
    probes: impl Iterator<Item = &'static Probe>,
    links: &mut Links,
) -> Result<Vec<Attached>> {
    let mut report = Vec::new();
    let mut sees_waits = false;
    for probe in probes {
        let before = report.len();
        match probe.via {
            Via::Tracepoint(name) => {
                let error = tracepoint(ebpf, probe.program, name, btf, links)
                    .err()
                    .map(|e| format!("{e:#}"));
                report.push(Attached {
                    program: probe.program,
                    target: name.into(),
                    error,
                });
            }
            Via::Functions(wanted) => {
                for &function in wanted {
                    let found = names.variants(function);
                    if found.is_empty() {
                        let error = Some("this kernel has no such function".into());
                        report.push(Attached {
                            program: probe.program,
                            target: function.into(),
                            error,
                        });
                    }
                    for target in found {
                        let error = kprobe(ebpf, probe.program, &target, links)
                            .err()
                            .map(|e| format!("{e:#}"));
                        report.push(Attached {
                            program: probe.program,
                            target,
                            error,
                        });
                    }
                }
            }
        }
        let begins = matches!(probe.role, Role::Contention | Role::SlowpathEntry);
        sees_waits |= begins && report.iter().skip(before).any(|a| a.error.is_none());
    }
    if !sees_waits {
        let reasons: Vec<String> = report
            .iter()
            .filter(|a| a.error.is_some())
            .map(ToString::to_string)
            .take(4)
            .collect();
        bail!(
            "no probe that shows lock waits could be attached ({})",
            reasons.join("; ")
        );
    }
    Ok(report)
}

/// The report of probes that are left out on purpose.
#[must_use]
pub fn not_attached(probes: impl Iterator<Item = &'static Probe>, why: &str) -> Vec<Attached> {
    let left_out = |probe: &'static Probe| Attached {
        program: probe.program,
        target: match probe.via {
            Via::Tracepoint(name) => name.into(),
            Via::Functions(names) => names.join(", "),
        },
        error: Some(why.into()),
    };
    probes.map(left_out).collect()
}

fn tracepoint(ebpf: &mut Ebpf, program: &str, name: &str, btf: &Btf, links: &mut Links) -> Result<()> {
    let of: &mut BtfTracePoint = ebpf.program_mut(program).context("not in the BPF object")?.try_into()?;
    of.load(name, btf).context("loading")?;
    let link = of.attach().context("attaching")?;
    let link = of.take_link(link).context("attaching")?.into();
    links.keep(program, Attachment::Tracepoint(link), Asks::EveryCpu)
}

fn kprobe(ebpf: &mut Ebpf, program: &str, function: &str, links: &mut Links) -> Result<()> {
    let of: &mut KProbe = ebpf.program_mut(program).context("not in the BPF object")?.try_into()?;
    if of.fd().is_err() {
        of.load().context("loading")?;
    }
    let link = of.attach(function, 0).context("attaching")?;
    let link = of.take_link(link).context("attaching")?;
    links.keep(
        &format!("{program}-{function}"),
        Attachment::Kprobe(link),
        Asks::GracePeriod,
    )
}

/// Loads the iterator program `name` over threads; it is run by [`run_iterator`].
///
/// # Errors
/// When the verifier or the kernel refuses it.
pub fn load_iterator(ebpf: &mut Ebpf, name: &str, btf: &Btf) -> Result<()> {
    load_iterator_over(ebpf, name, "task", btf)
}

/// Loads the iterator program `name` over `objects` (`task`, `bpf_map`); it is run by [`run_iterator`].
///
/// # Errors
/// When the verifier or the kernel refuses it.
pub fn load_iterator_over(ebpf: &mut Ebpf, name: &str, objects: &str, btf: &Btf) -> Result<()> {
    iterator(ebpf, name)?
        .load(objects, btf)
        .with_context(|| format!("loading the iterator {name}"))
}

/// Runs an iterator over every thread of the reader's pid namespace and returns what it wrote.
///
/// # Errors
/// When the iterator cannot be created or read.
pub fn run_iterator(ebpf: &mut Ebpf, name: &str, into: &mut Vec<u8>) -> Result<()> {
    open_iterator(ebpf, name)?
        .read_to_end(into)
        .with_context(|| format!("reading the iterator {name}"))?;
    Ok(())
}

/// Creates an iteration, which runs while its file is read.
///
/// # Errors
/// When the iterator cannot be created.
pub fn open_iterator(ebpf: &mut Ebpf, name: &str) -> Result<File> {
    let program = iterator(ebpf, name)?;
    let link = program
        .attach()
        .with_context(|| format!("creating the iterator {name}"))?;
    program
        .take_link(link)?
        .into_file()
        .with_context(|| format!("opening the iterator {name}"))
}

fn iterator<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}"))?
        .try_into()?)
}
