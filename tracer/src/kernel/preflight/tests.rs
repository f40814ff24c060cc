use std::path::Path;

use super::*;
use crate::kernel::{btf::tests::blob::Blob, testing::Tree};

/// A machine on which nothing is fatal; tests take things away from it.
struct Fake {
    tree: Tree,
    btf: Result<Btf, BtfLoadError>,
    symbols: Result<Symbols, SymbolsError>,
}

const SYMBOLS: &str = "\
ffffffff81000000 T mutex_lock
ffffffff82000000 D page_offset_base
ffffffff82000008 D vmemmap_base
0000000000000100 A watchdog_touch_ts
0000000000000200 A hrtimer_bases
0000000000000300 A rcu_data
ffffffff82000010 D watchdog_enabled
ffffffff82000018 D watchdog_thresh
ffffffff82000020 d watchdog_allowed_mask
ffffffff82000028 d rcu_state
ffffffff82000030 D jiffies
ffffffff82000038 B tick_nsec
";
const ALL_CAPS: &str = "Name:\tholdup\nCapEff:\t000001ffffffffff\n";

fn good_types() -> Blob {
    let mut b = Blob::new();
    let long = b.int("long", 8, 64);
    let char_ = b.int("char", 1, 8);
    let comm = b.array(char_, 16);
    let names = [
        "pid",
        "tgid",
        "start_time",
        "group_leader",
        "__state",
        "exit_state",
        "flags",
    ];
    let mut members: Vec<_> = (1..).zip(names).map(|(i, n)| (n, long, i * 64, 0)).collect();
    members.push(("comm", comm, 1024, 0));
    b.strukt("task_struct", 256, &members);
    b.strukt("mutex", 32, &[("owner", long, 0, 0)]);
    b.strukt("rw_semaphore", 40, &[("count", long, 0, 0), ("owner", long, 64, 0)]);
    let slab = b.name("PG_slab");
    b.add("pageflags", 6, false, 1, 4, &[slab, 9]);
    let proto = b.add("", 13, false, 0, 0, &[]);
    b.add("bpf_iter_task", 12, false, 1, proto, &[]);
    for t in ["btf_trace_contention_begin", "btf_trace_contention_end"] {
        b.add(t, 8, false, 0, proto, &[]);
    }
    b
}

