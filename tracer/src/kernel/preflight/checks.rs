//! The checks, one function each, in the order they are printed.

use super::{
    Check, Machine, Verdict,
    caps::{Cap, Caps},
};
use crate::kernel::{
    names,
    offsets::{Feature, ResolvedOffsets, Weight},
    probeable::FunctionList,
    release::{self, Release, Version},
    stall_variables,
    symbols::SymbolsError,
};

/// The oldest kernel holdup is made for: task iterators and the ring buffer are there, and its locks were read.
const OLDEST: Version = Version::new(5, 10);
/// From here on BPF memory counts against the memory cgroup and not against the locked-memory limit.
const NO_MEMLOCK: Version = Version::new(5, 11);
/// `/proc/self/ns/pid` of the initial namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INIT_PID_NS: &str = "pid:[4026531836]";
/// What the maps need, roughly, where they count against the locked-memory limit.
const MEMLOCK_NEEDED: u64 = 64 << 20;

const CHECKS: &[fn(Machine<'_>) -> Check] = &[
    kernel_release,
    privileges,
    lockdown,
    types,
    tracepoints,
    iterators,
    kprobes,
    symbols,
    object_names,
    stalls,
    probe_lists,
    preempt_rt,
    spin_events,
    pid_namespace,
    bpf_jit,
    memlock,
];

pub(super) fn all(machine: Machine<'_>) -> Vec<Check> {
    CHECKS
        .iter()
        .map(|check| check(machine))
        .chain(fields(machine))
        .collect()
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            means: String::new(),
            fix: String::new(),
        }
    }

    fn degraded(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Degraded,
            ..Self::ok(name, found)
        }
    }

    fn fatal(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fatal,
            ..Self::ok(name, found)
        }
    }

    fn means(self, means: impl Into<String>) -> Self {
        Self {
            means: means.into(),
            ..self
        }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: fix.into(),
            ..self
        }
    }
}

fn kernel_release(m: Machine<'_>) -> Check {
    const NAME: &str = "kernel";
    match release::of(m.root) {
        Ok(r) if r.version < OLDEST => Check::fatal(NAME, format!("Linux {r}"))
            .means("holdup needs Linux 5.10 or newer")
            .fix("run it on a newer kernel"),
        Ok(r) => Check::ok(NAME, format!("Linux {r}")),
        Err(e) => {
            Check::degraded(NAME, e.to_string()).means("what depends on the release is decided by its types alone")
        }
    }
}

fn privileges(m: Machine<'_>) -> Check {
    const NAME: &str = "privileges";
    const FIX: &str = "run it as root of the host, or give it CAP_BPF, CAP_PERFMON and CAP_SYSLOG";
    let Some(caps) = effective_caps(m) else {
        return Check::degraded(NAME, "the capabilities in /proc/self/status cannot be read")
            .means("loading programs may be refused")
            .fix("mount /proc");
    };
    let lacking: Vec<_> = [(Cap::Bpf, "CAP_BPF"), (Cap::Perfmon, "CAP_PERFMON")]
        .iter()
        .filter(|(c, _)| !caps.has(*c))
        .map(|c| c.1)
        .collect();
    if !lacking.is_empty() {
        return Check::fatal(NAME, format!("this process lacks {}", lacking.join(" and ")))
            .means("the kernel will not load programs that trace it")
            .fix(FIX);
    }
    // Capabilities of a user namespace look the same but count for nothing here.
    let mapped = m.root.text("/proc/self/uid_map").unwrap_or_default();
    let initial: Vec<_> = mapped.split_ascii_whitespace().collect();
    if !initial.is_empty() && initial != ["0", "0", "4294967295"] {
        return Check::fatal(
            NAME,
            "the capabilities of this process are those of a user namespace (a rootless container?)",
        )
        .means("the kernel will not load programs that trace it")
        .fix(FIX);
    }
    let how = if caps.has(Cap::SysAdmin) {
        "CAP_SYS_ADMIN"
    } else {
        "CAP_BPF and CAP_PERFMON"
    };
    Check::ok(NAME, how)
}

