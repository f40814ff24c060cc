//! All statements, and those that make events.

use std::sync::Arc;

use super::declare;
use super::parse::{Parser, Words, call, code, instant, nanos, number};
use super::user_stack;
use crate::event::{
    Act, Activity, Argument, Body, CpuStall, Dependency, DependencySample, Doing, Evidence, FileKind, HolderCandidate,
    LockKind, LockSample, LockStats, LossReport, Mode, Owner, Phase, Queued, Reinit, Release, Round, RoundEdge,
    TaskRef, TaskSample, TimeSpent, WaitEnd, WaitSample, Watched,
};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId};

/// Task pointers in owner words: an address that tells the thread id.
fn task_word(task: &TaskRef) -> u64 {
    0xffff_8880_1000_0000 + u64::from(task.key.tid.0) * 0x1000
}

/// Carries out a statement.
pub fn apply(p: &mut Parser, verb: &str, words: &mut Words<'_>) -> Result<(), String> {
    match verb {
        "task" => declare::task(p, words),
        "irq" => declare::irq(p, words),
        "lock" => declare::lock(p, words),
        "stack" | "pieced-stack" => {
            let name = words.word("the name of the stack")?;
            let events = p
                .names
                .declare_stack(name, &words.rest(), verb == "pieced-stack", p.now);
            p.extend(events);
            Ok(())
        }
        "state" => state(p, words),
        "doing" => doing(p, words),
        "cgroup" => declare::cgroup(p, words),
        "line" => declare::line(p, words),
        "user-stack" => user_stack::apply(p, words),
        "gone" => {
            let key = p.names.task(words.word("the task")?)?.task.key;
            p.emit(Body::TaskGone(key));
            Ok(())
        }
        "wait" => wait(p, words),
        "end" => end(p, words),
        "release" => release(p, words),
        "read" => read(p, words),
        "depend" => depend(p, words),
        "holder" => holder(p, words),
        "stats" => stats(p, words),
        "reinit" => reinit(p, words),
        "spent" => spent(p, words),
        "acquired" => watched(p, words, Act::Acquired),
        "released" => watched(p, words, Act::Released),
        "stall" => stall(p, words),
        "loss" => loss(p, words),
        "round" => round(p, words),
        other => Err(format!("unknown statement {other:?}")),
    }
}

fn stack_field(p: &Parser, words: &mut Words<'_>) -> Result<StackId, String> {
    words.text("stack").map_or(Ok(StackId(0)), |name| p.names.stack(name))
}

fn by_field(words: &mut Words<'_>, default: Evidence) -> Result<Evidence, String> {
    words.text("by").map_or(Ok(default), code)
}

fn state(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let task = p.names.task(words.word("the task")?)?.clone();
    let state = code(words.word("the state")?)?;
    let mut symbols = Vec::new();
    let work: Option<KernelAddr> = words.text("work").map(|f| p.names.code(f, p.now, &mut symbols));
    let sample = TaskSample {
        task: task.task,
        state,
        cpu: words.field("cpu", number)?.map(CpuId),
        switches: words.field("switches", number)?,
        last_switch: words.field("last-switch", instant)?,
        kernel_thread: task.kernel_thread,
        cgroup: task.cgroup,
        stack: stack_field(p, words)?,
        work,
    };
    p.extend(symbols);
    p.emit(Body::Task(sample));
    Ok(())
}

fn doing(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let task = p.names.task(words.word("the task")?)?.task.key;
    let mut symbols = Vec::new();
    let (what, argument) = call(words.word("what it is doing")?)?;
    let activity = match what {
        "work" => Activity::Work {
            function: p.names.code(argument, p.now, &mut symbols),
            workqueue: words.text("workqueue").map(Arc::from),
        },
        "syscall" => Activity::Syscall {
            number: words.field("number", number)?.unwrap_or(0),
            name: (!argument.is_empty()).then(|| argument.into()),
            argument: match (words.text("path"), words.text("argument")) {
                (Some(path), _) => Argument::File {
                    kind: words.text("kind").map_or(Ok(FileKind::Unknown), code)?,
                    path: path.into(),
                },
                (None, Some("path")) => Argument::Path,
                (None, Some("address")) => Argument::Address,
                (None, Some(descriptor)) => Argument::Descriptor {
                    number: number(descriptor)?,
                },
                (None, None) => Argument::Other,
            },
        },
        "exception" => Activity::Exception,
        other => return Err(format!("nobody can be doing {other:?}")),
    };
    p.extend(symbols);
    p.emit(Body::Doing(Doing { task, activity }));
    Ok(())
}

