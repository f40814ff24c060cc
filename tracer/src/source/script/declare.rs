//! The statements that say who there is and what things are called.

use std::sync::Arc;

use super::names::Task;
use super::parse::{Parser, Words, code, instant, number};
use crate::event::{Actor, Body, CgroupName, CodeLine, Context, Inlined, LockKind, LockName, Place, TaskRef};
use crate::ids::{CgroupId, CpuId, TaskKey, Tgid, Tid, Timestamp};

pub fn task(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let name = words.word("the name of the task")?;
    let tid: u32 = number(words.word("the thread id")?)?;
    let comm = words.word("the comm")?;
    let start = words.field("start", instant)?.unwrap_or(Timestamp(1));
    let tgid = words.field("tgid", number)?.unwrap_or(tid);
    let cgroup = CgroupId(words.field("cgroup", number)?.unwrap_or(0));
    let kernel_thread = match words.optional() {
        None => false,
        Some("kthread") => true,
        Some(other) => return Err(format!("unexpected word {other:?}")),
    };
    let key = TaskKey { tid: Tid(tid), start };
    let task = TaskRef {
        key,
        tgid: Tgid(tgid),
        comm: Arc::from(comm),
    };
    p.names.declare_task(
        name,
        Task {
            task,
            kernel_thread,
            cgroup,
        },
    );
    Ok(())
}

pub fn irq(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let name = words.word("the name of the interrupt")?;
    let context: Context = code(words.word("the context")?)?;
    let cpu = CpuId(words.field("cpu", number)?.ok_or("field cpu is missing")?);
    let above = match words.text("above") {
        Some(task) => Some(p.names.task(task)?.task.clone()),
        None => None,
    };
    let actor = Actor::Interrupt {
        cpu,
        context,
        interrupted: above.as_ref().map(|t| t.key),
    };
    p.names.declare_interrupt(name, actor, above);
    Ok(())
}

pub fn lock(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let name = words.word("the name of the lock")?;
    let kind: LockKind = code(words.word("the kind of the lock")?)?;
    let addr = words.field("addr", number)?;
    let addr = p.names.declare_lock(name, kind, addr);
    let class = words.text("class").map(Arc::from);
    if let Some(symbol) = words.optional() {
        p.emit(Body::LockName(LockName {
            lock: addr,
            name: Arc::from(symbol),
            source: Arc::from("symbol"),
            class,
        }));
    }
    Ok(())
}

fn place(text: &str) -> Result<Place, String> {
    let (file, line) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} is no FILE:LINE"))?;
    Ok(Place {
        file: Some(file.into()),
        line: Some(number(line)?),
    })
}

pub fn line(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let mut events = Vec::new();
    let addr = p.names.code(words.word("the function")?, p.now, &mut events);
    let place = self::place(words.word("its place in the source")?)?;
    let inlined = match words.text("inlined") {
        Some(text) => {
            let (name, at) = text
                .split_once('@')
                .ok_or_else(|| format!("{text:?} is no NAME@FILE:LINE"))?;
            vec![Inlined {
                name: name.into(),
                place: self::place(at)?,
            }]
        }
        None => Vec::new(),
    };
    p.extend(events);
    p.emit(Body::CodeLine(CodeLine { addr, place, inlined }));
    Ok(())
}

pub fn cgroup(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let cgroup = CgroupId(number(words.word("the number of the cgroup")?)?);
    let path = Arc::from(words.word("its path")?);
    p.emit(Body::CgroupName(CgroupName { cgroup, path }));
    Ok(())
}
