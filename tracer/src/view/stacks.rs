//! Kernel stacks as text, each once with everybody who has it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::ValueEnum;

use super::units::count;
use crate::diagnosis::Name;
use crate::ids::StackId;
use crate::report::{Frame, Report};

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
    if shared.is_empty() {
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
    writeln!(out)
}

/// The lines of a stack, innermost first; functions that the compiler put into others stand before those.
#[must_use]
pub fn lines(frames: &[Frame], depth: Depth) -> Vec<String> {
    let shown = frames.iter().filter(|frame| depth == Depth::Full || !frame.machinery);
    shown.flat_map(frame).collect()
}

fn frame(frame: &Frame) -> Vec<String> {
    let place = |file: &Option<std::sync::Arc<str>>, line: Option<u32>| match (file, line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    };
    let mut lines: Vec<String> = frame
        .inlined
        .iter()
        .rev()
        .map(|inlined| format!("{}{} [inlined]", inlined.name, place(&inlined.file, inlined.line)))
        .collect();
    let module = frame.module.as_ref().map(|m| format!(" [{m}]")).unwrap_or_default();
    lines.push(match &frame.symbol {
        Some(symbol) => format!("{symbol}+{:#x}{module}{}", frame.offset, place(&frame.file, frame.line)),
        None => frame.address.to_string(),
    });
    lines
}
