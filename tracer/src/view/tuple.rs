//! Owner/waiter tuples, one a line: `holdup live --tuples`.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use super::json::SCHEMA_VERSION;
use crate::event::{Act, Actor, Body, Context, Event, Evidence, LockKind, Mode, Owner, Phase, Queued, TaskRef};
use crate::ids::{CpuId, LockAddr, Nanos, Tgid, Tid, Timestamp};

/// One tuple as JSON shows it.
#[derive(Debug, Serialize)]
struct Tuple<'a> {
    schema_version: u32,
    r#type: &'static str,
    event: &'static str,
    time: Timestamp,
    lock: String,
    kind: Option<LockKind>,
    mode: Option<Mode>,
    phase: Option<Phase>,
    waiter: Who<'a>,
    owner: Option<Who<'a>>,
    owner_is: &'static str,
    owner_word: Option<String>,
    readers: Option<u32>,
    since: Option<Timestamp>,
    waited_ns: Option<Nanos>,
    result: Option<i32>,
    queue_position: Option<u32>,
    queued: Option<bool>,
    evidence: Option<Evidence>,
}

#[derive(Debug, Serialize)]
struct Who<'a> {
    tid: Option<Tid>,
    tgid: Option<Tgid>,
    comm: Option<&'a str>,
    context: Context,
    cpu: Option<CpuId>,
}

/// Writes the event as a line of JSON, if it is a tuple.
///
/// # Errors
/// When the stream cannot be written.
pub fn json(event: &Event, to: &mut impl Write) -> io::Result<()> {
    if let Some(tuple) = tuple(event) {
        serde_json::to_writer(&mut *to, &tuple)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes the event as a line of text, if it is a tuple.
///
/// # Errors
/// When the stream cannot be written.
pub fn text(event: &Event, to: &mut impl Write) -> io::Result<()> {
    let Some(tuple) = tuple(event) else { return Ok(()) };
    let mut line = format!("{:>14.6} {:<8}", seconds(event.time), tuple.event);
    let _ = write!(line, " {}", who(&tuple.waiter));
    if let (Some(kind), Some(mode)) = (tuple.kind, tuple.mode) {
        let verb = if tuple.event == "wait" { "wants " } else { "" };
        let _ = write!(line, " {verb}{} {}", label(kind), label(mode));
    }
    let _ = write!(line, " {}", tuple.lock);
    match (&tuple.owner, tuple.event) {
        (Some(owner), _) => {
            let _ = write!(line, " {} {}", tuple.owner_is, who(owner));
        }
        (None, "wait") => {
            let _ = write!(line, " owner {}", tuple.owner_is);
        }
        _ => {}
    }
    if let Some(waited) = tuple.waited_ns {
        let _ = write!(line, " after {:.3} ms", ms(waited));
    }
    if let Some(result) = tuple.result.filter(|&result| result != 0) {
        let _ = write!(line, " failed with errno {}", result.unsigned_abs());
    }
    writeln!(to, "{line}")
}

fn tuple(event: &Event) -> Option<Tuple<'_>> {
    let empty = |name, waiter, lock: LockAddr| Tuple {
        schema_version: SCHEMA_VERSION,
        r#type: "tuple",
        event: name,
        time: event.time,
        lock: lock.to_string(),
        kind: None,
        mode: None,
        phase: None,
        waiter,
        owner: None,
        owner_is: "none",
        owner_word: None,
        readers: None,
        since: None,
        waited_ns: None,
        result: None,
        queue_position: None,
        queued: None,
        evidence: None,
    };
    match &event.body {
        Body::Wait(wait) => {
            let (owner_is, owner, readers) = owner(&wait.owner);
            Some(Tuple {
                kind: Some(wait.kind),
                mode: Some(wait.mode),
                phase: Some(wait.phase),
                owner,
                owner_is,
                // Zero would say that nobody holds it.
                owner_word: (wait.owner_word != 0 || wait.owner != Owner::NotRecorded)
                    .then(|| format!("{:#x}", wait.owner_word)),
                readers,
                since: wait.since,
                queue_position: if let Queued::At(position) = wait.queued {
                    Some(position)
                } else {
                    None
                },
                queued: match wait.queued {
                    Queued::At(_) | Queued::Somewhere => Some(true),
                    Queued::Absent => Some(false),
                    Queued::Unknown => None,
                },
                evidence: Some(wait.evidence),
                ..empty("wait", actor(&wait.waiter, wait.task.as_ref(), wait.cpu), wait.lock)
            })
        }
        Body::WaitEnd(end) => Some(Tuple {
            waited_ns: Some(end.waited),
            result: Some(end.result),
            ..empty("end", actor(&end.waiter, None, None), end.lock)
        }),
        Body::Watch(watched) => Some(Tuple {
            kind: Some(watched.kind),
            mode: Some(watched.mode),
            ..empty(
                match watched.act {
                    Act::Acquired => "acquired",
                    Act::Released => "released",
                },
                actor(&watched.by, watched.task.as_ref(), Some(watched.cpu)),
                watched.lock,
            )
        }),
        Body::Release(release) => Some(Tuple {
            kind: Some(release.kind),
            ..empty("release", task(&release.task), release.lock)
        }),
        _ => None,
    }
}

fn owner(owner: &Owner) -> (&'static str, Option<Who<'_>>, Option<u32>) {
    match owner {
        Owner::Nobody => ("nobody", None, None),
        Owner::Task(owner) => ("held by", Some(task(owner)), None),
        Owner::Unreadable(_) => ("unreadable", None, None),
        Owner::Readers { hint, count } => ("read-held, last reader", hint.as_ref().map(task), *count),
        Owner::NotRecorded => ("not recorded", None, None),
    }
}

fn task(task: &TaskRef) -> Who<'_> {
    Who {
        tid: Some(task.key.tid),
        tgid: Some(task.tgid),
        comm: Some(&task.comm),
        context: Context::Task,
        cpu: None,
    }
}

fn actor<'a>(actor: &Actor, name: Option<&'a TaskRef>, seen_on: Option<CpuId>) -> Who<'a> {
    let (tid, context, cpu) = match *actor {
        Actor::Task(key) => (Some(key.tid), Context::Task, seen_on),
        Actor::Interrupt {
            cpu,
            context,
            interrupted,
        } => (interrupted.map(|key| key.tid), context, Some(cpu)),
    };
    Who {
        tid,
        tgid: name.map(|task| task.tgid),
        comm: name.map(|task| &*task.comm),
        context,
        cpu,
    }
}

fn who(who: &Who<'_>) -> String {
    let mut text = match (who.comm, who.tid) {
        (Some(comm), Some(tid)) => format!("{comm} ({tid})"),
        (None, Some(tid)) => format!("({tid})"),
        _ => "?".into(),
    };
    if let (true, Some(cpu)) = (who.context != Context::Task, who.cpu) {
        text = format!("{} on CPU {cpu}, above {text},", label(who.context));
    }
    text
}

/// The kebab-case name that JSON uses.
fn label(value: impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "shown to the microsecond")]
fn seconds(time: Timestamp) -> f64 {
    time.0 as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "shown to the microsecond")]
fn ms(time: Nanos) -> f64 {
    time.0 as f64 / 1e6
}
