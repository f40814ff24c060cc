//! The view without a terminal: what is selected, sorted, filtered, frozen.

use std::collections::HashSet;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::draw::{self, Hits};
use super::feed::Request;
use super::filter::Filter;
use super::input::{self, Action, Pane, Step};
use super::panes::{self, Subject, Table, View, detail};
use super::prompt::{Outcome, Prompt, Purpose};
use super::save;
use super::source::Picture;
use super::theme::{Role, Theme};
use super::walk::{List, Opened, Place};
use crate::report::Report;
use crate::view::stacks::Depth;

/// What the surroundings must do after an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing has changed.
    Nothing,
    /// Draw.
    Redraw,
    /// Forget what is on the terminal, then draw.
    Repaint,
    /// Suspend the process.
    Suspend,
    /// Tell the data side.
    Ask(Request),
    /// Leave.
    Quit,
}

/// The view.
#[derive(Debug)]
pub struct Ui {
    pub(super) theme: Theme,
    pub(super) picture: Option<Picture>,
    /// The report that is shown while the picture is frozen.
    pub(super) frozen: Option<Arc<Report>>,
    pub(super) pane: Pane,
    pub(super) lists: [List; 5],
    /// What is opened on the whole screen; without it, the selected row is shown in brief.
    pub(super) opened: Option<Opened>,
    pub(super) back: Vec<Place>,
    pub(super) filter: Filter,
    pub(super) prompt: Option<Prompt>,
    /// The help is open, scrolled by so many lines.
    pub(super) help: Option<usize>,
    pub(super) pinned: Option<Subject>,
    pub(super) unfolded: HashSet<Subject>,
    /// How much of a stack a detail shows.
    pub(super) stacks: Depth,
    pub(super) message: Option<(Role, String)>,
    pub(super) hits: Hits,
}

impl Ui {
    /// An empty view.
    #[must_use]
    pub fn new(theme: Theme) -> Self {
        Self {
            theme,
            picture: None,
            frozen: None,
            pane: Pane::Findings,
            lists: Default::default(),
            opened: None,
            back: Vec::new(),
            filter: Filter::default(),
            prompt: None,
            help: None,
            pinned: None,
            unfolded: HashSet::new(),
            stacks: Depth::Caller,
            message: None,
            hits: Hits::default(),
        }
    }

    /// Takes a new picture.
    pub fn show(&mut self, picture: Picture) {
        self.picture = Some(picture);
    }

    /// Draws everything.
    pub fn draw(&mut self, buffer: &mut Buffer) {
        draw::screen(self, buffer);
    }

