//! The running kernel: real contention, traced with owners. Needs root and a kernel with BTF; without, the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const THREADS: usize = 8;
/// For the kernel to free what nobody refers to any more, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
const TMPFS: &str = "/dev/shm";

fn can_trace() -> bool {
    let doctor = Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    doctor.status.code() == Some(0)
}

/// Whether locks inside of kernel objects can be named here, as `holdup doctor` says.
fn names_objects() -> bool {
    let doctor = Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let checks = doctor["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "object names").unwrap();
    check["verdict"] == "ok"
}

#[test]
fn threads_that_create_directories_wait_for_each_other() {
    if !can_trace() {
        eprintln!("skipped: this machine or user cannot load BPF programs; see `holdup doctor`");
        return;
    }
    let directory = format!("{TMPFS}/holdup-test-{}", std::process::id());
    fs::create_dir(&directory).unwrap();
    let stop = AtomicBool::new(false);
    let threads = Mutex::new(BTreeSet::new());
    let output = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let path = format!("{directory}/{thread}");
            let (stop, threads) = (&stop, &threads);
            scope.spawn(move || {
                let tid = rustix::thread::gettid().as_raw_nonzero().get();
                threads
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(u64::from(tid.unsigned_abs()));
                while !stop.load(Ordering::Relaxed) {
                    fs::create_dir(&path).unwrap();
                    fs::remove_dir(&path).unwrap();
                }
            });
        }
        let arguments = ["live", "--json", "--tuples", "--all", "--duration", "3"];
        let output = Command::new(env!("CARGO_BIN_EXE_holdup"))
            .args(arguments)
            .stderr(Stdio::inherit())
            .output();
        stop.store(true, Ordering::Relaxed);
        output
    })
    .unwrap();
    let inode = fs::metadata(&directory).unwrap();
    fs::remove_dir(&directory).unwrap();
    let threads = threads.into_inner().unwrap_or_else(PoisonError::into_inner);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ours = |who: &Value| who["tid"].as_u64().is_some_and(|tid| threads.contains(&tid));
    let waits: Vec<&Value> = lines
        .iter()
        .filter(|line| line["event"] == "wait" && line["kind"] == "rwsem" && ours(&line["waiter"]))
        .collect();
    let owned: Vec<_> = waits
        .iter()
        .filter(|wait| wait["owner_is"] == "held by" && ours(&wait["owner"]))
        .collect();
    assert!(
        !owned.is_empty(),
        "no wait of ours with an owner of ours among {} waits of ours",
        waits.len()
    );
    for wait in owned {
        assert_eq!(wait["mode"], "exclusive", "{wait}");
        assert_ne!(wait["waiter"]["tid"], wait["owner"]["tid"], "{wait}");
        assert_eq!(wait["owner"]["tgid"], std::process::id(), "{wait}");
    }
    if names_objects() {
        let device = (rustix::fs::major(inode.dev()), rustix::fs::minor(inode.dev()));
        let name = format!(
            "inode.i_rwsem of inode {} (tmpfs, {}:{})",
            inode.ino(),
            device.0,
            device.1
        );
        let report = lines.iter().rfind(|line| line["type"] == "report").unwrap();
        let locks = report["locks"].as_array().unwrap();
        let ours: Vec<&Value> = locks.iter().filter(|lock| lock["name"] == name.as_str()).collect();
        assert_eq!(ours.len(), 1, "locks called {name:?} among {locks:#?}");
        assert_eq!(ours[0]["class"], "inode.i_rwsem");
        assert_eq!(ours[0]["kind"], "rwsem");
        assert_eq!(ours[0]["name_source"], "object of the slab cache shmem_inode_cache");
    } else {
        eprintln!("names of objects are not compared: this kernel does not show what they need");
    }
    // Threads that contend are no deadlock.
    assert!(
        !lines
            .iter()
            .any(|line| line["finding"]["kind"] == "cycle" || line["finding"]["kind"] == "self-deadlock"),
        "{stdout}"
    );
    assert_ne!(output.status.code(), Some(3));
}

/// Programs that a process has loaded, by id.
fn programs_of(pid: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let told = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    told.filter_map(|text| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    })
    .collect()
}

#[test]
fn however_it_ends_nothing_of_it_stays_in_the_kernel() {
    if !can_trace() {
        eprintln!("skipped: this machine or user cannot load BPF programs; see `holdup doctor`");
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdup"))
            .args(["live", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = told.find(|line| line.as_ref().is_ok_and(|line| line.contains("attached")));
        assert!(attached.is_some(), "it never said that it is attached");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let room = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        // No descriptor that is opened later makes the kernel wait for a CPU that spins.
        assert!(room.trim().parse::<u32>().unwrap() >= 1024, "{room}");
        let programs = programs_of(child.id());
        assert!(programs.len() >= 2, "a begin and an end at least: {programs:?}");
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        let ended = Instant::now();
        loop {
            let loaded = aya::programs::loaded_programs().filter_map(Result::ok);
            let left: Vec<u32> = loaded.map(|p| p.id()).filter(|id| programs.contains(id)).collect();
            if left.is_empty() {
                break;
            }
            assert!(ended.elapsed() < SOON, "still loaded after {signal:?}: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