/// The owner and the owner word that goes with it, unless `word=` gives another one.
fn owner(p: &Parser, words: &mut Words<'_>, default: Owner) -> Result<(u64, Owner), String> {
    let reader = |word: u64| word | 1;
    let (word, owner) = match words.text("owner") {
        None => (0, default),
        Some(text) => match call(text)? {
            ("nobody", "") => (0, Owner::Nobody),
            ("not-recorded", "") => (0, Owner::NotRecorded),
            ("unreadable", "") => (
                0xffff_8880_dead_0000,
                Owner::Unreadable(KernelAddr(0xffff_8880_dead_0000)),
            ),
            ("readers", argument) => {
                let (hint, count) = argument.split_once(',').unwrap_or((argument, ""));
                let hint = if hint.is_empty() {
                    None
                } else {
                    Some(p.names.task(hint)?.task.clone())
                };
                let count = if count.is_empty() { None } else { Some(number(count)?) };
                (
                    reader(hint.as_ref().map_or(0, task_word)),
                    Owner::Readers { hint, count },
                )
            }
            (name, "") => {
                let task = p.names.task(name)?.task.clone();
                (task_word(&task), Owner::Task(task))
            }
            (other, _) => return Err(format!("{other:?} takes no argument")),
        },
    };
    Ok((words.field("word", number)?.unwrap_or(word), owner))
}

fn queued(text: &str) -> Result<Queued, String> {
    match text {
        "absent" => Ok(Queued::Absent),
        "somewhere" => Ok(Queued::Somewhere),
        "unknown" => Ok(Queued::Unknown),
        place => number(place).map(Queued::At),
    }
}

fn wait(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let (waiter, task) = p.names.actor(words.word("the waiter")?)?;
    let (lock, kind) = p.names.lock(words.word("the lock")?)?;
    let (owner_word, owner) = owner(p, words, Owner::NotRecorded)?;
    let evidence = by_field(words, Evidence::Tracepoint)?;
    let begin = matches!(evidence, Evidence::Tracepoint | Evidence::Kprobe);
    let since = match words.text("since") {
        Some("unknown") => None,
        Some(text) => Some(instant(text)?),
        None => begin.then_some(p.now),
    };
    let sample = WaitSample {
        waiter,
        task,
        lock,
        kind,
        mode: words.text("mode").map_or(Ok(Mode::Exclusive), code)?,
        phase: words.text("phase").map_or(Ok(Phase::Sleeping), code)?,
        since,
        owner_word,
        owner,
        queued: words.field("queued", queued)?.unwrap_or(Queued::Unknown),
        cpu: words.field("cpu", number)?.map(CpuId),
        stack: stack_field(p, words)?,
        evidence,
    };
    p.emit(Body::Wait(sample));
    Ok(())
}

fn end(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let (waiter, _) = p.names.actor(words.word("the waiter")?)?;
    let (lock, _) = p.names.lock(words.word("the lock")?)?;
    let result = words
        .field("result", |t| t.parse::<i32>().map_err(|e| e.to_string()))?
        .unwrap_or(0);
    let waited = words.field("waited", nanos)?.unwrap_or(Nanos(0));
    p.emit(Body::WaitEnd(WaitEnd {
        waiter,
        lock,
        result,
        waited,
    }));
    Ok(())
}

fn release(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let task = p.names.task(words.word("the task")?)?.task.clone();
    let (lock, kind) = p.names.lock(words.word("the lock")?)?;
    let stack = stack_field(p, words)?;
    p.emit(Body::Release(Release {
        task,
        lock,
        kind,
        stack,
    }));
    Ok(())
}

fn read(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let (lock, kind) = p.names.lock(words.word("the lock")?)?;
    let (owner_word, owner) = owner(p, words, Owner::Nobody)?;
    p.emit(Body::Lock(LockSample {
        lock,
        kind,
        owner_word,
        owner,
    }));
    Ok(())
}

fn dependency(p: &mut Parser, text: &str) -> Result<Dependency, String> {
    let (name, argument) = call(text)?;
    let mut symbols = Vec::new();
    let dependency = match name {
        "work-flush" => Dependency::WorkFlush {
            function: p.names.code(argument, p.now, &mut symbols),
        },
        "workqueue-flush" => Dependency::WorkqueueFlush {
            workqueue: KernelAddr(number(argument)?),
        },
        "completion" => Dependency::Completion {
            completion: KernelAddr(number(argument)?),
        },
        "wait-queue" if !argument.is_empty() => Dependency::WaitQueueHead {
            queue: KernelAddr(number(argument)?),
        },
        "ipi" => Dependency::Ipi {
            cpu: CpuId(number(argument)?),
        },
        simple if argument.is_empty() => code(simple)?,
        other => return Err(format!("unknown dependency {other:?}")),
    };
    p.extend(symbols);
    Ok(dependency)
}

