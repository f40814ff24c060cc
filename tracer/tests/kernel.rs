//! The running kernel: real contention, traced with owners. Needs root and a kernel with BTF; without, the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

const THREADS: usize = 8;
const TMPFS: &str = "/dev/shm";

fn can_trace() -> bool {
    let doctor = Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    doctor.status.code() == Some(0)
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
    // Threads that contend are no deadlock.
    assert!(
        !lines
            .iter()
            .any(|line| line["finding"]["kind"] == "cycle" || line["finding"]["kind"] == "self-deadlock"),
        "{stdout}"
    );
    assert_ne!(output.status.code(), Some(3));
}
