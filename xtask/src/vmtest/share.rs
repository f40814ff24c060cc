//! How many of the locks that real work makes contended are named: many kinds of work at the same time, in the boot of the lock names.
//!
//! The work goes on until the recording has many contended locks. What is not named is listed.

use super::names::{GROUP, MOUNTS, locks, shown};
use super::{VmTest, WITHOUT_RT};
use anyhow::ensure;
use serde_json::Value;
use std::time::Duration;

const CAPTURE: &str = "/out/share.holdup";
/// Contended locks without which the share says nothing.
const LEAST: usize = 120;

/// Files, memory, processes, cgroups, namespaces, networks, terminals, keys and everything that processes talk through.
const MIXED: &[&str] = &[
    "block /dev/vda",
    "cgroup /sys/fs/cgroup/mixed",
    "cgroup-members /sys/fs/cgroup",
    "channels",
    "connections",
    "directory /disk/e",
    "directory /tmp/e",
    "events",
    "keys",
    "mmap",
    "mounts /mixed",
    "namespaces",
    "pipe",
    "processes",
    "rtnl",
    "shared-file /disk/shared",
    "shared-file /tmp/shared",
    "system-v",
    "threads",
    "tree /disk/t",
    "tree /tmp/t",
    "tree /ovl/t",
    "tty",
    "ttys",
];

pub const TESTS: &[VmTest] = &[VmTest {
    name: "share",
    kernels: WITHOUT_RT,
    group: GROUP,
    expects: &[],
    steps: |steps| {
        steps.limit(Duration::from_secs(600));
        steps.shell("mounts", MOUNTS);
        // 150 busy threads leave a recorder of their own priority some moments in a minute: most of this test was waiting for those.
        steps.start_attached_shell(
            "live",
            &format!("renice -n -20 -p $$ && exec holdup record -o {CAPTURE}"),
        );
        steps.shell("work", &work());
        steps.signal("live", "INT");
        steps.wait("live");
        steps.shell("stop", "kill -KILL $(cat /tmp/share.pids)");
        steps.holdup("report", &["report", CAPTURE, "--json"]);
    },
    check: |run| {
        run.output("mounts")?.exited_with(0)?;
        run.output("work")?.exited_with(0)?;
        let locks = locks(&run.output("report")?.stdout())?;
        let count = |is: fn(&Value) -> bool| locks.iter().filter(|lock| is(lock)).count();
        let (all, told, named) = (
            locks.len(),
            count(is_told),
            count(|lock| is_told(lock) || is_placed(lock)),
        );
        let others: Vec<Value> = locks.iter().filter(|lock| !is_told(lock)).cloned().collect();
        println!(
            "  of {all} contended locks {told} are told by what they are, {named} by that or by where they are wanted; not by what \
             they are:\n{}",
            shown(&others)
        );
        ensure!(all >= LEAST, "only {all} locks were contended");
        ensure!(
            named * 10 >= all * 9,
            "only {named} of {all} contended locks are named\n{}",
            shown(&locks)
        );
        Ok(())
    },
}];

/// Named by what it is: a variable, a member of a struct, a place on the stack of a task.
fn is_told(lock: &Value) -> bool {
    let text = |field: &str| lock[field].as_str().unwrap_or_default().to_owned();
    let (name, class) = (text("name"), text("class"));
    name.contains("on the stack of ") || !(class.is_empty() || class.contains("+0x") || class.starts_with("wanted at "))
}

/// Named by where it is wanted. A place in an object of unknown kind is an address by another name.
fn is_placed(lock: &Value) -> bool {
    lock["class"]
        .as_str()
        .is_some_and(|class| class.starts_with("wanted at "))
}

/// Starts all of it, and waits until enough locks were contended. None of it may fail. Then it is stopped, not ended: what the last locks lie
/// in is still there when they are named. Whoever looks at the recording comes before the work, like the recorder.
fn work() -> String {
    let start: Vec<String> = MIXED
        .iter()
        .map(|work| format!("/init work {work} > /dev/null 2>> /tmp/share.err & all=\"$all $!\""))
        .collect();
    // Only rows of contended locks have such a rate; names stand in findings, too.
    format!(
        "{}\nrenice -n -20 -p $$ || exit 1\nuntil [ $(holdup report {CAPTURE} --json | tr , '\\n' | grep -c '\"wait_per_second_ns\"') -ge {LEAST} ]; do\n\
         sleep 1\nfor one in $all; do kill -0 $one || {{ cat /tmp/share.err; exit 1; }}; done\ndone\nkill -STOP $all\necho $all > /tmp/share.pids",
        start.join("\n")
    )
}
