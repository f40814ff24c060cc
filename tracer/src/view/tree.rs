//! Who waits behind whom, as trees of text: one for each root blocker, cycle, and lock without a known holder.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::units::{count, duration};
use crate::diagnosis::phrase;
use crate::event::{Mode, TaskState};
use crate::ids::Nanos;
use crate::report::{Report, TaskRow, TreeRoot, WaitRow};

/// Trees printed; the rest is counted.
const MAX_TREES: usize = 16;
/// Waiters that wait alike are folded into one line from this many on.
const FOLD_FROM: usize = 4;
/// Names given of those folded.
const NAMES: usize = 3;
/// Lines printed of one tree.
const MAX_LINES: usize = 64;
/// How deep a tree is drawn.
const MAX_DEPTH: usize = 32;

/// Writes all trees.
///
/// # Errors
/// When `out` cannot be written to.
pub fn trees(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let drawn: Vec<&TreeRoot> = report.roots.iter().filter(|root| is_drawn(root)).collect();
    if drawn.is_empty() {
        return Ok(());
    }
    writeln!(out, "who waits behind whom:")?;
    for root in drawn.iter().take(MAX_TREES) {
        let mut tree = Tree {
            report,
            out: &mut *out,
            lines: 0,
            left_out: 0,
        };
        tree.root(root)?;
        if tree.left_out > 0 {
            let left_out = tree.left_out;
            writeln!(out, "    ... and {}", count(left_out, "more line"))?;
        }
    }
    if drawn.len() > MAX_TREES {
        writeln!(out, "  ... and {}", count(drawn.len() - MAX_TREES, "more tree"))?;
    }
    writeln!(out)
}

/// Somebody waits behind it, or it is a cycle.
fn is_drawn(root: &TreeRoot) -> bool {
    matches!(root, TreeRoot::Cycle { .. }) || root.victims() > 0
}

struct Tree<'r, W> {
    report: &'r Report,
    out: W,
    lines: usize,
    left_out: usize,
}

