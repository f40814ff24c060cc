//! The panes: each turns a borrowed report into rows.

pub mod cpus;
pub mod detail;
pub mod findings;
pub mod graph;
pub mod locks;
pub mod tasks;

mod lock_detail;
mod run;
mod words;

use std::collections::HashSet;

use super::filter::{Fields, Filter};
use super::input::Pane;
use super::theme::{Glyphs, Role};
use super::widgets::{Column, SortKey, Text};
use crate::diagnosis::{FindingId, Name};
use crate::event::Context;
use crate::ids::{CpuId, Tid};
use crate::model::LockKey;
use crate::report::Report;

/// Something that can be selected, whatever row it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A finding.
    Finding(FindingId),
    /// A task or interrupt.
    Task(Who),
    /// A lock.
    Lock(LockKey),
    /// A CPU.
    Cpu(CpuId),
    /// The waiting tasks that nothing explains.
    Unexplained,
    /// The run itself.
    Run,
    /// The folded waiters of one lock (or of no lock) behind a task (or behind a lock without a holder).
    Fold(Option<Who>, Option<LockKey>),
}

/// A task or interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    tid: Tid,
    context: Context,
    cpu: Option<CpuId>,
}

impl From<&Name> for Who {
    fn from(name: &Name) -> Self {
        Self {
            tid: name.tid,
            context: name.context,
            cpu: name.interrupt_cpu,
        }
    }
}

impl Subject {
    /// A task.
    #[must_use]
    pub fn task(name: &Name) -> Self {
        Self::Task(name.into())
    }

    /// The pane that lists it.
    #[must_use]
    pub fn pane(&self) -> Option<Pane> {
        match self {
            Self::Finding(_) | Self::Unexplained => Some(Pane::Findings),
            Self::Task(_) => Some(Pane::Tasks),
            Self::Lock(_) => Some(Pane::Locks),
            Self::Cpu(_) => Some(Pane::Cpus),
            Self::Fold(..) => Some(Pane::Graph),
            Self::Run => None,
        }
    }
}

/// What a pane is shown with.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Reduces the rows.
    pub filter: &'a Filter,
    /// What is unfolded.
    pub unfolded: &'a HashSet<Subject>,
    /// What is pinned.
    pub pinned: Option<&'a Subject>,
    /// Characters to draw with.
    pub glyphs: &'static Glyphs,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it stands for.
    pub subject: Subject,
    /// Its cells, one for each column.
    pub cells: Vec<Text>,
    /// How it is sorted by each column.
    pub keys: Vec<SortKey>,
}

/// Rows under columns.
#[derive(Clone, Debug)]
pub struct Table {
    /// The columns.
    pub columns: &'static [Column],
    /// The rows that the filter lets through.
    pub rows: Vec<Row>,
    /// How many rows there are in all.
    pub total: usize,
    /// What is shown when there is no row.
    pub empty: Text,
}

impl Table {
    fn new(columns: &'static [Column], empty: Text) -> Self {
        Self {
            columns,
            rows: Vec::new(),
            total: 0,
            empty,
        }
    }

    /// Counts a row, and adds it if the filter lets it through.
    fn add(&mut self, view: &View<'_>, fields: impl FnOnce() -> Fields, row: impl FnOnce() -> Row) {
        self.total += 1;
        if view.filter.is_empty() || view.filter.matches(&fields()) {
            self.rows.push(row());
        }
    }

    /// Sorts by a column; rows that are equal in it stay in the order of the report.
    pub fn sort(&mut self, column: usize, reversed: bool) {
        self.rows.sort_by(|a, b| {
            let order = match (a.keys.get(column), b.keys.get(column)) {
                (Some(SortKey::Number(a)), Some(SortKey::Number(b))) => b.cmp(a),
                (a, b) => a.cmp(&b),
            };
            if reversed { order.reverse() } else { order }
        });
    }
}

/// The rows of a pane.
#[must_use]
pub fn table(pane: Pane, report: &Report, view: &View<'_>) -> Table {
    match pane {
        Pane::Findings => findings::table(report, view),
        Pane::Graph => graph::table(report, view),
        Pane::Locks => locks::table(report, view),
        Pane::Tasks => tasks::table(report, view),
        Pane::Cpus => cpus::table(report, view),
    }
}

const fn column(title: &'static str, width: u16, right: bool, rank: u8) -> Column {
    Column {
        title,
        width,
        rest: false,
        right,
        rank,
    }
}

/// The column that takes what is left, and never goes.
const fn rest(title: &'static str, least: u16) -> Column {
    Column {
        rest: true,
        ..column(title, least, false, 0)
    }
}

fn dim(text: impl Into<String>) -> Text {
    Text::of(Role::Dim, text)
}
