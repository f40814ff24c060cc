//! A line that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Longest text that can be typed, in characters.
const LONGEST: usize = 200;

/// What the line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A filter.
    Filter,
    /// The name of a file for the report.
    Save,
    /// The name of a file for a snapshot.
    Snapshot,
}

/// A line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What for.
    pub purpose: Purpose,
    /// What it says so far.
    pub text: String,
    before: String,
}

/// What a key did to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Editing,
    /// It was given up; this is what it said at first.
    Cancelled(Purpose, String),
    /// It was finished.
    Done(Purpose, String),
}

impl Prompt {
    /// A line that says `text` at first.
    #[must_use]
    pub fn new(purpose: Purpose, text: &str) -> Self {
        Self {
            purpose,
            text: text.to_owned(),
            before: text.to_owned(),
        }
    }

    /// What stands before the line.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.purpose {
            Purpose::Filter => "filter: ",
            Purpose::Save => "save as (.json or text): ",
            Purpose::Snapshot => "snapshot as (.json or text): ",
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: &KeyEvent) -> Outcome {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Outcome::Done(self.purpose, self.text.trim().to_owned()),
            KeyCode::Esc => return Outcome::Cancelled(self.purpose, self.before.clone()),
            KeyCode::Char('c') if ctrl => return Outcome::Cancelled(self.purpose, self.before.clone()),
            KeyCode::Char('u') if ctrl => self.text.clear(),
            KeyCode::Char('w') if ctrl => {
                let kept = self.text.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.text.truncate(kept);
            }
            KeyCode::Backspace => {
                self.text.pop();
            }
            KeyCode::Char(c) if !ctrl && self.text.chars().count() < LONGEST => self.text.push(c),
            _ => {}
        }
        Outcome::Editing
    }
}
