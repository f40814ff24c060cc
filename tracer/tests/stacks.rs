//! Stacks as text: each once, from the caller that matters or whole, with the places in the source that are known.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use tracer::diagnosis::Engine;
use tracer::model::{Model, Settings};
use tracer::report::Report;
use tracer::source::script::Script;
use tracer::view::stacks::{Depth, stacks};

const SCRIPT: &str = "\
task w 215 kworker/1:2 kthread
task a 300 a
task b 301 b
task c 302 c
lock M mutex lf_aa
stack aa __schedule mutex_lock lf_inner process_one_work
stack bb __schedule mutex_lock vfs_write
at 10s
line lf_inner drivers/lf.c:12 inlined=lf_take@drivers/lf.h:3
round all-tasks begin 1
wait w M owner=w by=waiter-record queued=0 stack=aa
wait a M owner=w by=waiter-record queued=1 stack=bb
wait b M owner=w by=waiter-record queued=2 stack=bb
state c uninterruptible switches=3
state b uninterruptible switches=3
wait c M owner=w by=waiter-record queued=3
user-stack c switches=3 whole=yes read+0x1f@/usr/lib/libc.so.6:0x1021f @/opt/c:0x4010 main+0x20@/opt/c:0x4120
user-stack b switches=2 other+0x10
user-stack w switches=1 other+0x10
round all-tasks end 1
";

fn shown(script: &str, depth: Depth) -> String {
    let script = Script::parse(script).expect("the scenario parses");
    let mut model = Model::new(Settings::default());
    script.events().for_each(|event| model.apply(event));
    let mut engine = Engine::new();
    engine.update(&model);
    let mut out = Vec::new();
    stacks(&mut out, &Report::build(&model, &engine), depth).expect("writing to memory");
    String::from_utf8(out).expect("text is UTF-8")
}

#[test]
fn a_stack_is_shown_once_from_the_caller_that_matters() {
    assert_eq!(
        shown(SCRIPT, Depth::Caller),
        "\
stacks:
  2 tasks: a (300), b (301)
      vfs_write+0x10
  1 task: kworker/1:2 (215)
      lf_take (drivers/lf.h:3) [inlined]
      lf_inner+0x10 (drivers/lf.c:12)
      process_one_work+0x10
  c (302) in user space
      read+0x1f [/usr/lib/libc.so.6]
      /opt/c at 0x4010
      main+0x20 [/opt/c]

"
    );
}

#[test]
fn in_full_it_has_the_frames_of_scheduler_and_lock() {
    assert_eq!(
        shown(SCRIPT, Depth::Full),
        "\
stacks:
  2 tasks: a (300), b (301)
      __schedule+0x10
      mutex_lock+0x10
      vfs_write+0x10
  1 task: kworker/1:2 (215)
      __schedule+0x10
      mutex_lock+0x10
      lf_take (drivers/lf.h:3) [inlined]
      lf_inner+0x10 (drivers/lf.c:12)
      process_one_work+0x10
  c (302) in user space
      read+0x1f [/usr/lib/libc.so.6]
      /opt/c at 0x4010
      main+0x20 [/opt/c]

"
    );
}

#[test]
fn without_stacks_nothing_is_said() {
    assert_eq!(
        shown("task a 1 a\nat 1s\nstate a running switches=1 cpu=0\n", Depth::Full),
        ""
    );
}