fn lockdown(m: Machine<'_>) -> Check {
    const NAME: &str = "lockdown";
    // `none [integrity] confidentiality`: the mode in force stands in brackets.
    let text = m.root.text("/sys/kernel/security/lockdown").unwrap_or_default();
    let mode = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(mode, _)| mode);
    match mode {
        Some("confidentiality") => Check::fatal(NAME, "the kernel is locked down (confidentiality)")
            .means("programs may not read kernel memory, so no lock and no owner can be seen")
            .fix("boot with lockdown=integrity or without lockdown (with Secure Boot this may be set by the firmware)"),
        Some(mode) => Check::ok(NAME, mode),
        None => Check::ok(NAME, "not in use"),
    }
}

fn types(m: Machine<'_>) -> Check {
    const NAME: &str = "types";
    match m.btf {
        Ok(btf) => Check::ok(NAME, format!("{} types in /sys/kernel/btf/vmlinux", btf.type_count())),
        Err(e) => Check::fatal(NAME, e.to_string())
            .means("without it the places of owners, tasks and queues in kernel memory are unknown")
            .fix("boot a distribution kernel that has it, and mount /sys"),
    }
}

fn tracepoints(m: Machine<'_>) -> Check {
    const NAME: &str = "tracepoints";
    let lacking: Vec<_> = ["contention_begin", "contention_end"]
        .into_iter()
        .filter(|t| m.btf.is_ok_and(|btf| !btf.has_tracepoint(t)))
        .collect();
    if m.btf.is_err() {
        Check::degraded(NAME, "unknown without type information")
    } else if lacking.is_empty() {
        Check::ok(NAME, "lock:contention_begin and lock:contention_end")
    } else {
        Check::degraded(NAME, format!("this kernel has no {}", lacking.join(" and no ")))
            .means("contention is traced by kprobes on the slow paths instead, at a higher cost, as far as those can be probed")
            .fix("Linux 5.19 and newer have them")
    }
}

fn iterators(m: Machine<'_>) -> Check {
    const NAME: &str = "task iterator";
    match m.btf {
        Ok(btf) if btf.has_func("bpf_iter_task") => Check::ok(NAME, "iter/task"),
        Ok(_) => Check::degraded(NAME, "this kernel has no iter/task")
            .means("hangs that are older than holdup cannot be explained, and owners are not re-read"),
        Err(_) => Check::degraded(NAME, "unknown without type information"),
    }
}

fn kprobes(m: Machine<'_>) -> Check {
    const NAME: &str = "kprobes";
    const MEANS: &str = "releases, and what no tracepoint shows, are not traced";
    let disarmed = m.root.text("/sys/kernel/debug/kprobes/enabled").is_ok_and(|t| t == "0");
    if !m.root.exists("/sys/bus/event_source/devices/kprobe/type") {
        Check::degraded(NAME, "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)").means(MEANS)
    } else if disarmed {
        Check::degraded(NAME, "kprobes are switched off in /sys/kernel/debug/kprobes/enabled")
            .means(MEANS)
            .fix("echo 1 > /sys/kernel/debug/kprobes/enabled")
    } else {
        Check::ok(NAME, "usable")
    }
}

fn symbols(m: Machine<'_>) -> Check {
    const NAME: &str = "symbols";
    let means =
        "locks and stack frames stay bare addresses, and kprobes cannot find functions that the compiler renamed";
    match m.symbols {
        Ok(s) if s.malformed() > 0 => Check::degraded(
            NAME,
            format!(
                "{} symbols, and {} lines that were not understood",
                s.len(),
                s.malformed()
            ),
        )
        .means("some addresses may get no name, or a neighbour's"),
        Ok(s) => Check::ok(NAME, format!("{} symbols", s.len())),
        Err(SymbolsError::Hidden { .. }) => {
            let restrict = m
                .root
                .text("/proc/sys/kernel/kptr_restrict")
                .unwrap_or_else(|_| "unknown".to_owned());
            let syslog = effective_caps(m).is_some_and(|caps| caps.has(Cap::Syslog));
            let fix = if syslog {
                "sysctl kernel.kptr_restrict=1"
            } else {
                "run holdup as root or with CAP_SYSLOG"
            };
            Check::degraded(
                NAME,
                format!("the kernel hides its addresses (kernel.kptr_restrict is {restrict})"),
            )
            .means(means)
            .fix(fix)
        }
        Err(e) => Check::degraded(NAME, e.to_string()).means(means),
    }
}

