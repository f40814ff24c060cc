//! Moving about: selection, opening, following links, and the way back.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::draw::{Shown, shown_lines};
use super::input::{Pane, Step};
use super::panes::{Subject, Who};
use super::state::{Effect, Ui};
use super::theme::Role;
use crate::report::{OwnerRow, Report};

/// Steps back that are remembered.
const MAX_BACK: usize = 64;

/// Selection and order of one pane.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// What is selected; `None`: the first row, whatever it is.
    pub selected: Option<Subject>,
    /// Where it stood last: what takes its place is selected when it is gone.
    pub index: usize,
    /// First row on the screen.
    pub offset: usize,
    /// Sorted by this column; `None`: in the order of the report.
    pub sort: Option<usize>,
    /// The other way round.
    pub reversed: bool,
}

/// Something opened on the whole screen.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What.
    pub subject: Subject,
    /// The selected line.
    pub cursor: usize,
    /// First line on the screen.
    pub offset: usize,
}

/// Where one came from.
#[derive(Clone, Debug)]
pub struct Place {
    pane: Pane,
    selected: Option<Subject>,
    opened: Option<Opened>,
}

impl Ui {
    /// What the selected row stands for.
    pub(super) fn selected(&self) -> Option<Subject> {
        let report = self.report()?;
        let rows = self.table(&report).rows;
        rows.get(self.row(&rows)).map(|row| row.subject.clone())
    }

    /// The place of the selected row.
    pub(super) fn row(&self, rows: &[super::panes::Row]) -> usize {
        let list = self.list();
        match &list.selected {
            None => 0,
            Some(subject) => {
                let place = rows.iter().position(|row| row.subject == *subject);
                place.unwrap_or(list.index.min(rows.len().saturating_sub(1)))
            }
        }
    }

    pub(super) fn switch(&mut self, pane: Pane) {
        self.pane = pane;
        self.opened = None;
        self.back.clear();
    }

    pub(super) fn step(&mut self, step: Step) {
        let page = usize::from(self.hits.page).max(1);
        let to = |at: usize, len: usize| {
            let last = len.saturating_sub(1);
            match step {
                Step::Up => at.saturating_sub(1),
                Step::Down => (at + 1).min(last),
                Step::PageUp => at.saturating_sub(page),
                Step::PageDown => (at + page).min(last),
                Step::First => 0,
                Step::Last => last,
            }
        };
        let lines = self.opened_lines().len();
        if let Some(opened) = &mut self.opened {
            opened.cursor = to(opened.cursor, lines);
            return;
        }
        if let Some(report) = self.report() {
            let rows = self.table(&report).rows;
            self.select(&rows, to(self.row(&rows), rows.len()));
        }
    }

    fn select(&mut self, rows: &[super::panes::Row], index: usize) {
        let subject = rows.get(index).map(|row| row.subject.clone());
        let list = self.list_mut();
        list.selected = subject;
        list.index = index;
    }

    /// Opens the selected row, or follows the selected link.
    pub(super) fn open(&mut self) {
        let Some(report) = self.report() else { return };
        if self.opened.is_some() {
            let cursor = self.opened.as_ref().map_or(0, |opened| opened.cursor);
            match self.opened_lines().into_iter().nth(cursor).and_then(|(_, link)| link) {
                Some(to) => self.go(to),
                None => self.say(Role::Dim, "this line leads nowhere"),
            }
            return;
        }
        match self.selected() {
            Some(Subject::Fold(..)) => {
                if let Some(fold) = self.selected()
                    && !self.unfolded.remove(&fold)
                {
                    self.unfolded.insert(fold);
                }
            }
            Some(subject) => {
                // The row stays selected, also where it was the first by default.
                let rows = self.table(&report).rows;
                self.select(&rows, self.row(&rows));
                self.remember();
                self.opened = Some(Opened::new(subject));
            }
            None => {}
        }
    }

    /// The lines of what is opened. Not those of the last drawing: several keys may come between two.
    fn opened_lines(&self) -> Vec<Shown> {
        match (self.report(), &self.opened) {
            (Some(report), Some(opened)) => shown_lines(self, &report, &opened.subject, self.hits.width),
            _ => Vec::new(),
        }
    }

    fn remember(&mut self) {
        if self.back.len() == MAX_BACK {
            self.back.remove(0);
        }
        self.back.push(Place {
            pane: self.pane,
            selected: self.list().selected.clone(),
            opened: self.opened.clone(),
        });
    }

    /// Opens something, and selects it where it is listed.
    pub(super) fn go(&mut self, subject: Subject) {
        self.remember();
        if let Some(pane) = subject.pane() {
            self.pane = pane;
            self.list_mut().selected = Some(subject.clone());
        }
        self.opened = Some(Opened::new(subject));
    }

