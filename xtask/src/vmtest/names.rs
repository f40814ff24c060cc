//! Names of the kernel's own locks: one recording on each kernel, during which they are made contended one after the other.
//!
//! Each workload runs until the recording shows what is waited for; the check then compares every row with what the workload, or the
//! fault module, says is true, in the report that the guest made and in the one that this host makes from the capture.

use super::{GuestRun, VmTest, WITHOUT_RT, task_locks};
use crate::{build, process};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Boots with a disk, and what is needed to use it.
pub const GROUP: &str = "names";
pub const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "overlay"];

/// A lock that is made contended.
struct Lock {
    /// Label of the step.
    label: &'static str,
    /// Arguments of `init work`.
    work: &'static str,
    /// Text of the lock's name.
    wanted: &'static str,
    /// Its kind.
    kind: &'static str,
    /// Its name; `{}` is what the workload said of it.
    name: &'static str,
    class: &'static str,
    /// How the name is known.
    source: &'static str,
    /// Functions of which one must be on every stack of a wait for it.
    sites: &'static [&'static str],
}

const LOCKS: &[Lock] = &[
    Lock {
        label: "mmap",
        work: "mmap",
        wanted: "mmap_lock of work-mmap",
        kind: "rwsem",
        name: "mm_struct.mmap_lock of work-mmap ({pid})",
        class: "mm_struct.mmap_lock",
        source: "object of the slab cache mm_struct",
        sites: &[
            "vm_mmap_pgoff",
            "do_mprotect_pkey",
            "do_madvise",
            "vm_munmap",
            "__mm_populate",
            "do_user_addr_fault",
            "exc_page_fault",
            // The work is ended while the recording goes on.
            "do_exit",
        ],
    },
    Lock {
        label: "ext4",
        work: "directory /disk/d",
        wanted: "(ext4 on vda,",
        kind: "rwsem",
        name: "inode.i_rwsem of inode {inode} (ext4 on vda, {device})",
        class: "inode.i_rwsem",
        source: "object of the slab cache ext4_inode_cache",
        sites: &["filename_create", "do_rmdir"],
    },
    Lock {
        label: "tmpfs",
        work: "directory /tmp/d",
        wanted: "(tmpfs,",
        kind: "rwsem",
        name: "inode.i_rwsem of inode {inode} (tmpfs, {device})",
        class: "inode.i_rwsem",
        source: "object of the slab cache shmem_inode_cache",
        sites: &["filename_create", "do_rmdir"],
    },
    Lock {
        label: "overlay",
        work: "directory /ovl/d",
        wanted: "(overlay,",
        kind: "rwsem",
        name: "inode.i_rwsem of inode {inode} (overlay, {device})",
        class: "inode.i_rwsem",
        source: "object of the slab cache ovl_inode of the module overlay",
        sites: &["filename_create", "do_rmdir"],
    },
    Lock {
        label: "rtnl",
        work: "rtnl",
        wanted: "rtnl_mutex",
        kind: "mutex",
        name: "rtnl_mutex",
        class: "rtnl_mutex",
        source: "kernel symbol",
        sites: &["devinet_ioctl"],
    },
    Lock {
        label: "cgroup",
        work: "cgroup /sys/fs/cgroup",
        wanted: "cgroup_mutex",
        kind: "mutex",
        name: "cgroup_mutex",
        class: "cgroup_mutex",
        source: "kernel symbol",
        sites: &[
            "cgroup_kn_lock_live",
            "cgroup_bpf_release",
            "css_killed_work_fn",
            "css_release_work_fn",
            "css_free_rwork_fn",
        ],
    },
    Lock {
        label: "umount",
        work: "umount /mounted",
        wanted: "super_block.s_umount",
        kind: "rwsem",
        name: "super_block.s_umount of tmpfs, {device}",
        class: "super_block.s_umount",
        source: "likely: kmalloc-",
        sites: &["path_mount"],
    },
    Lock {
        label: "pipe",
        work: "pipe",
        wanted: "pipe_inode_info.mutex",
        kind: "mutex",
        name: "pipe_inode_info.mutex",
        class: "pipe_inode_info.mutex",
        source: "likely: kmalloc-",
        sites: &["pipe_write", "pipe_read"],
    },
    Lock {
        label: "tty",
        work: "tty",
        wanted: "tty_struct.atomic_write_lock",
        kind: "mutex",
        name: "tty_struct.atomic_write_lock of {pts}",
        class: "tty_struct.atomic_write_lock",
        source: "likely: kmalloc-",
        sites: &["tty_write"],
    },
];