fn object_names(m: Machine<'_>) -> Check {
    const NAME: &str = "object names";
    let (Ok(symbols), Ok(types)) = (m.symbols, m.btf) else {
        return Check::degraded(NAME, "neither without symbols nor without types")
            .means("locks are shown with their addresses and call sites only");
    };
    match names::cannot_name_objects(symbols, types) {
        None => Check::ok(NAME, "locks inside of kernel objects are named after their struct"),
        Some(why) => Check::degraded(NAME, why)
            .means(
                "locks inside of kernel objects (inodes, address spaces, sockets) are named by their call sites only",
            )
            .fix("an x86-64 kernel with CONFIG_KALLSYMS_ALL=y shows what is needed"),
    }
}

/// What the kernel's own watchers know of CPUs; the fields of its structs have lines of their own.
fn stalls(m: Machine<'_>) -> Check {
    const NAME: &str = "CPU stalls";
    let Ok(symbols) = m.symbols else {
        return Check::degraded(NAME, "nothing without symbols")
            .means("what the kernel's own watchers know of stuck CPUs is not shown");
    };
    let absent = stall_variables::absent(symbols);
    if absent.is_empty() {
        return Check::ok(
            NAME,
            "softlockup watchdog, timers and RCU tell of CPUs that neither schedule nor tick",
        );
    }
    let names: Vec<&str> = absent.iter().flat_map(|a| a.names.iter().copied()).collect();
    let loses: Vec<&str> = absent.iter().map(|a| a.loses).collect();
    Check::degraded(NAME, format!("this kernel does not show {}", names.join(", ")))
        .means(loses.join("; "))
        .fix("a kernel with CONFIG_KALLSYMS_ALL=y and CONFIG_SOFTLOCKUP_DETECTOR=y has them")
}

fn probe_lists(m: Machine<'_>) -> Check {
    const NAME: &str = "tracefs";
    match FunctionList::ftrace(m.root) {
        Ok(list) => Check::ok(NAME, format!("{} functions can be hooked", list.len())),
        // Attaching goes through perf events and needs no tracefs.
        Err(e) => Check::ok(NAME, format!("cannot read {}: {}", e.path.display(), e.source))
            .means("whether a function can be probed shows only when it is tried")
            .fix(e.fix),
    }
}

fn preempt_rt(m: Machine<'_>) -> Check {
    const NAME: &str = "preemption";
    if release::is_preempt_rt(m.root) {
        Check::ok(NAME, "PREEMPT_RT")
            .means("mutexes, rw_semaphores and spinlocks are rt_mutexes here, and are shown as such")
    } else {
        Check::ok(NAME, "not PREEMPT_RT")
    }
}

/// On x86 a guest without paravirtual spinlocks spins in virt_spin_lock(), a plain test-and-set that neither the tracepoint
/// nor a queue ever sees (arch/x86/include/asm/qspinlock.h).
fn spin_events(m: Machine<'_>) -> Check {
    const NAME: &str = "spinlocks";
    let cpuinfo = m.root.text("/proc/cpuinfo").unwrap_or_default();
    let guest = cpuinfo
        .lines()
        .filter(|l| l.starts_with("flags"))
        .any(|l| l.split_ascii_whitespace().any(|flag| flag == "hypervisor"));
    let paravirtual = m
        .symbols
        .is_ok_and(|s| !s.find_code("__pv_queued_spin_lock_slowpath").is_empty());
    match (guest, paravirtual) {
        (false, _) => Check::ok(NAME, "queued; contention is seen"),
        (true, true) => Check::ok(NAME, "virtual machine, kernel with paravirtual spinlocks")
            .means("contention is seen if the hypervisor offers them or the CPUs are dedicated; if it never shows, they are test-and-set locks"),
        (true, false) => Check::degraded(NAME, "virtual machine, kernel without (known) paravirtual spinlocks")
            .means("spinlock contention may never show: such guests use test-and-set locks, which have no event and no queue"),
    }
}