fn depend(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let (waiter, task) = p.names.actor(words.word("the waiter")?)?;
    let dependency = dependency(p, words.word("the dependency")?)?;
    let (on, on_task) = match words.text("on") {
        Some(name) => {
            let (actor, task) = p.names.actor(name)?;
            (Some(actor), task)
        }
        None => (None, None),
    };
    let since = words.field("since", instant)?;
    let stack = stack_field(p, words)?;
    let evidence = by_field(words, Evidence::StackFrames)?;
    p.emit(Body::Dependency(DependencySample {
        waiter,
        task,
        dependency,
        on,
        on_task,
        since,
        stack,
        evidence,
    }));
    Ok(())
}

fn holder(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let (holder, task) = p.names.actor(words.word("the holder")?)?;
    let (lock, kind) = p.names.lock(words.word("the lock")?)?;
    let mode = code(words.word("the mode")?)?;
    let rank = words.field("rank", number)?.unwrap_or(0);
    let evidence = by_field(words, Evidence::StackWord)?;
    p.emit(Body::Holder(HolderCandidate {
        lock,
        kind,
        mode,
        holder,
        task,
        rank,
        evidence,
    }));
    Ok(())
}

fn stats(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let (lock, kind): (LockAddr, LockKind) = p.names.lock(words.word("the lock")?)?;
    let waits: u64 = words.field("waits", number)?.ok_or("field waits is missing")?;
    let each = words.field("each", nanos)?.unwrap_or(Nanos(1_000));
    let total = words
        .field("total", nanos)?
        .unwrap_or(Nanos(each.0.saturating_mul(waits)));
    let max = words.field("max", nanos)?.unwrap_or(each);
    let mut histogram = vec![0; each.0.max(1).ilog2() as usize + 1];
    if let Some(last) = histogram.last_mut() {
        *last = waits;
    }
    let mode = words.text("mode").map_or(Ok(Mode::Exclusive), code)?;
    p.emit(Body::Stats(LockStats {
        lock,
        kind,
        mode,
        waits,
        total,
        max,
        histogram,
    }));
    Ok(())
}

fn reinit(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let task = p.names.task(words.word("the task")?)?.task.clone();
    let (lock, kind) = p.names.lock(words.word("the lock")?)?;
    let (_, owner) = owner(p, words, Owner::Nobody)?;
    let waiters = words.field("waiters", number)?.unwrap_or(0);
    let stack = stack_field(p, words)?;
    p.emit(Body::Reinit(Reinit {
        lock,
        kind,
        task,
        stack,
        waiters,
        owner,
    }));
    Ok(())
}

/// `spent TASK since=TIME running=1ms runnable=.. sleeping=.. io=..`
fn spent(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let task = p.names.task(words.word("the task")?)?.task.clone();
    let since = words.field("since", instant)?.unwrap_or(p.now);
    let mut sum = |name| Ok::<Nanos, String>(words.field(name, nanos)?.unwrap_or(Nanos(0)));
    let (running, runnable) = (sum("running")?, sum("runnable")?);
    let (sleeping, io) = (sum("sleeping")?, sum("io")?);
    p.emit(Body::TimeSpent(TimeSpent {
        task,
        since,
        running,
        runnable,
        sleeping,
        io,
    }));
    Ok(())
}

/// `stall CPU watchdog=TIME timer=TIME grace-period=TIME`; without any it is over.
fn stall(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let cpu = CpuId(number(words.word("the CPU")?)?);
    let stall = CpuStall {
        cpu,
        watchdog: words.field("watchdog", instant)?,
        timer: words.field("timer", instant)?,
        grace_period: words.field("grace-period", instant)?,
    };
    p.emit(Body::Stall(stall));
    Ok(())
}

fn watched(p: &mut Parser, words: &mut Words<'_>, act: Act) -> Result<(), String> {
    let (by, task) = p.names.actor(words.word("who")?)?;
    let (lock, kind) = p.names.lock(words.word("the lock")?)?;
    let mode = words.text("mode").map_or(Ok(Mode::Exclusive), code)?;
    let cpu = CpuId(words.field("cpu", number)?.unwrap_or(0));
    let stack = stack_field(p, words)?;
    p.emit(Body::Watch(Watched {
        lock,
        kind,
        mode,
        act,
        by,
        task,
        cpu,
        stack,
    }));
    Ok(())
}

fn loss(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let mut by_cause = Vec::new();
    for (cause, count) in words.fields() {
        by_cause.push((code(cause)?, number(count)?));
    }
    by_cause.sort_unstable();
    p.emit(Body::Loss(LossReport { by_cause }));
    Ok(())
}

fn round(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let scope = code(words.word("the scope")?)?;
    let edge: RoundEdge = code(words.word("the edge")?)?;
    let number = number(words.word("the number of the round")?)?;
    p.emit(Body::Round(Round { number, edge, scope }));
    Ok(())
}