impl<W: Write> Tree<'_, W> {
    fn root(&mut self, root: &TreeRoot) -> io::Result<()> {
        match root {
            TreeRoot::Task { row, .. } => {
                if let Some(task) = self.report.tasks.get(*row) {
                    self.line(0, &format!("{} {}{}{}", task.name, state(task), at(task), about(task)))?;
                    self.behind(&task.blocks, 1, &mut vec![*row])?;
                }
            }
            TreeRoot::Lock { lock, waiters, .. } => {
                self.line(0, &format!("{lock}, whose holder is not known"))?;
                self.behind(waiters, 1, &mut Vec::new())?;
            }
            TreeRoot::Cycle { rows, .. } => {
                for &row in rows {
                    if let Some(task) = self.report.tasks.get(row) {
                        let next = task.blocked_by.and_then(|next| self.report.tasks.get(next));
                        let holder = match next {
                            Some(next) if next.name == task.name => ", held by itself".to_owned(),
                            Some(next) => format!(", held by {}", next.name),
                            None => String::new(),
                        };
                        let (wait, at, about) = (wait(task), at(task), about(task));
                        self.line(0, &format!("{} {wait}{holder}{at}{about}", task.name))?;
                    }
                }
                let behind: Vec<usize> = rows
                    .iter()
                    .filter_map(|&row| self.report.tasks.get(row))
                    .flat_map(|task| task.blocks.iter().copied())
                    .filter(|row| !rows.contains(row))
                    .collect();
                self.behind(&behind, 1, &mut rows.clone())?;
            }
        }
        Ok(())
    }

    /// Those who wait, the first in the queue first; those who wait alike and hold nobody up in one line.
    fn behind(&mut self, rows: &[usize], depth: usize, path: &mut Vec<usize>) -> io::Result<()> {
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut order: Vec<(Option<u32>, String)> = Vec::new();
        for &row in rows {
            let Some(task) = self.report.tasks.get(row) else {
                continue;
            };
            let key = if task.blocks.is_empty() {
                format!("{}{}", what(task), at(task))
            } else {
                row.to_string()
            };
            let group = groups.entry(key.clone()).or_default();
            if group.is_empty() {
                order.push((task.wait.as_ref().and_then(|wait| wait.place), key));
            }
            group.push(row);
        }
        order.sort_by_key(|(place, _)| place.unwrap_or(u32::MAX));
        for (_, key) in order {
            let members = groups.get(&key).map_or(&[][..], Vec::as_slice);
            if members.len() >= FOLD_FROM {
                self.folded(members, depth)?;
                continue;
            }
            for &row in members {
                let Some(task) = self.report.tasks.get(row) else {
                    continue;
                };
                if path.contains(&row) || depth > MAX_DEPTH {
                    continue;
                }
                self.line(
                    depth,
                    &format!("{} {}{}{}", task.name, wait(task), at(task), about(task)),
                )?;
                path.push(row);
                self.behind(&task.blocks, depth + 1, path)?;
                path.pop();
            }
        }
        Ok(())
    }

    fn folded(&mut self, members: &[usize], depth: usize) -> io::Result<()> {
        let tasks: Vec<&TaskRow> = members.iter().filter_map(|&row| self.report.tasks.get(row)).collect();
        let Some(first) = tasks.first() else { return Ok(()) };
        let waits = || tasks.iter().filter_map(|task| task.wait.as_ref());
        let shortest = waits().map(|wait| wait.waited).min().unwrap_or(Nanos(0));
        let longest = waits().map(|wait| wait.waited).max().unwrap_or(Nanos(0));
        let bound = if waits().any(|wait| wait.waited_is_lower_bound) {
            "at least "
        } else {
            ""
        };
        let names: Vec<String> = tasks.iter().take(NAMES).map(|task| task.name.to_string()).collect();
        let text = format!(
            "{} wait {bound}{} to {} for {}{}: {}, ...",
            count(tasks.len(), "task"),
            duration(shortest),
            duration(longest),
            what(first),
            at(first),
            names.join(", ")
        );
        self.line(depth, &text)
    }

    fn line(&mut self, depth: usize, text: &str) -> io::Result<()> {
        self.lines += 1;
        if self.lines > MAX_LINES {
            self.left_out += 1;
            return Ok(());
        }
        let mark = if depth == 0 { "" } else { "<- " };
        writeln!(self.out, "  {:indent$}{mark}{text}", "", indent = 2 * depth)
    }
}

fn wait(task: &TaskRow) -> String {
    match &task.wait {
        Some(wait) => {
            let bound = if wait.waited_is_lower_bound { "at least " } else { "" };
            format!("waits {bound}{} for {}", duration(wait.waited), what(task))
        }
        None => state(task),
    }
}

fn what(task: &TaskRow) -> String {
    match &task.wait {
        Some(WaitRow {
            lock: Some(lock), mode, ..
        }) => {
            let mode = if *mode == Mode::Shared { " for reading" } else { "" };
            format!("{lock}{mode}")
        }
        Some(WaitRow {
            dependency: Some(what), ..
        }) => what.clone(),
        _ => "nothing known".to_owned(),
    }
}

fn state(task: &TaskRow) -> String {
    let state = phrase::state(task.state);
    match (task.state, task.cpu, task.asleep) {
        (TaskState::Running, Some(cpu), _) => format!("{state} on CPU {cpu}"),
        (_, _, Some(asleep)) => format!("{state} for at least {}", duration(asleep)),
        _ => state.to_owned(),
    }
}

fn at(task: &TaskRow) -> String {
    task.site
        .as_ref()
        .map_or_else(String::new, |site| format!("; at {site}"))
}

fn about(task: &TaskRow) -> String {
    task.about.words().iter().map(|word| format!("; {word}")).collect()
}
