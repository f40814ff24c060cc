//! The trees of a snapshot: who waits behind whom, in full.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use tracer::diagnosis::Engine;
use tracer::model::{Model, Settings};
use tracer::report::Report;
use tracer::source::script::Script;
use tracer::view::tree::trees;

fn drawn(script: &str) -> String {
    let script = Script::parse(script).expect("the scenario parses");
    let mut model = Model::new(Settings::default());
    script.events().for_each(|event| model.apply(event));
    let mut engine = Engine::new();
    engine.update(&model);
    let mut out = Vec::new();
    trees(&mut out, &Report::build(&model, &engine)).expect("writing to memory");
    String::from_utf8(out).expect("text is UTF-8")
}

#[test]
fn nothing_is_drawn_when_nobody_waits() {
    assert_eq!(drawn("task a 1 a\nat 1s\nstate a running switches=1 cpu=0\n"), "");
}

#[test]
fn a_victim_stands_below_the_one_that_waits_for_itself() {
    let script = "\
task w 215 kworker/1:2 kthread
task f 300 rmmod
lock M mutex lf_aa
stack aa __mutex_lock lf_aa_inner process_one_work
at 10s
round all-tasks begin 1
state w uninterruptible switches=7 last-switch=4s
state f uninterruptible switches=9 last-switch=5s
wait w M owner=w by=waiter-record queued=0 stack=aa
depend f on=w work-flush(lf_aa_fn) by=waiter-record
round all-tasks end 1
";
    assert_eq!(
        drawn(script),
        "\
who waits behind whom:
  kworker/1:2 (215) waits at least 6.00 s for mutex lf_aa (0xffff888000001000), held by itself; at lf_aa_inner
    <- rmmod (300) waits at least 5.00 s for work lf_aa_fn to be flushed

"
    );
}

#[test]
fn those_who_wait_alike_are_folded_and_chains_are_not() {
    let mut script = "\
task h 4442 filebeat tgid=4424
task r 10 writer
task c 90 chained
lock S rwsem mmap_lock
lock M mutex inner
at 100s
round all-tasks begin 1
state h in-io switches=1 last-switch=10s
state r uninterruptible switches=2 last-switch=20s
state c uninterruptible switches=3 last-switch=40s
holder h S shared by=stack-word rank=0
wait r S owner=readers by=waiter-record queued=0
wait c M owner=r by=waiter-record queued=0
"
    .to_owned();
    for reader in 0..6 {
        let (tid, since, place) = (20 + reader, 30 + reader, reader + 1);
        let _ = write!(
            script,
            "task x{reader} {tid} top\nstate x{reader} uninterruptible switches=5 last-switch={since}s\n\
             wait x{reader} S owner=readers mode=shared by=waiter-record queued={place}\n"
        );
    }
    script += "round all-tasks end 1\n";
    assert_eq!(
        drawn(&script),
        "\
who waits behind whom:
  filebeat (4442) is asleep in block I/O for at least 90.0 s
    <- writer (10) waits at least 80.0 s for rw_semaphore mmap_lock (0xffff888000001000)
      <- chained (90) waits at least 60.0 s for mutex inner (0xffff888000001100)
    <- 6 tasks wait at least 65.0 s to 70.0 s for rw_semaphore mmap_lock (0xffff888000001000) for reading: top (20), top (21), top (22), ...

"
    );
}

#[test]
fn what_tasks_are_about_stands_behind_where_they_are() {
    let script = "\
task k 215 kworker/0:1 kthread cgroup=1
task i 100 probe cgroup=77
task u 101 rm cgroup=78
lock M mutex drv_lock
stack m __mutex_lock drv_work_fn process_one_work
at 10s
cgroup 1 /
cgroup 77 /docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
cgroup 78 /user.slice
round all-tasks begin 1
state k uninterruptible switches=9 last-switch=5s stack=m
doing k work(drv_work_fn) workqueue=events
state i uninterruptible switches=4 last-switch=6s
doing i syscall(ioctl) number=16 path=/dev/drv kind=char-device
state u uninterruptible switches=4 last-switch=6s
doing u syscall(unlink) number=87 argument=path
wait k M owner=k by=waiter-record queued=0 stack=m
wait i M owner=k by=waiter-record queued=1
wait u M owner=k by=waiter-record queued=2
round all-tasks end 1
";
    assert_eq!(
        drawn(script),
        "\
who waits behind whom:
  kworker/0:1 (215) waits at least 5.00 s for mutex drv_lock (0xffff888000001000), held by itself; at drv_work_fn; executes drv_work_fn for workqueue events
    <- probe (100) waits at least 4.00 s for mutex drv_lock (0xffff888000001000); in ioctl() on /dev/drv (character device); container docker 0123456789ab; cgroup /docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    <- rm (101) waits at least 4.00 s for mutex drv_lock (0xffff888000001000); in unlink() of a path; cgroup /user.slice

"
    );
}
