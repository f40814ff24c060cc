//! The help: the key table, on top of everything else.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::input::SECTIONS;
use super::theme::{Role, Theme};
use super::widgets::{Text, put, rule};

/// Width of the column of keys.
const KEYS: usize = 11;
/// Width of one column of the help.
const COLUMN: u16 = 62;

/// Lines of the help.
fn lines() -> Vec<Text> {
    let mut lines = Vec::new();
    for section in SECTIONS {
        lines.push(Text::of(Role::Heading, section.title));
        for binding in section.bindings.iter().filter(|b| !b.shown.is_empty()) {
            lines.push(Text::of(Role::Strong, format!("  {:<KEYS$}", binding.shown)).and(Role::Text, binding.help));
        }
    }
    lines
}

/// Draws the help over `area`; returns how far it is really scrolled.
pub fn draw(buffer: &mut Buffer, area: Rect, scroll: usize, theme: &Theme) -> usize {
    let blank = " ".repeat(usize::from(area.width));
    for y in area.y..area.bottom() {
        buffer.set_style(Rect { y, height: 1, ..area }, ratatui::style::Style::reset());
        buffer.set_string(area.x, y, &blank, ratatui::style::Style::reset());
    }
    rule(
        buffer,
        Rect { height: 1, ..area },
        &Text::of(Role::Strong, "keys (any other key closes)"),
        theme,
    );
    let rows = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    let lines = lines();
    let columns = usize::from((area.width / COLUMN).max(1));
    let per_column = lines.len().div_ceil(columns);
    let first = scroll.min(per_column.saturating_sub(usize::from(rows.height)));
    for (column, part) in lines.chunks(per_column.max(1)).enumerate() {
        let x = rows.x + 1 + u16::try_from(column).unwrap_or(0) * COLUMN;
        let width = rows
            .right()
            .saturating_sub(x)
            .min(if columns > 1 { COLUMN - 2 } else { rows.width });
        for (y, line) in (rows.y..rows.bottom()).zip(part.iter().skip(first)) {
            put(buffer, (x, y), width, line, theme);
        }
    }
    first
}
