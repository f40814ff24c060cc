//! Plain words for actors, locks, states and sources, so that every finding speaks the same language.

use std::sync::Arc;

use super::about::About;
use super::finding::{LockRef, Name, Party};
use super::graph::{Blocked, Graph};
use crate::event::{Actor, Context, Dependency, Evidence, LockKind, LossCause, Queued, TaskState};
use crate::ids::{CgroupId, KernelAddr, LockAddr, StackId, Tgid, Tid, Timestamp};
use crate::model::{ActorIx, Depends, LockEntry, LockIx, Model};
use crate::spin_word::{self, WordState};
use crate::view::units;

/// Name of an actor.
#[must_use]
pub fn name(model: &Model, ix: ActorIx) -> Name {
    let nameless = |tid, context, interrupt_cpu| Name {
        tid,
        tgid: Tgid(0),
        comm: Arc::from(""),
        context,
        interrupt_cpu,
    };
    let Some(actor) = model.actors().get(ix) else {
        return nameless(Tid(0), Context::Task, None);
    };
    let (context, cpu, tid) = match actor.id {
        Actor::Task(key) => (Context::Task, None, key.tid),
        Actor::Interrupt { cpu, context, .. } => (context, Some(cpu), Tid(0)),
    };
    match &actor.name {
        Some(task) => Name {
            tid: task.key.tid,
            tgid: task.tgid,
            comm: Arc::clone(&task.comm),
            context,
            interrupt_cpu: cpu,
        },
        None => nameless(tid, context, cpu),
    }
}

/// An actor in words: `kworker/1:2 (215)`.
#[must_use]
pub fn actor(model: &Model, ix: ActorIx) -> String {
    name(model, ix).to_string()
}

/// A lock as reports carry it.
#[must_use]
pub fn lock_ref(model: &Model, ix: LockIx) -> LockRef {
    let Some(lock) = model.locks().get(ix) else {
        return LockRef {
            address: LockAddr(0),
            kind: LockKind::Unknown,
            name: None,
            name_source: None,
            class: None,
            waiters: 0,
        };
    };
    let name = model.names().lock_name(lock.addr);
    LockRef {
        address: lock.addr,
        kind: lock.kind,
        name: name.map(|n| Arc::clone(&n.name)),
        name_source: name.map(|n| Arc::clone(&n.source)),
        class: model.names().lock_class(lock.addr).cloned(),
        waiters: lock.waiters.len(),
    }
}

/// A lock in words: `mutex rtnl_mutex (0xffff...)`.
#[must_use]
pub fn lock(model: &Model, addr: LockAddr, kind: LockKind) -> String {
    let name = model.names().lock_name(addr);
    let lock = LockRef {
        address: addr,
        kind,
        name: name.map(|n| Arc::clone(&n.name)),
        name_source: None,
        class: None,
        waiters: 0,
    };
    lock.to_string()
}

/// The stack and call site of what an actor does at present.
#[must_use]
pub fn site(model: &Model, ix: ActorIx) -> (StackId, Option<String>) {
    let stack = site_stack(model, ix);
    (stack, model.names().site(stack))
}

/// The stack of what an actor does at present, 0 when none was taken.
#[must_use]
pub fn site_stack(model: &Model, ix: ActorIx) -> StackId {
    let Some(actor) = model.actors().get(ix) else {
        return StackId(0);
    };
    let wait = actor.innermost().and_then(|w| model.waits().get(w)).map(|w| w.stack);
    let depends = actor.dependency.as_ref().map(|d| d.stack);
    let sample = actor.sample.map(|s| s.stack);
    [wait, depends, sample]
        .into_iter()
        .flatten()
        .find(|s| s.0 != 0)
        .unwrap_or(StackId(0))
}

/// An actor as a party of a finding.
#[must_use]
pub fn party(model: &Model, ix: ActorIx) -> Party {
    let (stack, site) = site(model, ix);
    let entry = model.actors().get(ix);
    let sample = entry.and_then(|a| a.sample);
    Party {
        name: name(model, ix),
        start: entry.and_then(|a| a.task()).map_or(Timestamp(0), |key| key.start),
        state: entry.map_or(TaskState::Unknown, |a| a.state()),
        cpu: sample.and_then(|s| s.cpu),
        cgroup: sample.map_or(CgroupId(0), |s| s.cgroup),
        about: About::of(model, ix),
        site,
        stack,
    }
}