fn pid_namespace(m: Machine<'_>) -> Check {
    const NAME: &str = "pid namespace";
    match m.root.link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == INIT_PID_NS => Check::ok(NAME, "the host's"),
        Ok(link) => Check::degraded(NAME, format!("{}, which is not the host's", link.display()))
            .means("only tasks of this namespace can be listed, and thread ids in events are those of the host")
            .fix("run holdup in the host's pid namespace (docker run --pid=host, nsenter -t 1 -p)"),
        Err(e) => Check::degraded(NAME, format!("cannot read /proc/self/ns/pid: {e}"))
            .means("if this is not the host's namespace, not all tasks can be listed"),
    }
}

fn bpf_jit(m: Machine<'_>) -> Check {
    const NAME: &str = "BPF compiler";
    match m.root.text("/proc/sys/net/core/bpf_jit_enable") {
        Ok(t) if t == "0" => Check::degraded(NAME, "off (net.core.bpf_jit_enable is 0)")
            .means("programs are interpreted: several times the overhead, and some cannot attach")
            .fix("sysctl net.core.bpf_jit_enable=1"),
        Ok(_) => Check::ok(NAME, "on"),
        Err(_) => Check::ok(NAME, "no switch (kernel without networking, or /proc/sys not mounted)"),
    }
}

fn memlock(m: Machine<'_>) -> Check {
    const NAME: &str = "locked memory";
    let release: Option<Release> = release::of(m.root).ok();
    if release.is_some_and(|r| r.version >= NO_MEMLOCK) {
        return Check::ok(NAME, "not limited (BPF memory counts against the memory cgroup)");
    }
    let limits = m.root.text("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max locked memory")?.split_ascii_whitespace().next());
    // Any number that cannot be read, `unlimited` above all, limits nothing.
    let limit: u64 = soft.and_then(|t| t.parse().ok()).unwrap_or(u64::MAX);
    let may_raise = effective_caps(m).is_some_and(|caps| caps.has(Cap::SysResource));
    if limit >= MEMLOCK_NEEDED || may_raise {
        Check::ok(NAME, format!("limit {}", soft.unwrap_or("unknown")))
    } else {
        Check::degraded(
            NAME,
            format!("limit {limit} bytes, and no CAP_SYS_RESOURCE to raise it"),
        )
        .means("this kernel counts BPF maps against it, and may refuse them")
        .fix("ulimit -l unlimited")
    }
}

/// One check for each feature that lacks a field, or one that all are there.
fn fields(m: Machine<'_>) -> Vec<Check> {
    const NAME: &str = "kernel fields";
    let Ok(btf) = m.btf else { return Vec::new() };
    let resolved = ResolvedOffsets::resolve(btf);
    let disabled = resolved.disabled();
    if disabled.is_empty() {
        return vec![Check::ok(NAME, format!("all {} found", resolved.rows.len()))];
    }
    let lost = |(feature, fields): (Feature, Vec<&str>)| {
        let found = format!("this kernel has no {}", fields.join(", "));
        let check = match feature.weight() {
            Weight::Covered => Check::ok(NAME, found),
            Weight::Lossy => Check::degraded(NAME, found),
            Weight::Essential => Check::fatal(NAME, found).fix("please report this with the output of `holdup doctor`"),
        };
        check.means(feature.loses())
    };
    disabled.into_iter().map(lost).collect()
}

fn effective_caps(m: Machine<'_>) -> Option<Caps> {
    Caps::effective(&m.root.text("/proc/self/status").ok()?)
}
