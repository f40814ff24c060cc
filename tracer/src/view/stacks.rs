//! Kernel stacks as text, each once with everybody who has it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use clap::ValueEnum;

use super::units::count;
use crate::diagnosis::Name;
use crate::ids::StackId;
use crate::report::{Frame, InlinedRow, Report, UserFrameRow, UserStackRow};

/// Tasks named of those that share a stack.
const NAMES: usize = 4;
/// Stacks printed; the rest is counted.
const MAX_STACKS: usize = 64;

/// How much of a stack is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Depth {
    /// From the caller that matters outward: without the scheduler, the lock and the tracing.
    Caller,
    /// Every frame.
    Full,
}

/// Writes the stacks of all tasks that wait or hold something, the most shared first.
///
/// # Errors
/// When `out` cannot be written to.
pub fn stacks(out: &mut impl Write, report: &Report, depth: Depth) -> io::Result<()> {
    let mut of: BTreeMap<StackId, Vec<&Name>> = BTreeMap::new();
    for task in report.tasks.iter().filter(|task| task.stack.0 != 0) {
        of.entry(task.stack).or_default().push(&task.name);
    }
    let mut shared: Vec<(StackId, Vec<&Name>)> = of.into_iter().collect();
    shared.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    if shared.is_empty() && report.tasks.iter().all(|task| task.user_stack.is_none()) {
        return Ok(());
    }
    writeln!(out, "stacks:")?;
    for (stack, names) in shared.iter().take(MAX_STACKS) {
        let shown: Vec<String> = names.iter().take(NAMES).map(ToString::to_string).collect();
        let more = if names.len() > NAMES { ", ..." } else { "" };
        writeln!(out, "  {}: {}{more}", count(names.len(), "task"), shown.join(", "))?;
        match report.stacks.get(stack) {
            Some(frames) => {
                for line in lines(frames, depth) {
                    writeln!(out, "      {line}")?;
                }
            }
            None => writeln!(out, "      no longer known")?,
        }
    }
    if shared.len() > MAX_STACKS {
        writeln!(out, "  ... and {}", count(shared.len() - MAX_STACKS, "more stack"))?;
    }
    user_space(out, report)?;
    writeln!(out)
}

fn user_space(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let taken = || {
        let stacks = report.tasks.iter().map(|task| (&task.name, task.user_stack.as_ref()));
        stacks.filter_map(|(name, stack)| stack.map(|stack| (name, stack)))
    };
    for (name, stack) in taken().take(MAX_STACKS) {
        writeln!(out, "  {name} in user space")?;
        for line in user_lines(stack) {
            writeln!(out, "      {line}")?;
        }
    }
    match taken().count() {
        more if more > MAX_STACKS => writeln!(out, "  ... and {}", count(more - MAX_STACKS, "more user-space stack")),
        _ => Ok(()),
    }
}

/// The lines of a stack in user space, innermost first. Without a name there is the place in the file, as `addr2line` and debug
/// information servers ask for it.
#[must_use]
pub fn user_lines(stack: &UserStackRow) -> Vec<String> {
    let frame = |frame: &UserFrameRow| {
        let mut lines: Vec<String> = frame.inlined.iter().rev().map(inlined).collect();
        let file = frame.file.as_deref();
        lines.push(match (&frame.function, file, frame.file_offset) {
            (Some(function), ..) => {
                let file = file.map(|file| format!(" [{file}]")).unwrap_or_default();
                let offset = frame.function_offset.unwrap_or(0);
                format!("{function}+{offset:#x}{file}{}", place(&frame.source, frame.line))
            }
            (None, Some(file), Some(offset)) => match &frame.build_id {
                Some(id) => format!("{file} at {offset:#x}, build id {id}"),
                None => format!("{file} at {offset:#x}"),
            },
            _ => format!("{:#x}", frame.address),
        });
        lines
    };
    let more = (!stack.whole).then(|| "...".to_owned());
    stack.frames.iter().flat_map(frame).chain(more).collect()
}

/// The lines of a stack, innermost first; functions that the compiler put into others stand before those.
#[must_use]
pub fn lines(frames: &[Frame], depth: Depth) -> Vec<String> {
    let shown = frames.iter().filter(|frame| depth == Depth::Full || !frame.machinery);
    shown.flat_map(frame).collect()
}

fn place(file: &Option<Arc<str>>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    }
}

fn inlined(inlined: &InlinedRow) -> String {
    format!("{}{} [inlined]", inlined.name, place(&inlined.file, inlined.line))
}

fn frame(frame: &Frame) -> Vec<String> {
    let mut lines: Vec<String> = frame.inlined.iter().rev().map(inlined).collect();
    let module = frame.module.as_ref().map(|m| format!(" [{m}]")).unwrap_or_default();
    lines.push(match &frame.symbol {
        Some(symbol) => format!("{symbol}+{:#x}{module}{}", frame.offset, place(&frame.file, frame.line)),
        None => frame.address.to_string(),
    });
    lines
}