    pub(super) fn go_back(&mut self) {
        match self.back.pop() {
            Some(place) => {
                self.pane = place.pane;
                self.list_mut().selected = place.selected;
                self.opened = place.opened;
            }
            None if self.opened.is_some() => self.opened = None,
            None => self.filter = Default::default(),
        }
    }

    /// One hop along the chain that leads to who is to blame.
    pub(super) fn onward(&mut self) {
        let opened = self.opened.as_ref().map(|opened| opened.subject.clone());
        let Some((report, subject)) = self.report().zip(opened.or_else(|| self.selected())) else {
            return;
        };
        match next_hop(&report, &subject) {
            Some(next) => self.go(next),
            None => self.say(Role::Dim, "the chain ends here"),
        }
    }

    pub(super) fn mouse(&mut self, mouse: &MouseEvent) -> Effect {
        let at = Position::new(mouse.column, mouse.row);
        match mouse.kind {
            MouseEventKind::ScrollUp => self.scroll(Step::Up),
            MouseEventKind::ScrollDown => self.scroll(Step::Down),
            MouseEventKind::Down(MouseButton::Left) => {
                let tab = self
                    .hits
                    .tabs
                    .iter()
                    .find(|(area, _)| area.contains(at))
                    .map(|(_, pane)| *pane);
                if let Some(pane) = tab {
                    self.switch(pane);
                } else if self.hits.rows.contains(at) {
                    self.click(usize::from(at.y - self.hits.rows.y) + self.hits.first);
                } else {
                    return Effect::Nothing;
                }
            }
            _ => return Effect::Nothing,
        }
        Effect::Redraw
    }

    fn scroll(&mut self, step: Step) {
        if let Some(scroll) = &mut self.help {
            *scroll = if step == Step::Up {
                scroll.saturating_sub(3)
            } else {
                *scroll + 3
            };
            return;
        }
        for _ in 0..3 {
            self.step(step);
        }
    }

    /// The first click selects, the second opens.
    fn click(&mut self, index: usize) {
        let lines = self.opened_lines().len();
        if let Some(opened) = &mut self.opened {
            let again = opened.cursor == index;
            opened.cursor = index.min(lines.saturating_sub(1));
            if again {
                self.open();
            }
            return;
        }
        let Some(report) = self.report() else { return };
        let rows = self.table(&report).rows;
        if index >= rows.len() {
            return;
        }
        let again = self.row(&rows) == index && self.list().selected.is_some();
        self.select(&rows, index);
        if again {
            self.open();
        }
    }
}

impl Opened {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            cursor: 0,
            offset: 0,
        }
    }
}

/// From a finding to its first task, from a task to the lock it waits for or to whom it waits for, from a lock to its
/// (most probable) holder, from a CPU to what spins on it.
fn next_hop(report: &Report, subject: &Subject) -> Option<Subject> {
    match subject {
        Subject::Finding(id) => {
            let finding = report.findings.iter().find(|f| f.id == *id)?;
            let task = finding.tasks.first().map(|t| Subject::task(&t.name));
            task.or_else(|| finding.locks.first().map(|l| Subject::Lock(l.key())))
        }
        Subject::Task(who) => {
            let task = report.tasks.iter().find(|t| Who::from(&t.name) == *who)?;
            let lock = task.wait.as_ref().and_then(|w| w.lock.as_ref());
            lock.map(|l| Subject::Lock(l.key()))
                .or_else(|| Some(Subject::task(&report.tasks.get(task.blocked_by?)?.name)))
        }
        Subject::Lock(key) => {
            let row = report.locks.iter().find(|l| l.lock.key() == *key)?;
            match &row.owner {
                OwnerRow::Task { name } | OwnerRow::Handed { name } => Some(Subject::task(name)),
                OwnerRow::Unrecorded { candidates, .. } => candidates.first().map(Subject::task),
                OwnerRow::Nobody | OwnerRow::Unreadable { .. } => None,
            }
        }
        Subject::Cpu(cpu) => {
            let row = report.cpus.iter().find(|c| c.cpu == *cpu)?;
            let spinner = row.spins.last().map(|s| &s.who);
            spinner.or(row.task.as_ref()).map(Subject::task)
        }
        Subject::Unexplained => report.coverage.groups.first()?.tasks.first().map(Subject::task),
        Subject::Run => Some(Subject::Unexplained),
        Subject::Fold(who, lock) => match lock {
            Some(lock) => Some(Subject::Lock(*lock)),
            None => who.map(Subject::Task),
        },
    }
}