/// `; at function`, `; likely at function` where the stack was pieced together, or nothing.
#[must_use]
pub fn at(model: &Model, ix: ActorIx) -> String {
    let (stack, site) = site(model, ix);
    let likely = if model.names().is_pieced(stack) { "likely " } else { "" };
    site.map_or_else(String::new, |site| format!("; {likely}at {site}"))
}

/// What a dependency is, in words.
#[must_use]
pub fn dependency(model: &Model, depends: &Depends) -> String {
    match depends.dependency {
        Dependency::WorkFlush { function } => format!("work {} to be flushed", model.names().code(function)),
        Dependency::WorkqueueFlush { workqueue } => format!("workqueue {workqueue} to be flushed"),
        Dependency::Completion { completion } => object(model, "completion", completion),
        Dependency::WaitQueueHead { queue } => object(model, "wait queue", queue),
        Dependency::Ipi { cpu } => format!("CPU {cpu} to answer an interrupt"),
        Dependency::BlockIo => "block I/O".to_owned(),
        Dependency::PageLock => "a locked page".to_owned(),
        Dependency::RcuGracePeriod => "an RCU grace period".to_owned(),
        Dependency::Stop if depends.on.is_some() => "its tracer".to_owned(),
        Dependency::Stop => "a signal or its freezer".to_owned(),
        Dependency::WaitQueue => "a wake-up".to_owned(),
    }
}

/// An object that is no lock, with its name if it has one.
#[must_use]
pub fn object(model: &Model, what: &str, addr: KernelAddr) -> String {
    match model.names().lock_name(LockAddr(addr.0)) {
        Some(named) => format!("{what} {} ({addr})", named.name),
        None => format!("{what} {addr}"),
    }
}

/// Name of the kind of a dependency, as in the events.
#[must_use]
pub fn dependency_kind(dependency: Dependency) -> &'static str {
    match dependency {
        Dependency::WorkFlush { .. } => "work-flush",
        Dependency::WorkqueueFlush { .. } => "workqueue-flush",
        Dependency::Completion { .. } => "completion",
        Dependency::Ipi { .. } => "ipi",
        Dependency::BlockIo => "block-io",
        Dependency::PageLock => "page-lock",
        Dependency::RcuGracePeriod => "rcu-grace-period",
        Dependency::Stop => "stop",
        Dependency::WaitQueue | Dependency::WaitQueueHead { .. } => "wait-queue",
    }
}

/// Where evidence comes from, in words.
#[must_use]
pub fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Tracepoint => "contention tracepoint",
        Evidence::Kprobe => "kprobe on the slowpath",
        Evidence::Reread => "re-read of the lock",
        Evidence::WaiterRecord => "waiter record on the kernel stack",
        Evidence::BlockedOnField => "the task's own fields",
        Evidence::PiBlockedOn => "the task's pi_blocked_on field",
        Evidence::StackFrames => "function names on its stack",
        Evidence::StackWord => "its stack holds the lock's address",
        Evidence::StackNear => "its stack holds a pointer into the object around the lock",
        Evidence::RegisterWord => "its CPU's registers hold the lock's address",
        Evidence::RegisterNear => "its CPU's registers hold a pointer into the object around the lock",
        Evidence::OwnerHint => "last-reader hint of the lock",
        Evidence::CpuSample => "CPU sample",
        Evidence::Acquisition => "its acquisition was seen",
        Evidence::Script => "scenario text",
    }
}

/// Why a CPU is taken for the one that holds a spinning lock, in words.
#[must_use]
pub fn spin_holder(sign: Evidence) -> &'static str {
    match sign {
        Evidence::CpuSample => {
            "no other CPU can: each was seen without a spinlock since, or with no more than it waits for itself"
        }
        other => evidence(other),
    }
}