    /// Takes a key, the mouse, or a new size.
    pub fn input(&mut self, event: &Event) -> Effect {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(key),
            Event::Mouse(mouse) => self.mouse(mouse),
            Event::Resize(..) => Effect::Redraw,
            _ => Effect::Nothing,
        }
    }

    /// The report on the screen.
    pub(super) fn report(&self) -> Option<Arc<Report>> {
        let frozen = self.frozen.as_ref();
        frozen.or(self.picture.as_ref().map(|p| &p.report)).map(Arc::clone)
    }

    /// The rows of the pane, filtered and sorted.
    pub(super) fn table(&self, report: &Report) -> Table {
        let view = View {
            filter: &self.filter,
            unfolded: &self.unfolded,
            pinned: self.pinned.as_ref(),
            glyphs: self.theme.glyphs,
        };
        let mut table = panes::table(self.pane, report, &view);
        let list = self.list();
        match list.sort {
            Some(column) => table.sort(column, list.reversed),
            None if list.reversed && self.pane != Pane::Graph => table.rows.reverse(),
            None => {}
        }
        table
    }

    pub(super) fn list(&self) -> &List {
        let [findings, graph, locks, tasks, cpus] = &self.lists;
        match self.pane {
            Pane::Findings => findings,
            Pane::Graph => graph,
            Pane::Locks => locks,
            Pane::Tasks => tasks,
            Pane::Cpus => cpus,
        }
    }

    pub(super) fn list_mut(&mut self) -> &mut List {
        let [findings, graph, locks, tasks, cpus] = &mut self.lists;
        match self.pane {
            Pane::Findings => findings,
            Pane::Graph => graph,
            Pane::Locks => locks,
            Pane::Tasks => tasks,
            Pane::Cpus => cpus,
        }
    }

    fn key(&mut self, key: &KeyEvent) -> Effect {
        // Esc and the next key in one read look like that key with Alt, as they often do on a slow line. No key of ours has Alt.
        if key.modifiers.contains(KeyModifiers::ALT) {
            self.key(&KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
            return self.key(&KeyEvent::new(key.code, key.modifiers - KeyModifiers::ALT));
        }
        self.message = None;
        if let Some(prompt) = &mut self.prompt {
            let outcome = prompt.key(key);
            return self.prompted(outcome);
        }
        match input::action(key) {
            None => Effect::Redraw,
            Some(Action::Quit) if self.help.is_none() => Effect::Quit,
            Some(action) if self.help.is_some() => self.help_key(action),
            Some(action) => self.act(action),
        }
    }

    fn help_key(&mut self, action: Action) -> Effect {
        let Some(scroll) = self.help else {
            return Effect::Nothing;
        };
        self.help = match action {
            Action::Move(Step::Up) => Some(scroll.saturating_sub(1)),
            Action::Move(Step::Down) => Some(scroll + 1),
            Action::Move(Step::PageUp) => Some(scroll.saturating_sub(10)),
            Action::Move(Step::PageDown) => Some(scroll + 10),
            _ => None,
        };
        Effect::Redraw
    }

    fn act(&mut self, action: Action) -> Effect {
        match action {
            Action::Show(pane) => self.switch(pane),
            Action::NextPane => self.switch(self.pane.further(1)),
            Action::PreviousPane => self.switch(self.pane.further(Pane::ALL.len() - 1)),
            Action::Move(step) => self.step(step),
            Action::Open => self.open(),
            Action::Back => self.go_back(),
            Action::Onward => self.onward(),
            Action::Fold => self.fold(),
            Action::Filter => self.prompt = Some(Prompt::new(Purpose::Filter, &self.filter.to_string())),
            Action::Sort => self.sort(),
            Action::Reverse => {
                let list = self.list_mut();
                list.reversed = !list.reversed;
            }
            Action::Follow => self.follow(),
            Action::Pause => return self.pause(),
            Action::Save => match self.report() {
                Some(report) => {
                    self.prompt = Some(Prompt::new(Purpose::Save, &save::suggested_name("holdup", &report)))
                }
                None => self.say(Role::Warning, "there is no report yet"),
            },
            Action::Snapshot if self.has_playback() => {
                self.say(Role::Warning, "a recording has no machine that could be looked at");
            }
            Action::Snapshot => {
                let name = self
                    .report()
                    .map(|report| save::suggested_name("holdup-snapshot", &report));
                self.prompt = Some(Prompt::new(Purpose::Snapshot, &name.unwrap_or_default()));
            }
            Action::About => self.go(Subject::Run),
            Action::Help => self.help = Some(0),
            Action::Repaint => return Effect::Repaint,
            Action::Suspend => return Effect::Suspend,
            Action::Quit => return Effect::Quit,
            Action::Control(control) if self.has_playback() => return Effect::Ask(Request::Control(control)),
            Action::Control(_) => self.say(
                Role::Warning,
                "this key moves a recording; the running kernel cannot be moved",
            ),
        }
        Effect::Redraw
    }

    fn has_playback(&self) -> bool {
        self.picture.as_ref().is_some_and(|p| p.vitals.playback.is_some())
    }

    pub(super) fn say(&mut self, role: Role, text: impl Into<String>) {
        self.message = Some((role, text.into()));
    }

    /// Shows what has become of a [`Request`].
    pub fn told(&mut self, said: Result<String, String>) {
        match said {
            Ok(text) => self.say(Role::Good, text),
            Err(text) => self.say(Role::Critical, text),
        }
    }

    /// A recording stops; of the running kernel, only the picture does.
    fn pause(&mut self) -> Effect {
        if self.has_playback() {
            return Effect::Ask(Request::Control(super::Control::TogglePause));
        }
        self.frozen = match self.frozen {
            Some(_) => None,
            None => self.report(),
        };
        Effect::Ask(Request::Freeze(self.frozen.is_some()))
    }

    fn sort(&mut self) {
        let columns = match self.report() {
            Some(report) if self.pane != Pane::Graph => self.table(&report).columns.len(),
            _ => return self.say(Role::Warning, "the graph has an order of its own"),
        };
        let list = self.list_mut();
        list.reversed = false;
        list.sort = match list.sort {
            None => Some(0),
            Some(column) if column + 1 < columns => Some(column + 1),
            Some(_) => None,
        };
    }

    fn fold(&mut self) {
        if self.opened.is_some() {
            self.stacks = match self.stacks {
                Depth::Caller => Depth::Full,
                Depth::Full => Depth::Caller,
            };
            return;
        }
        let Some((report, subject)) = self.report().zip(self.selected()) else {
            return;
        };
        // On a task, its folded waiters are meant.
        let fold = match (&subject, self.pane) {
            (Subject::Fold(..), _) => Some(subject),
            (Subject::Task(who), Pane::Graph) => {
                let rows = self.table(&report).rows;
                rows.into_iter()
                    .map(|row| row.subject)
                    .find(|s| matches!(s, Subject::Fold(Some(parent), _) if parent == who))
            }
            (Subject::Lock(lock), Pane::Graph) => Some(Subject::Fold(None, Some(*lock))),
            _ => None,
        };
        match fold {
            Some(fold) => {
                if !self.unfolded.remove(&fold) {
                    self.unfolded.insert(fold);
                }
            }
            None => self.say(Role::Warning, "nothing is folded here"),
        }
    }

    fn follow(&mut self) {
        let subject = self
            .opened
            .as_ref()
            .map(|o| o.subject.clone())
            .or_else(|| self.selected());
        self.pinned = match subject {
            Some(subject) if self.pinned.as_ref() != Some(&subject) => Some(subject),
            _ => None,
        };
    }

    fn prompted(&mut self, outcome: Outcome) -> Effect {
        match outcome {
            Outcome::Editing => {
                if let Some(prompt) = self.prompt.as_ref().filter(|p| p.purpose == Purpose::Filter) {
                    self.filter = Filter::parse(&prompt.text);
                }
            }
            Outcome::Cancelled(purpose, before) => {
                self.prompt = None;
                if purpose == Purpose::Filter {
                    self.filter = Filter::parse(&before);
                }
            }
            Outcome::Done(Purpose::Filter, text) => {
                self.prompt = None;
                self.filter = Filter::parse(&text);
            }
            Outcome::Done(Purpose::Snapshot, name) => {
                self.prompt = None;
                self.say(Role::Dim, "looking at every thread ...");
                return Effect::Ask(Request::Snapshot(name));
            }
            Outcome::Done(Purpose::Save, name) => {
                self.prompt = None;
                match self.report().map(|report| save::save(&report, &name)) {
                    Some(Ok(())) => self.say(Role::Good, format!("saved to {name}")),
                    Some(Err(error)) => self.say(Role::Critical, format!("not saved: {error}")),
                    None => {}
                }
            }
        }
        Effect::Redraw
    }

    /// The lines of what is opened, or of the selected row.
    pub(super) fn detail(&self, report: &Report, subject: &Subject) -> Vec<detail::Line> {
        detail::lines(report, subject, self.theme.glyphs, self.stacks)
    }
}
