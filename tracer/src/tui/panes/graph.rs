//! The wait-for graph: trees of waiters below whoever stands before them all, and cycles drawn as such.
//!
//! Each row of [`Report::tasks`] waits for at most one other, so that below a root, or below a member of a cycle, there are only
//! trees. They are walked without recursion: a chain may be as long as there are tasks.

use std::collections::{BTreeMap, HashSet};

use super::{Row, Subject, Table, View, Who, rest, tasks, words};
use crate::diagnosis::LockRef;
use crate::ids::Nanos;
use crate::model::LockKey;
use crate::report::{Report, TaskRow, TreeRoot};
use crate::tui::theme::Role;
use crate::tui::widgets::{Column, Text, count, number};

const COLUMNS: &[Column] = &[rest("", 1)];
/// So many waiters of one lock are shown one by one; of more, only the first.
const FOLD_ABOVE: usize = 8;
/// How many of them.
const SHOWN_OF_FOLDED: usize = 3;
/// Deeper rows are not indented further; they say how deep they are.
const MAX_INDENT: usize = 12;

pub(super) fn table(report: &Report, view: &View<'_>) -> Table {
    let empty = Text::of(Role::Good, "Nobody waits for anybody, as far as was seen.");
    let mut trees = Trees {
        report,
        view,
        shown: shown(report, view),
        out: Table::new(COLUMNS, empty),
    };
    trees.out.total = report.tasks.len();
    for root in &report.roots {
        trees.root(root);
    }
    trees.out
}

/// With a filter: the rows it lets through, and those before them. Without one: `None`.
fn shown(report: &Report, view: &View<'_>) -> Option<HashSet<usize>> {
    if view.filter.is_empty() {
        return None;
    }
    let mut shown = HashSet::new();
    for (row, task) in report.tasks.iter().enumerate() {
        if !view.filter.matches(&tasks::fields(task)) {
            continue;
        }
        let mut at = Some(row);
        while let Some(row) = at.filter(|row| shown.insert(*row)) {
            at = report.tasks.get(row).and_then(|t| t.blocked_by);
        }
    }
    Some(shown)
}

/// A row of the tree that is still to be drawn, with its children.
enum Pending {
    Task {
        row: usize,
        before: String,
        depth: usize,
        last: bool,
    },
    Fold {
        subject: Subject,
        text: String,
        before: String,
        last: bool,
    },
}

struct Trees<'a> {
    report: &'a Report,
    view: &'a View<'a>,
    shown: Option<HashSet<usize>>,
    out: Table,
}

impl<'a> Trees<'a> {
    fn is_shown(&self, row: usize) -> bool {
        self.shown.as_ref().is_none_or(|shown| shown.contains(&row))
    }

    fn push(&mut self, subject: Subject, text: Text) {
        self.out.rows.push(Row {
            subject,
            cells: vec![text],
            keys: Vec::new(),
        });
    }

    fn root(&mut self, root: &TreeRoot) {
        let victims = count(root.victims(), "victim");
        match root {
            TreeRoot::Task { row, .. } => {
                let Some(task) = self.report.tasks.get(*row).filter(|_| self.is_shown(*row)) else {
                    return;
                };
                let text = Text::of(Role::Strong, task.name.to_string())
                    .and(Role::Text, does(task))
                    .and(Role::Dim, format!("{}{victims}", self.view.glyphs.dot));
                self.push(Subject::task(&task.name), text);
                self.below(*row, &[], "");
            }
            TreeRoot::Lock { lock, waiters, .. } => {
                if !waiters.iter().any(|row| self.is_shown(*row)) {
                    return;
                }
                let text = Text::of(Role::Strong, words::lock(lock))
                    .and(Role::Warning, ": no holder is known")
                    .and(Role::Dim, format!("{}{victims}", self.view.glyphs.dot));
                self.push(Subject::Lock(lock.key()), text);
                let children = self.children(None, waiters, "", 0);
                self.walk(children);
            }
            TreeRoot::Cycle { rows, .. } => self.cycle(rows, &victims),
        }
    }

    fn cycle(&mut self, rows: &[usize], victims: &str) {
        if !rows.iter().any(|row| self.is_shown(*row)) {
            return;
        }
        let glyphs = self.view.glyphs;
        for (i, row) in rows.iter().enumerate() {
            let Some(task) = self.report.tasks.get(*row) else {
                continue;
            };
            let (mark, ending) = match (rows.len(), i) {
                (1, _) => (glyphs.again, " that it holds itself"),
                (_, 0) => (glyphs.cycle[0], ", held by the next"),
                (n, i) if i + 1 == n => (glyphs.cycle[2], ", held by the first"),
                _ => (glyphs.cycle[1], ", held by the next"),
            };
            let lock = task.wait.as_ref().is_some_and(|w| w.lock.is_some());
            let ending = if lock { ending } else { "" };
            let mut text = Text::of(Role::Critical, mark)
                .and(Role::Strong, task.name.to_string())
                .and(Role::Text, waits(task))
                .and(Role::Critical, ending);
            if i == 0 {
                text = text.and(Role::Dim, format!("{}{victims}", glyphs.dot));
            }
            self.push(Subject::task(&task.name), text);
            let inside = rows.len() > 1 && i + 1 < rows.len();
            self.below(*row, rows, if inside { glyphs.below[0] } else { glyphs.below[1] });
        }
    }

    /// The trees below a row, without those in `except`.
    fn below(&mut self, row: usize, except: &[usize], before: &str) {
        let Some(task) = self.report.tasks.get(row) else { return };
        let rows: Vec<usize> = task.blocks.iter().copied().filter(|r| !except.contains(r)).collect();
        let children = self.children(Some((&task.name).into()), &rows, before, 0);
        self.walk(children);
    }

