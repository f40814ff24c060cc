//! Keys: one table decides what they do, and the help is generated from it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::source::Control;

/// A view of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pane {
    /// What is wrong.
    Findings,
    /// Who waits for whom.
    Graph,
    /// Contended locks.
    Locks,
    /// Who waits or holds.
    Tasks,
    /// What each CPU does.
    Cpus,
}

impl Pane {
    /// All, in the order of their keys.
    pub const ALL: [Self; 5] = [Self::Findings, Self::Graph, Self::Locks, Self::Tasks, Self::Cpus];

    /// Its name.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Findings => "Findings",
            Self::Graph => "Graph",
            Self::Locks => "Locks",
            Self::Tasks => "Tasks",
            Self::Cpus => "CPUs",
        }
    }

    /// Its place in [`Pane::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The pane so many places further, round the corner.
    #[must_use]
    pub fn further(self, by: usize) -> Self {
        let index = (self.index() + by) % Self::ALL.len();
        Self::ALL.get(index).copied().unwrap_or(Self::Findings)
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Shows a pane.
    Show(Pane),
    /// Shows the next pane.
    NextPane,
    /// Shows the previous pane.
    PreviousPane,
    /// Moves the selection by rows.
    Move(Step),
    /// Opens the selection, or follows the selected link.
    Open,
    /// Goes back to where one came from.
    Back,
    /// From a task to its lock, from a lock to its holder, from a finding to its first task.
    Onward,
    /// Folds or unfolds.
    Fold,
    /// Edits the filter.
    Filter,
    /// Sorts by the next column.
    Sort,
    /// Reverses the order.
    Reverse,
    /// Pins what is selected, or unpins it.
    Follow,
    /// Stops and goes on.
    Pause,
    /// Saves the report.
    Save,
    /// Saves a snapshot of the machine.
    Snapshot,
    /// Shows the facts of this run.
    About,
    /// Shows the keys.
    Help,
    /// Draws everything again.
    Repaint,
    /// Suspends the program.
    Suspend,
    /// Leaves.
    Quit,
    /// Moves a recording.
    Control(Control),
}

/// How far the selection moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One row.
    Up,
    /// One row.
    Down,
    /// As many rows as are shown.
    PageUp,
    /// As many rows as are shown.
    PageDown,
    /// To the first row.
    First,
    /// To the last row.
    Last,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    code: KeyCode,
    ctrl: bool,
}

const fn key(code: KeyCode) -> Key {
    Key { code, ctrl: false }
}

const fn ch(c: char) -> Key {
    key(KeyCode::Char(c))
}

const fn ctrl(c: char) -> Key {
    Key {
        code: KeyCode::Char(c),
        ctrl: true,
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The keys.
    pub keys: &'static [Key],
    /// How the help calls them.
    pub shown: &'static str,
    /// What they do.
    pub action: Action,
    /// What the help says.
    pub help: &'static str,
}

/// A part of the table.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Its rows.
    pub bindings: &'static [Binding],
}

macro_rules! bindings {
    ($($title:literal: [$($shown:literal $keys:expr => $action:expr, $help:literal;)*])*) => {
        &[$(Section {
            title: $title,
            bindings: &[$(Binding { keys: &$keys, shown: $shown, action: $action, help: $help }),*],
        }),*]
    };
}

