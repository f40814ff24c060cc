use std::path::Path;
use std::time::Duration;

use super::*;
use crate::event::{Actor, Evidence, Mode, Owner, Phase, Queued, WaitSample};
use crate::ids::{TaskKey, Tid};
use crate::kernel::names::Aliases;
use crate::kernel::offsets::KernelOffsets;
use crate::kernel::sysroot::Sysroot;

const CODE: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_ffff_8200_0000;
const HEAP: u64 = 0xffff_8880_0000_1000;

/// Nothing is readable.
struct Nothing;

impl Memory for Nothing {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        Ok(vec![None; addrs.len()])
    }
}

fn names() -> Names {
    let text = "ffffffff81000000 t take\t[driver]\nffffffff81000100 T mutex_lock\nffffffff82000000 D rtnl_mutex\n";
    let symbols = Arc::new(Symbols::parse(Path::new("kallsyms"), text.as_bytes()).unwrap());
    let namer = LockNamer::new(
        Some(Arc::clone(&symbols)),
        None,
        &KernelOffsets::default(),
        Aliases::default(),
        1,
        Sysroot::at("/no/such"),
    );
    Names::with(Some(symbols), namer)
}

fn wait(time: u64, lock: u64, stack: u64) -> Event {
    let body = Body::Wait(WaitSample {
        waiter: Actor::Task(TaskKey {
            tid: Tid(1),
            start: Timestamp(1),
        }),
        task: None,
        lock: LockAddr(lock),
        kind: LockKind::Mutex,
        mode: Mode::Exclusive,
        phase: Phase::Sleeping,
        since: None,
        owner_word: 0,
        owner: Owner::Nobody,
        queued: Queued::Unknown,
        cpu: None,
        stack: StackId(stack),
        evidence: Evidence::Tracepoint,
    });
    Event {
        time: Timestamp(time),
        body,
    }
}

fn stack(time: u64, id: u64) -> Event {
    let frames = [CODE + 0x110, CODE + 0x10].map(KernelAddr);
    let body = Body::Stack(StackFrames {
        id: StackId(id),
        frames: Arc::from(frames),
        pieced: false,
    });
    Event {
        time: Timestamp(time),
        body,
    }
}

/// What the batch becomes: the names of locks in it with their times, and where the first other event stands.
fn announced(names: &mut Names, batch: Vec<Event>) -> (Vec<(u64, String, Option<String>)>, usize) {
    let mut out = vec![wait(1, 8, 0)];
    out.extend(batch);
    names.announce(1, &mut Nothing, &mut out).unwrap();
    let told = out.iter().filter_map(|event| match &event.body {
        Body::LockName(name) => Some((
            event.time.0,
            name.name.to_string(),
            name.class.as_ref().map(ToString::to_string),
        )),
        _ => None,
    });
    let first = out
        .iter()
        .skip(1)
        .position(|event| matches!(event.body, Body::Wait(_) | Body::Stack(_)));
    (told.collect(), first.unwrap_or(out.len() - 1))
}

#[test]
fn a_lock_is_named_once_before_the_event_that_needs_it() {
    let mut names = names();
    let rtnl = (5, "rtnl_mutex".to_owned(), Some("rtnl_mutex".to_owned()));
    assert_eq!(
        announced(&mut names, vec![wait(5, DATA, 0), wait(6, DATA, 0)]),
        (vec![rtnl], 1)
    );
    assert_eq!(announced(&mut names, vec![wait(7, DATA, 0)]), (vec![], 0));
}

/// Puts a lock among those that wait for their names.
fn queue(names: &mut Names, lock: u64) {
    let known = Known {
        kind: LockKind::Mutex,
        time: Timestamp(5),
        queued: true,
        named: None,
        site: None,
        sent: None,
    };
    names.locks.insert(LockAddr(lock), known);
    names.new.pending.push_back((LockAddr(lock), LockKind::Mutex));
}

#[test]
fn a_variable_is_named_at_once_however_long_others_have_to_wait() {
    let mut names = names();
    names.new.next = Some(Instant::now() + Duration::from_secs(3600));
    let rtnl = (5, "rtnl_mutex".to_owned(), Some("rtnl_mutex".to_owned()));
    assert_eq!(
        announced(&mut names, vec![wait(5, DATA, 0), wait(6, HEAP, 0)]),
        (vec![rtnl], 1)
    );
    assert_eq!(names.new.pending, [(LockAddr(HEAP), LockKind::Mutex)]);
}