    fn walk(&mut self, first: Vec<Pending>) {
        let glyphs = self.view.glyphs;
        let mut pending = first;
        while let Some(next) = pending.pop() {
            match next {
                Pending::Task {
                    row,
                    before,
                    depth,
                    last,
                } => {
                    let Some(task) = self.report.tasks.get(row) else {
                        continue;
                    };
                    let at = usize::from(last);
                    let mut text = Text::of(Role::Dim, format!("{before}{}", glyphs.branch[at]));
                    if depth >= MAX_INDENT {
                        text = text.and(Role::Dim, format!("[{}] ", depth + 1));
                    }
                    text = text
                        .and(Role::Strong, task.name.to_string())
                        .and(Role::Text, waits(task));
                    if let Some(site) = &task.site {
                        text = text.and(Role::Dim, format!(" at {site}"));
                    }
                    self.push(Subject::task(&task.name), text);
                    let deeper = if depth >= MAX_INDENT {
                        before
                    } else {
                        format!("{before}{}", glyphs.below[at])
                    };
                    pending.extend(self.children(Some((&task.name).into()), &task.blocks, &deeper, depth + 1));
                }
                Pending::Fold {
                    subject,
                    text,
                    before,
                    last,
                } => {
                    let text = Text::of(Role::Dim, format!("{before}{}", glyphs.branch[usize::from(last)]))
                        .and(Role::Link, text);
                    self.push(subject, text);
                }
            }
        }
    }

    /// The children of a row, last first, those of one lock together and folded when they are many.
    fn children(&self, parent: Option<Who>, rows: &[usize], before: &str, depth: usize) -> Vec<Pending> {
        let mut groups: BTreeMap<Option<LockKey>, Vec<(&TaskRow, usize)>> = BTreeMap::new();
        for &row in rows.iter().filter(|row| self.is_shown(**row)) {
            if let Some(task) = self.report.tasks.get(row) {
                groups
                    .entry(lock_of(task).map(LockRef::key))
                    .or_default()
                    .push((task, row));
            }
        }
        let mut all = Vec::new();
        for (lock, mut members) in groups {
            members.sort_by_key(|(task, row)| {
                let wait = task.wait.as_ref();
                let place = wait.and_then(|w| w.place).unwrap_or(u32::MAX);
                (place, std::cmp::Reverse(wait.map_or(Nanos(0), |w| w.waited)), *row)
            });
            let subject = Subject::Fold(parent, lock);
            let foldable = members.len() > FOLD_ABOVE;
            let unfolded = self.view.unfolded.contains(&subject);
            let shown = if foldable && !unfolded {
                SHOWN_OF_FOLDED
            } else {
                members.len()
            };
            all.extend(members.iter().take(shown).map(|&(_, row)| Pending::Task {
                row,
                before: before.to_owned(),
                depth,
                last: false,
            }));
            if foldable {
                let text = self.fold_text(members.get(SHOWN_OF_FOLDED..).unwrap_or_default(), unfolded);
                all.push(Pending::Fold {
                    subject,
                    text,
                    before: before.to_owned(),
                    last: false,
                });
            }
        }
        if let Some(Pending::Task { last, .. } | Pending::Fold { last, .. }) = all.last_mut() {
            *last = true;
        }
        all.reverse();
        all
    }

    fn fold_text(&self, folded: &[(&TaskRow, usize)], unfolded: bool) -> String {
        let glyphs = self.view.glyphs;
        let n = number(folded.len() as u64);
        if unfolded {
            return format!("{}fold {n} of them again", glyphs.fold[1]);
        }
        let readers = folded
            .iter()
            .filter(|(t, _)| {
                t.wait
                    .as_ref()
                    .is_some_and(|w| w.lock.is_some() && w.mode == crate::event::Mode::Shared)
            })
            .count();
        let what = folded
            .first()
            .and_then(|(t, _)| t.wait.as_ref())
            .map_or_else(String::new, words::wanted);
        let kind = match readers {
            0 => String::new(),
            r if r == folded.len() => " readers".to_owned(),
            r => format!(" ({} readers)", number(r as u64)),
        };
        let behind: usize = folded.iter().map(|(t, _)| t.blocks.len()).sum();
        let behind = if behind > 0 {
            format!(", with {} behind them", number(behind as u64))
        } else {
            String::new()
        };
        format!("{}{n} more{kind} wait for {what}{behind} (x unfolds)", glyphs.fold[0])
    }
}

fn lock_of(task: &TaskRow) -> Option<&LockRef> {
    task.wait.as_ref().and_then(|w| w.lock.as_ref())
}

/// ` waits excl 1.20 s for mutex M`.
fn waits(task: &TaskRow) -> String {
    match &task.wait {
        None => String::new(),
        Some(wait) => {
            let mode = if wait.lock.is_some() {
                format!(" {}", words::mode(wait.mode))
            } else {
                String::new()
            };
            format!(
                " {}{mode} {} for {}",
                words::phase(wait.phase),
                words::waited(wait),
                words::wanted(wait)
            )
        }
    }
}

/// What the root of a tree does and holds.
fn does(task: &TaskRow) -> String {
    let mut text = match &task.wait {
        Some(_) => waits(task),
        None => format!(" {}", words::state(task.state)),
    };
    match task.holds.as_slice() {
        [] => {}
        [one] => text = format!("{text}, holds {}", words::lock(one)),
        [one, more @ ..] => text = format!("{text}, holds {} and {} more", words::lock(one), more.len()),
    }
    if let Some(site) = &task.site {
        text = format!("{text} at {site}");
    }
    text
}