/// Every key.
pub const SECTIONS: &[Section] = bindings! {
    "Panes": [
        "1" [ch('1')] => Action::Show(Pane::Findings), "findings: what is wrong";
        "2" [ch('2')] => Action::Show(Pane::Graph), "graph: who waits for whom";
        "3" [ch('3')] => Action::Show(Pane::Locks), "contended locks";
        "4" [ch('4')] => Action::Show(Pane::Tasks), "tasks that wait or hold";
        "5" [ch('5')] => Action::Show(Pane::Cpus), "CPUs";
        "Tab" [key(KeyCode::Tab)] => Action::NextPane, "next pane";
        "Shift-Tab" [key(KeyCode::BackTab)] => Action::PreviousPane, "previous pane";
        "i" [ch('i')] => Action::About, "this run: probes, limits, losses, coverage";
    ]
    "Moving": [
        "Up k" [key(KeyCode::Up), ch('k')] => Action::Move(Step::Up), "up";
        "Down j" [key(KeyCode::Down), ch('j')] => Action::Move(Step::Down), "down";
        "PgUp ^B" [key(KeyCode::PageUp), ctrl('b')] => Action::Move(Step::PageUp), "page up";
        "PgDn ^F" [key(KeyCode::PageDown), ctrl('f')] => Action::Move(Step::PageDown), "page down";
        "Home g" [key(KeyCode::Home), ch('g')] => Action::Move(Step::First), "first";
        "End G" [key(KeyCode::End), ch('G')] => Action::Move(Step::Last), "last";
        "Enter l" [key(KeyCode::Enter), key(KeyCode::Right), ch('l')] => Action::Open, "open; in a detail, follow the link";
        "Esc h" [key(KeyCode::Esc), key(KeyCode::Left), key(KeyCode::Backspace), ch('h')] => Action::Back, "back";
        "o" [ch('o')] => Action::Onward, "onward: finding, task, its lock, its holder";
    ]
    "Showing": [
        "/" [ch('/')] => Action::Filter, "filter: words, task:X lock:X kind:X cgroup:X";
        "s" [ch('s')] => Action::Sort, "sort by the next column";
        "r" [ch('r')] => Action::Reverse, "reverse the order";
        "x" [ch('x')] => Action::Fold, "fold or unfold (graph, stacks)";
        "f" [ch('f')] => Action::Follow, "follow what is selected, or no longer";
        "Space p" [ch(' '), ch('p')] => Action::Pause, "pause and go on";
        "w" [ch('w')] => Action::Save, "write the report to a file";
        "W" [ch('W')] => Action::Snapshot, "look at every thread now, into a file";
    ]
    "Replay": [
        "n" [ch('n')] => Action::Control(Control::StepToFinding), "to the next change of a finding";
        "] [" [ch(']')] => Action::Control(Control::SeekBy(10)), "10 s forward, 10 s back";
        "" [ch('[')] => Action::Control(Control::SeekBy(-10)), "";
        "> <" [ch('>')] => Action::Control(Control::Faster), "faster, slower";
        "" [ch('<')] => Action::Control(Control::Slower), "";
        "0" [ch('0')] => Action::Control(Control::Rewind), "to the beginning";
    ]
    "Program": [
        "?" [ch('?'), key(KeyCode::F(1))] => Action::Help, "this help";
        "^L" [ctrl('l')] => Action::Repaint, "draw everything again";
        "^Z" [ctrl('z')] => Action::Suspend, "suspend";
        "q ^C" [ch('q'), ctrl('c')] => Action::Quit, "leave";
    ]
};

/// What a key does, by the table.
#[must_use]
pub fn action(event: &KeyEvent) -> Option<Action> {
    let pressed = Key {
        code: event.code,
        ctrl: event.modifiers.contains(KeyModifiers::CONTROL),
    };
    if event.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    let mut all = SECTIONS.iter().flat_map(|section| section.bindings);
    all.find(|binding| binding.keys.contains(&pressed))
        .map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        let mut keys: Vec<Key> = Vec::new();
        for binding in SECTIONS.iter().flat_map(|s| s.bindings) {
            assert!(!binding.keys.is_empty(), "{:?}", binding.action);
            for key in binding.keys {
                assert!(!keys.contains(key), "{key:?}");
                keys.push(*key);
            }
        }
    }

    #[test]
    fn every_key_does_what_its_row_says_and_other_keys_nothing() {
        for binding in SECTIONS.iter().flat_map(|s| s.bindings) {
            for key in binding.keys {
                let modifiers = if key.ctrl {
                    KeyModifiers::CONTROL
                } else {
                    KeyModifiers::NONE
                };
                assert_eq!(action(&KeyEvent::new(key.code, modifiers)), Some(binding.action));
            }
        }
        assert_eq!(action(&KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT)), None);
        assert_eq!(action(&KeyEvent::new(KeyCode::Char('Q'), KeyModifiers::SHIFT)), None);
    }
}