#[test]
fn a_new_lock_does_not_wait_for_those_that_are_named_again() {
    let mut names = names();
    names.again.next = Some(Instant::now() + Duration::from_secs(3600));
    queue(&mut names, DATA);
    let rtnl = (5, "rtnl_mutex".to_owned(), Some("rtnl_mutex".to_owned()));
    assert_eq!(announced(&mut names, vec![wait(5, HEAP, 0)]).0, [rtnl]);
}

#[test]
fn a_name_that_had_to_wait_comes_without_another_event() {
    let mut names = names();
    names.new.next = Some(Instant::now() + Duration::from_secs(3600));
    queue(&mut names, DATA);
    assert_eq!(announced(&mut names, vec![wait(5, HEAP, 0)]), (vec![], 0));
    names.new.next = None;
    let rtnl = (5, "rtnl_mutex".to_owned(), Some("rtnl_mutex".to_owned()));
    assert_eq!(announced(&mut names, vec![]).0, [rtnl]);
}

#[test]
fn the_last_batch_names_everything() {
    let mut names = names();
    names.new.next = Some(Instant::now() + Duration::from_secs(3600));
    queue(&mut names, DATA);
    let mut out = vec![wait(5, HEAP, 0)];
    names.announce_last(0, &mut Nothing, &mut out).unwrap();
    assert!(out.iter().any(|event| matches!(event.body, Body::LockName(_))));
}

#[test]
fn what_is_nothing_known_is_named_by_where_it_is_wanted() {
    let mut names = names();
    let wanted = "wanted at take [driver]".to_owned();
    let (told, _) = announced(&mut names, vec![stack(5, 3), wait(6, HEAP, 3)]);
    assert_eq!(told, [(5, wanted.clone(), Some(wanted))]);
    // The first site stays; without a stack there is none.
    assert_eq!(
        announced(&mut names, vec![wait(7, HEAP, 3), wait(8, HEAP + 64, 0)]).0,
        []
    );
}

#[test]
fn what_may_have_become_another_object_is_looked_at_again() {
    let mut names = names();
    let later = 5 + HOLDS_FOR.0;
    announced(&mut names, vec![wait(5, HEAP, 0), wait(5, DATA, 0)]);
    names.again.next = Some(Instant::now() + Duration::from_secs(3600));
    announced(&mut names, vec![wait(later, HEAP, 0), wait(later, DATA, 0)]);
    assert_eq!(names.again.pending.len(), 0, "not yet");
    announced(&mut names, vec![wait(later + 1, HEAP, 0), wait(later + 1, DATA, 0)]);
    assert_eq!(
        names.again.pending,
        [(LockAddr(HEAP), LockKind::Mutex)],
        "a variable stays what it is"
    );
}

#[test]
fn what_is_gone_keeps_the_name_it_had() {
    let named = |name: &str, class: &str, firm| Some(Named::of(name, class, firm));
    let mut known = Known {
        kind: LockKind::Rwsem,
        time: Timestamp(0),
        queued: false,
        named: None,
        site: None,
        sent: None,
    };
    let mut take = |new: Option<Named>| {
        known.take(new);
        known.named.as_ref().map(|named| named.name.clone()).unwrap_or_default()
    };
    assert_eq!(take(named("kmalloc-64+0x8", "kmalloc-64+0x8", false)), "kmalloc-64+0x8");
    let on_stack = named("on the stack of a (1)", "on a kernel stack", false);
    assert_eq!(take(on_stack), "on the stack of a (1)");
    // The thread is gone; its stack became the one of another.
    let memory = "vmalloc memory of kernel_clone, +0x8";
    assert_eq!(
        take(named(memory, "vmalloc memory of kernel_clone", false)),
        "on the stack of a (1)"
    );
    let on_stack = named("on the stack of b (2)", "on a kernel stack", false);
    assert_eq!(take(on_stack), "on the stack of b (2)");
    assert_eq!(
        take(named("mm_struct.mmap_lock of a (1)", "mm_struct.mmap_lock", true)),
        "mm_struct.mmap_lock of a (1)"
    );
    for less in [
        None,
        named("mm_struct.mmap_lock", "mm_struct.mmap_lock", true),
        named("mm_struct+0x8", "mm_struct+0x8", false),
    ] {
        assert_eq!(take(less), "mm_struct.mmap_lock of a (1)");
    }
    assert_eq!(
        take(named("mm_struct.mmap_lock of b (2)", "mm_struct.mmap_lock", true)),
        "mm_struct.mmap_lock of b (2)"
    );
}