/// What the word of a rwlock says of who has it and who waits first.
#[must_use]
pub fn rwlock_word(lock: &LockEntry) -> Option<String> {
    let read = lock.read_owner().filter(|_| lock.kind == LockKind::Rwlock)?;
    let raw = u32::try_from(read.value.word).ok()?;
    let word = spin_word::rwlock_word(raw);
    let readers = || units::count(word.readers as usize, "reader");
    let mut says = match (word.state, word.writer) {
        (WordState::Impossible, _) => "no lock or unlock leaves such a word".to_owned(),
        (WordState::Free, _) => "held by nobody".to_owned(),
        (WordState::Held, true) => "held by a writer".to_owned(),
        (WordState::Held, false) => format!("held by {}", readers()),
    };
    if word.writer && word.readers > 0 {
        says += &format!(", {} first in line", readers());
    }
    if word.writer_waits {
        says += ", a writer first in line";
    }
    Some(format!("its word is {raw:#x}: {says}"))
}

/// The order in which CPUs wait for a spinlock, where it is known of several.
#[must_use]
pub fn spin_queue(model: &Model, lock: &LockEntry) -> Option<String> {
    if !lock.kind.spins() {
        return None;
    }
    let queue = model.queue(lock);
    let placed: Vec<String> = queue
        .into_iter()
        .filter_map(|ix| model.waits().get(ix))
        .filter_map(|wait| match (wait.queued, wait.cpu) {
            (Queued::At(place), Some(cpu)) => {
                Some(format!("{}. {} on CPU {cpu}", place + 1, actor(model, wait.waiter)))
            }
            _ => None,
        })
        .collect();
    (placed.len() > 1).then(|| {
        format!(
            "its word and the CPUs' queue nodes give the order of those who wait: {}",
            placed.join(", ")
        )
    })
}

/// What was lost, in words that follow a number.
#[must_use]
pub fn loss(cause: LossCause) -> &'static str {
    match cause {
        LossCause::RingFull => "events lost to a full ring buffer",
        LossCause::Busy => "events skipped inside another probe",
        LossCause::WaitTableFull => "waits lost to a full table of pending waits",
        LossCause::LockTableFull => "statistics lost to a full lock table",
        LossCause::SpinNesting => "spins lost in deeply nested interrupts",
        LossCause::MissedEnd => "ends of waits missed",
        LossCause::ProgramSkipped => "probe runs skipped by the kernel",
        LossCause::Malformed => "records that could not be decoded",
        LossCause::ReadFailed => "failed reads of kernel memory",
        LossCause::Overrun => "events dropped because user space was too slow",
        LossCause::StackLost => "stacks not taken",
    }
}

/// Why an actor does not get on, in words that follow its name: `is asleep in block I/O`.
#[must_use]
pub fn why_slow(model: &Model, graph: &Graph, ix: ActorIx) -> String {
    let Some(actor) = model.actors().get(ix) else {
        return "is unknown".to_owned();
    };
    if let Some(depends) = &actor.dependency
        && matches!(graph.blocked(model, ix), Blocked::Dependency(_))
    {
        return match depends.dependency {
            Dependency::BlockIo => "is asleep in block I/O".to_owned(),
            Dependency::Stop if actor.state() == TaskState::Stopped => "is stopped".to_owned(),
            Dependency::Stop => "is frozen".to_owned(),
            _ => format!("waits for {}", dependency(model, depends)),
        };
    }
    let cpu = actor.sample.and_then(|s| s.cpu);
    let state = state(actor.state());
    match (actor.state(), cpu) {
        (TaskState::Running, Some(cpu)) => format!("{state} on CPU {cpu}"),
        _ => state.to_owned(),
    }
}

/// The state of a thread, in words that follow its name: `is asleep in block I/O`.
#[must_use]
pub fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "is running",
        TaskState::Runnable => "is runnable, but has no CPU",
        TaskState::InIo => "is asleep in block I/O",
        TaskState::Uninterruptible => "is asleep (uninterruptible)",
        TaskState::Interruptible => "is asleep (interruptible)",
        TaskState::Idle => "is idle",
        TaskState::Stopped => "is stopped",
        TaskState::Exited => "has exited",
        TaskState::Unknown => "is in an unknown state",
    }
}