/// A lock of the fault module.
struct ModuleLock {
    scenario: &'static str,
    /// Lock in the listing of the module.
    lock: &'static str,
    kind: &'static str,
    name: &'static str,
    class: &'static str,
    source: &'static str,
    /// Function that wants it.
    site: &'static str,
}

const MODULE: &[ModuleLock] = &[
    ModuleLock {
        scenario: "contend-mutex",
        lock: "lockfault_contend_mutex_lock",
        kind: "mutex",
        name: "lockfault_contend_mutex_lock [lockfault]",
        class: "lockfault_contend_mutex_lock [lockfault]",
        source: "kernel symbol",
        site: "lockfault_contend_mutex_take",
    },
    ModuleLock {
        scenario: "contend-rwsem",
        lock: "heap.contend.rwsem",
        kind: "rwsem",
        name: "*lockfault_contend_inode+0xa0 [lockfault]",
        class: "*lockfault_contend_inode [lockfault]",
        source: "likely: object of the slab cache kmalloc-256; the variable lockfault_contend_inode [lockfault] points to it",
        site: "lockfault_contend_rwsem_take",
    },
];

pub const TESTS: &[VmTest] = &[VmTest {
    name: "locks",
    kernels: WITHOUT_RT,
    group: GROUP,
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(400));
        steps.shell("mounts", MOUNTS);
        steps.start_attached("live", &["record", "-o", CAPTURE, "--json"]);
        steps.limit(Duration::from_secs(90));
        for lock in LOCKS {
            steps.shell(lock.label, &until_seen(lock.work, lock.wanted));
        }
        for row in MODULE {
            steps.trigger(&format!("{} ms=1000", row.scenario));
            steps.done(row.scenario);
            steps.shell(&format!("{}-seen", row.scenario), &again_until_seen(row));
            steps.truth(row.scenario);
        }
        task_locks::steps(steps);
        steps.signal("live", "INT");
        steps.wait("live");
        steps.holdup("report", &["report", CAPTURE, "--json"]);
    },
    check: |run| {
        run.output("mounts")?.exited_with(0)?;
        // On a slow machine one of the locks may really be held for seconds: then a warning is right, and only then.
        let report = run.output("report")?.stdout();
        let warned = report.contains("\"severity\":\"warning\"");
        run.output("live")?.exited_with(if warned { 4 } else { 0 })?;
        let guest = locks(&report)?;
        let host = process::capture(
            Command::new(build::guest_holdup()?)
                .args(["report", "--json"])
                .arg(run.file("names.holdup")?),
        )?;
        ensure!(
            guest == locks(&host)?,
            "the capture gives other names on another machine"
        );
        let stacks = process::capture(
            Command::new(build::guest_holdup()?)
                .args(["export", "--format", "folded"])
                .arg(run.file("names.holdup")?),
        )?;
        let mut wrong: Vec<String> = Vec::new();
        for lock in LOCKS {
            wrong.extend(
                name(run, lock)
                    .and_then(|name| wanted_in(&name, lock.sites, &stacks))
                    .err()
                    .map(|error| format!("{}: {error:#}", lock.label)),
            );
            wrong.extend(
                real(run, lock, &guest)
                    .err()
                    .map(|error| format!("{}: {error:#}", lock.label)),
            );
        }
        for row in MODULE {
            wrong.extend(
                module(run, row, &guest, &stacks)
                    .err()
                    .map(|error| format!("{}: {error:#}", row.scenario)),
            );
        }
        wrong.extend(task_locks::check(run, &guest, &stacks));
        ensure!(
            wrong.is_empty(),
            "{}\n-- contended locks\n{}",
            wrong.join("\n"),
            shown(&guest)
        );
        Ok(())
    },
}];

pub const CAPTURE: &str = "/out/names.holdup";

/// File systems to work on, unless an earlier test of the boot has mounted them.
pub const MOUNTS: &str = "grep -q ' /ovl ' /proc/mounts && exit 0; mkdir -p /disk /mounted /ovl && mount -t ext4 /dev/vda /disk && \
     mount -t tmpfs mounted /mounted && mkdir /mounted/low /mounted/up /mounted/work && \
     mount -t overlay overlay -o lowerdir=/mounted/low,upperdir=/mounted/up,workdir=/mounted/work /ovl";

