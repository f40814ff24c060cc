//! The last line: a prompt, a message, or the keys to remember.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::input::{Action, SECTIONS};
use super::panes::Table;
use super::prompt::Prompt;
use super::state::Ui;
use super::theme::{Role, Theme};
use super::widgets::{Text, number, put};

/// Keys that the footer names, with fewer words than the help.
const HINTS: [(Action, &str); 8] = [
    (Action::Help, "help"),
    (Action::Open, "open"),
    (Action::Back, "back"),
    (Action::Onward, "onward"),
    (Action::Filter, "filter"),
    (Action::Sort, "sort"),
    (Action::Pause, "pause"),
    (Action::Quit, "leave"),
];

/// Draws what is being typed, what there is to say, or else the most useful keys.
pub fn draw(ui: &Ui, table: Option<&Table>, buffer: &mut Buffer, area: Rect) {
    let text = match (&ui.prompt, &ui.message) {
        (Some(prompt), _) => return typed(prompt, buffer, area, &ui.theme),
        (None, Some((role, message))) => Text::of(*role, format!(" {message}")),
        (None, None) => hints(ui, table),
    };
    put(buffer, (area.x, area.y), area.width, &text, &ui.theme);
}

fn hints(ui: &Ui, table: Option<&Table>) -> Text {
    let mut text = Text::plain(" ");
    if !ui.filter.is_empty() {
        let of = table.map_or_else(String::new, |t| {
            let shown = t.rows.len().min(t.total) as u64;
            format!(" ({} of {})", number(shown), number(t.total as u64))
        });
        text = text
            .and(Role::Warning, format!("filter: {}{of}", ui.filter))
            .and(Role::Text, "  ");
    }
    for (action, words) in HINTS {
        let bindings = SECTIONS.iter().flat_map(|section| section.bindings);
        let key = bindings
            .into_iter()
            .find(|b| b.action == action)
            .map_or("", |b| b.shown);
        let key = key.split(' ').next().unwrap_or_default();
        text = text.and(Role::Strong, key).and(Role::Dim, format!(" {words}  "));
    }
    text
}

fn typed(prompt: &Prompt, buffer: &mut Buffer, area: Rect, theme: &Theme) {
    let label = Text::of(Role::Strong, format!(" {}", prompt.label()));
    let room = usize::from(area.width).saturating_sub(label.width() + 2);
    let length = prompt.text.chars().count();
    let tail: String = prompt.text.chars().skip(length.saturating_sub(room)).collect();
    let line = label.and(Role::Text, tail);
    let end = u16::try_from(line.width()).unwrap_or(u16::MAX).min(area.width - 1);
    put(buffer, (area.x, area.y), area.width, &line, theme);
    buffer.set_style(
        Rect {
            x: area.x + end,
            width: 1,
            ..area
        },
        theme.selected(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_is_a_key() {
        let all: Vec<Action> = SECTIONS.iter().flat_map(|s| s.bindings).map(|b| b.action).collect();
        assert!(HINTS.iter().all(|(action, _)| all.contains(action)));
    }
}