impl Fake {
    fn new() -> Self {
        let tree = Tree::new();
        tree.file("/proc/sys/kernel/osrelease", "6.12.117+deb12-amd64\n")
            .file("/proc/self/status", ALL_CAPS)
            .file("/proc/self/uid_map", "         0          0 4294967295\n")
            .file("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
            .file("/sys/bus/event_source/devices/kprobe/type", "6\n")
            .file("/sys/kernel/tracing/available_filter_functions", "mutex_lock\n")
            .file("/proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC Debian\n")
            .file("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme sse\n")
            .file("/proc/sys/net/core/bpf_jit_enable", "1\n")
            .file("/proc/sys/kernel/kptr_restrict", "0\n")
            .link("/proc/self/ns/pid", "pid:[4026531836]");
        let btf = Ok(good_types().parse());
        Self {
            tree,
            btf,
            symbols: Symbols::parse(Path::new("/proc/kallsyms"), SYMBOLS.as_bytes()),
        }
    }

    fn with_types(mut self, bytes: Vec<u8>) -> Self {
        let path = Path::new("/sys/kernel/btf/vmlinux").to_owned();
        self.btf = Btf::parse(bytes).map_err(|source| BtfLoadError::Parse { path, source });
        self
    }

    fn with_symbols(mut self, text: &str) -> Self {
        self.symbols = Symbols::parse(Path::new("/proc/kallsyms"), text.as_bytes());
        self
    }

    fn with_file(self, path: &str, text: &str) -> Self {
        self.tree.file(path, text);
        self
    }

    fn check(&self) -> Preflight {
        let root = self.tree.root();
        Preflight::of(Machine {
            root: &root,
            btf: self.btf.as_ref(),
            symbols: self.symbols.as_ref(),
        })
    }

    /// The verdict and text of one check.
    fn one(&self, name: &str) -> (Verdict, String) {
        let preflight = self.check();
        let check = preflight.check(name).unwrap_or_else(|| panic!("no check {name}"));
        (
            check.verdict,
            format!("{}; {}; {}", check.found, check.means, check.fix),
        )
    }

    fn refusal(&self) -> String {
        self.check().pass().expect_err("must be refused").to_string()
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
    assert!(!text.contains('\n'), "one paragraph: {text:?}");
}

#[test]
fn a_good_machine_passes_and_lists_every_check() {
    let preflight = Fake::new().check();
    assert_eq!(preflight.pass(), Ok(()));
    let names: Vec<_> = preflight
        .checks
        .iter()
        .filter(|c| c.name != "kernel fields")
        .map(|c| (c.name, c.verdict))
        .collect();
    let expected = [
        "kernel",
        "privileges",
        "lockdown",
        "types",
        "tracepoints",
        "task iterator",
        "kprobes",
        "symbols",
        "object names",
        "CPU stalls",
        "tracefs",
        "preemption",
        "spinlocks",
        "pid namespace",
        "BPF compiler",
        "locked memory",
    ];
    assert_eq!(names, expected.map(|n| (n, Verdict::Ok)));
}

#[test]
fn wrong_privileges_are_fatal_and_named() {
    for (mask, lacking) in [
        ("0", "CAP_BPF and CAP_PERFMON"),
        ("8000000000", "CAP_PERFMON"),
        ("4000000000", "CAP_BPF"),
    ] {
        let fake = Fake::new().with_file("/proc/self/status", &format!("CapEff:\t{mask}\n"));
        let text = fake.refusal();
        assert_has(
            &text,
            &[
                &format!("this process lacks {lacking};"),
                "run it as root",
                "holdup doctor",
            ],
        );
    }
    let fake = Fake::new().with_file("/proc/self/status", "CapEff:\t000000c000000000\n");
    assert_eq!(
        fake.one("privileges"),
        (Verdict::Ok, "CAP_BPF and CAP_PERFMON; ; ".to_owned())
    );
    let container = Fake::new().with_file("/proc/self/uid_map", "0 100000 65536\n");
    assert_has(&container.refusal(), &["user namespace", "root of the host"]);
    let unknown = Fake::new().with_file("/proc/self/status", "Name: x\n");
    assert_eq!(unknown.one("privileges").0, Verdict::Degraded);
}

#[test]
fn without_types_nothing_works() {
    let mut fake = Fake::new();
    let path = Path::new("/sys/kernel/btf/vmlinux");
    fake.btf = Btf::load(&fake.tree.root().path("/sys/kernel/btf/vmlinux"));
    assert_has(
        &fake.refusal(),
        &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y", "No such file"],
    );
    assert_eq!(
        fake.one("tracepoints"),
        (Verdict::Degraded, "unknown without type information; ; ".to_owned())
    );
    assert!(fake.check().check("kernel fields").is_none());
    let fake = fake.with_types(b"garbage, and longer than a header".to_vec());
    assert_has(&fake.refusal(), &[&path.display().to_string(), "is not BTF's"]);
}

#[test]
fn lockdown_is_fatal_in_confidentiality_mode_only() {
    for (text, verdict, found) in [
        ("[none] integrity confidentiality", Verdict::Ok, "none"),
        ("none [integrity] confidentiality", Verdict::Ok, "integrity"),
        (
            "none integrity [confidentiality]",
            Verdict::Fatal,
            "locked down (confidentiality)",
        ),
        ("", Verdict::Ok, "not in use"),
    ] {
        let (is, says) = Fake::new()
            .with_file("/sys/kernel/security/lockdown", text)
            .one("lockdown");
        assert_eq!(is, verdict, "{text}");
        assert_has(&says, &[found]);
    }
    let fake = Fake::new();
    fake.tree.remove("/sys/kernel/security/lockdown");
    assert_eq!(fake.one("lockdown").0, Verdict::Ok);
}

#[test]
fn a_kernel_without_the_tracepoints_falls_back_to_kprobes() {
    let mut types = Blob::new();
    let proto = types.add("", 13, false, 0, 0, &[]);
    types.add("btf_trace_contention_begin", 8, false, 0, proto, &[]);
    let fake = Fake::new().with_types(types.bytes());
    let (verdict, text) = fake.one("tracepoints");
    assert_eq!(verdict, Verdict::Degraded);
    assert_has(&text, &["no contention_end;", "by kprobes", "5.19"]);
    assert_eq!(fake.one("task iterator").0, Verdict::Degraded);
}

#[test]
fn a_missing_essential_field_is_fatal_and_others_are_not() {
    let fake = Fake::new().with_types(Blob::new().bytes());
    let text = fake.refusal();
    assert_has(
        &text,
        &[
            "this kernel has no task_struct.pid",
            "tasks cannot be named",
            "mutex.owner",
            ". Also: ",
        ],
    );
    assert!(!text.contains("in_iowait"), "only what is fatal: {text}");
    let checks = fake.check().checks;
    let field = |name: &str| {
        checks
            .iter()
            .find(|c| c.found.contains(name))
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(field("task_struct.in_iowait").verdict, Verdict::Degraded);
    assert_eq!(field("task_struct.blocker").verdict, Verdict::Ok);
}

#[test]
fn what_naming_objects_needs_is_said() {
    let without = Fake::new().with_symbols("ffffffff81000000 T a\n");
    let (verdict, text) = without.one("object names");
    assert_eq!(verdict, Verdict::Degraded);
    assert_has(
        &text,
        &[
            "page_offset_base and vmemmap_base",
            "call sites only",
            "CONFIG_KALLSYMS_ALL=y",
        ],
    );
    let (_, text) = Fake::new().with_types(Blob::new().bytes()).one("object names");
    assert_has(&text, &["how a page belongs to a slab"]);
}

#[test]
fn what_tells_of_stalled_cpus_is_disabled_by_name() {
    let some = Fake::new().with_symbols("ffffffff81000000 A hrtimer_bases\nffffffff81000010 D jiffies\n");
    let (verdict, text) = some.one("CPU stalls");
    assert_eq!(verdict, Verdict::Degraded);
    assert_has(
        &text,
        &[
            "does not show watchdog_touch_ts, watchdog_enabled, watchdog_thresh, watchdog_allowed_mask, rcu_state, rcu_data, tick_nsec",
            "softlockup watchdog has not run",
            "RCU's grace period are not shown",
            "CONFIG_KALLSYMS_ALL=y",
        ],
    );
    assert!(!text.contains("timers"), "{text}");
}

#[test]
fn hidden_symbols_name_the_remedy_that_is_missing() {
    let hidden = "0000000000000000 T a\n";
    let (verdict, text) = Fake::new()
        .with_symbols(hidden)
        .with_file("/proc/sys/kernel/kptr_restrict", "2\n")
        .one("symbols");
    assert_eq!(verdict, Verdict::Degraded);
    assert_has(
        &text,
        &["kptr_restrict is 2", "bare addresses", "sysctl kernel.kptr_restrict=1"],
    );
    let weak = Fake::new()
        .with_symbols(hidden)
        .with_file("/proc/self/status", "CapEff:\t000000c000000000\n");
    assert_has(&weak.one("symbols").1, &["kptr_restrict is 0", "CAP_SYSLOG"]);
    let partly = Fake::new()
        .with_symbols("ffffffff81000000 T a\nnonsense\n")
        .one("symbols");
    assert_eq!(partly.0, Verdict::Degraded);
    assert_has(&partly.1, &["1 symbols, and 1 lines"]);
    assert_has(&Fake::new().with_symbols("").one("symbols").1, &["lists no symbols"]);
}

#[test]
fn old_kernels_are_refused_and_unreadable_releases_are_not() {
    for (release, verdict) in [
        ("5.9.16", Verdict::Fatal),
        ("4.19.0-27", Verdict::Fatal),
        ("5.10.0", Verdict::Ok),
        ("weird", Verdict::Degraded),
    ] {
        assert_eq!(
            Fake::new()
                .with_file("/proc/sys/kernel/osrelease", release)
                .one("kernel")
                .0,
            verdict,
            "{release}"
        );
    }
}

#[test]
fn kprobes_may_be_absent_or_switched_off() {
    let fake = Fake::new();
    fake.tree.file("/sys/kernel/debug/kprobes/enabled", "0\n");
    assert_has(&fake.one("kprobes").1, &["switched off", "echo 1 >"]);
    fake.tree.file("/sys/kernel/debug/kprobes/enabled", "1\n");
    assert_eq!(fake.one("kprobes").0, Verdict::Ok);
    fake.tree.remove("/sys/bus/event_source/devices/kprobe/type");
    assert_eq!(fake.one("kprobes").0, Verdict::Degraded);
}

#[test]
fn guests_without_paravirtual_spinlocks_are_warned() {
    let guest = || Fake::new().with_file("/proc/cpuinfo", "flags\t\t: fpu hypervisor sse\n");
    assert_has(&guest().one("spinlocks").1, &["may never show", "test-and-set"]);
    assert_eq!(guest().one("spinlocks").0, Verdict::Degraded);
    let with = guest().with_symbols("ffffffff81000000 T __pv_queued_spin_lock_slowpath\n");
    assert_eq!(with.one("spinlocks").0, Verdict::Ok);
    let other_line = Fake::new().with_file("/proc/cpuinfo", "model name\t: hypervisor\nflags\t\t: fpu\n");
    assert_eq!(other_line.one("spinlocks").1, "queued; contention is seen; ; ");
}

#[test]
fn another_pid_namespace_is_told() {
    let fake = Fake::new();
    fake.tree
        .remove("/proc/self/ns/pid")
        .link("/proc/self/ns/pid", "pid:[4026532281]");
    let (verdict, text) = fake.one("pid namespace");
    assert_eq!(verdict, Verdict::Degraded);
    assert_has(&text, &["pid:[4026532281], which is not the host's", "--pid=host"]);
    fake.tree.remove("/proc/self/ns/pid");
    assert_eq!(fake.one("pid namespace").0, Verdict::Degraded);
}

#[test]
fn locked_memory_matters_on_old_kernels_only() {
    let limits = "Limit  Soft Limit  Hard Limit  Units\nMax locked memory         65536                65536                bytes\n";
    let weak = "CapEff:\t000000c000000000\n";
    for (release, status, text, verdict) in [
        ("6.1.0", weak, limits, Verdict::Ok),
        ("5.10.0", weak, limits, Verdict::Degraded),
        ("5.10.0", ALL_CAPS, limits, Verdict::Ok),
        (
            "5.10.0",
            weak,
            "Max locked memory  unlimited  unlimited  bytes\n",
            Verdict::Ok,
        ),
    ] {
        let fake = Fake::new()
            .with_file("/proc/sys/kernel/osrelease", release)
            .with_file("/proc/self/status", status)
            .with_file("/proc/self/limits", text);
        assert_eq!(fake.one("locked memory").0, verdict, "{release} {status} {text}");
    }
}

#[test]
fn an_interpreting_kernel_and_an_unmounted_tracefs_are_told() {
    let fake = Fake::new().with_file("/proc/sys/net/core/bpf_jit_enable", "0\n");
    assert_has(
        &fake.one("BPF compiler").1,
        &["bpf_jit_enable is 0", "sysctl net.core.bpf_jit_enable=1"],
    );
    fake.tree.remove("/sys/kernel/tracing/available_filter_functions");
    assert_has(
        &fake.one("tracefs").1,
        &["available_filter_functions", "mount -t tracefs"],
    );
    fake.tree.file("/sys/kernel/realtime", "1\n");
    assert_has(&fake.one("preemption").1, &["PREEMPT_RT; ", "rt_mutexes"]);
}

#[test]
fn the_worst_check_decides_and_text_has_its_lines() {
    let fake = Fake::new().with_file("/proc/sys/net/core/bpf_jit_enable", "0\n");
    let preflight = fake.check();
    assert_eq!(preflight.verdict(), Verdict::Degraded);
    let text = preflight.to_string();
    assert!(
        text.contains("ok        kernel           Linux 6.12.117+deb12-amd64\n"),
        "{text}"
    );
    let jit =
        "degraded  BPF compiler     off (net.core.bpf_jit_enable is 0)\n                           means: programs are";
    assert!(text.contains(jit), "{text}");
    let json = serde_json::to_value(&preflight).expect("plain data");
    assert_eq!(
        json[0],
        serde_json::json!({"name": "kernel", "verdict": "ok", "found": "Linux 6.12.117+deb12-amd64", "means": "", "fix": ""})
    );
}

#[test]
fn the_running_machine_is_checked_without_fatal_surprises() {
    let root = Sysroot::host();
    let btf = Btf::load(Path::new(crate::kernel::btf::VMLINUX));
    let symbols = Symbols::load(Path::new(crate::kernel::symbols::KALLSYMS));
    let preflight = Preflight::of(Machine {
        root: &root,
        btf: btf.as_ref(),
        symbols: symbols.as_ref(),
    });
    let kernel = preflight.check("kernel").expect("always looked at");
    assert!(
        kernel
            .found
            .contains(root.text("/proc/sys/kernel/osrelease").expect("Linux").as_str()),
        "{kernel}"
    );
    assert_eq!(
        preflight.check("types").map(|c| c.verdict == Verdict::Fatal),
        Some(btf.is_err())
    );
}