/// Runs a workload until the recording shows `wanted` among the locks and below the stack of a wait; the step's time limit ends
/// what never shows it.
fn until_seen(work: &str, wanted: &str) -> String {
    format!(
        "/init work {work} & W=$!; until {}; do kill -0 $W || exit 1; sleep 0.1; done; kill $W; wait $W; true",
        is_seen(wanted)
    )
}

/// Plays a scenario of the module again until the same is so: a machine may be so slow that the lock has its name only when the first play
/// is over.
fn again_until_seen(row: &ModuleLock) -> String {
    let (seen, scenario) = (is_seen(row.name), row.scenario);
    format!(
        "until {seen}; do echo '{scenario} ms=1000' > /proc/lockfault || exit 1; \
         until grep -q 'state {scenario} done' /proc/lockfault; do sleep 0.1; done; done"
    )
}

/// Whether the recording has this text among the locks and below the stack of a wait.
fn is_seen(wanted: &str) -> String {
    format!(
        "holdup report {CAPTURE} --json 2>/dev/null | grep -qF '{wanted}' && \
         holdup export --format folded {CAPTURE} 2>/dev/null | grep -F '{wanted}' | grep -q ';.*;.*;'"
    )
}

/// The contended locks of a report.
///
/// # Errors
/// It is no report.
pub fn locks(report: &str) -> Result<Vec<Value>> {
    let report: Value = serde_json::from_str(report).context("no JSON report")?;
    Ok(report["locks"].as_array().context("a report without locks")?.clone())
}

/// A line for each.
pub fn shown(locks: &[Value]) -> String {
    let line = |lock: &Value| {
        format!(
            "{} {} {} | {} | {} | {} waits",
            lock["kind"], lock["address"], lock["name"], lock["class"], lock["name_source"], lock["waits"]
        )
    };
    locks.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The name that a lock must have, after what the workload said.
fn name(run: &GuestRun, lock: &Lock) -> Result<String> {
    let output = run.output(lock.label)?;
    output.exited_with(0)?;
    let stdout = output.stdout();
    let mut words = stdout.split_whitespace();
    let mut name = lock.name.to_owned();
    while let (Some(key), true) = (words.next(), name.contains('{')) {
        if key.starts_with("pts") {
            name = name.replace("{pts}", key);
        } else if let Some(value) = words.next() {
            name = name.replace(&format!("{{{key}}}"), value);
        }
    }
    Ok(name)
}

/// Every stack of a wait for the lock goes through code that wants it, and there is such a stack.
pub fn wanted_in(name: &str, sites: &[&str], folded: &str) -> Result<()> {
    // comm;outermost;...;innermost;lock microseconds
    let stacks: Vec<&str> = folded
        .lines()
        .filter(|line| line.contains(name) && line.matches(';').count() > 2)
        .collect();
    ensure!(!stacks.is_empty(), "no stack of a wait for {name}");
    for stack in stacks {
        ensure!(
            sites.iter().any(|site| stack.contains(site)),
            "not wanted in {sites:?}: {stack}"
        );
    }
    Ok(())
}

/// One lock of the workload has the name that it must have, and is what it must be.
fn real(run: &GuestRun, lock: &Lock, rows: &[Value]) -> Result<()> {
    let name = name(run, lock)?;
    let found: Vec<&Value> = rows.iter().filter(|row| row["name"] == name.as_str()).collect();
    ensure!(!found.is_empty(), "no contended lock is called {name}");
    for row in found {
        ensure!(row["kind"] == lock.kind, "not a {}: {row}", lock.kind);
        ensure!(row["class"] == lock.class, "not of class {}: {row}", lock.class);
        let source = row["name_source"].as_str().unwrap_or_default();
        ensure!(source.starts_with(lock.source), "not known by {}: {row}", lock.source);
    }
    Ok(())
}

/// The lock at the address that the fault module tells.
fn module(run: &GuestRun, lock: &ModuleLock, rows: &[Value], folded: &str) -> Result<()> {
    run.output(&format!("{}-seen", lock.scenario))?.exited_with(0)?;
    let address = format!("{:#018x}", run.truth(lock.scenario)?.lock(lock.lock)?);
    let row = rows
        .iter()
        .find(|row| row["address"] == address && row["kind"] == lock.kind)
        .with_context(|| format!("no contended {} at {address}", lock.kind))?;
    for (field, expected) in [("name", lock.name), ("class", lock.class), ("name_source", lock.source)] {
        ensure!(row[field] == expected, "not of {field} {expected:?}: {row}");
    }
    wanted_in(lock.name, &[lock.site], folded)
}
