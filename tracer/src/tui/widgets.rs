//! Pieces that every pane is made of: styled text, tables, scrolled lines.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::theme::{Glyphs, Role, Theme};

/// A line of text in pieces, each with its role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<(Role, String)>);

impl Text {
    /// Plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::of(Role::Text, text)
    }

    /// Text with a role.
    pub fn of(role: Role, text: impl Into<String>) -> Self {
        Self(vec![(role, text.into())])
    }

    /// Adds a piece.
    #[must_use]
    pub fn and(mut self, role: Role, text: impl Into<String>) -> Self {
        self.0.push((role, text.into()));
        self
    }

    /// Both, one after the other.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Width in cells.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| Span::raw(text.as_str()).width()).sum()
    }

    /// Cut into lines of at most `width` cells, at blanks where possible; the later ones are indented by `indent`.
    pub fn wrapped(self, width: usize, indent: usize) -> Vec<Self> {
        if self.width() <= width || width <= indent + 8 {
            return vec![self];
        }
        let mut lines = vec![Self::default()];
        let mut used = 0;
        for (role, text) in self.0 {
            for word in text.split_inclusive(' ') {
                let cells = Span::raw(word.trim_end()).width();
                if used + cells > width && used > indent {
                    lines.last_mut().map(Self::trim_end);
                    lines.push(Self::of(Role::Text, " ".repeat(indent)));
                    used = indent;
                }
                used += Span::raw(word).width();
                if let Some(line) = lines.last_mut() {
                    match line.0.last_mut() {
                        Some((last, so_far)) if *last == role => so_far.push_str(word),
                        _ => line.0.push((role, word.to_owned())),
                    }
                }
            }
        }
        lines
    }

    fn trim_end(&mut self) {
        if let Some((_, text)) = self.0.last_mut() {
            text.truncate(text.trim_end().len());
        }
    }

    /// As ratatui draws it.
    pub fn line(&self, theme: &Theme) -> Line<'_> {
        Line::from_iter(
            self.0
                .iter()
                .map(|(role, text)| Span::styled(text.as_str(), theme.style(*role))),
        )
    }
}

/// Draws one line of text; what does not fit ends in a mark.
pub fn put(buffer: &mut Buffer, (x, y): (u16, u16), width: u16, text: &Text, theme: &Theme) {
    buffer.set_line(x, y, &text.line(theme), width);
    let blanks = text.0.last().map_or(0, |(_, last)| last.len() - last.trim_end().len());
    if text.width() > usize::from(width) + blanks && width > 0 {
        buffer.set_stringn(x + width - 1, y, theme.glyphs.more, 1, theme.style(Role::Dim));
    }
}

/// How a row of a table is sorted by one column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SortKey {
    /// Largest first.
    Number(u64),
    /// In the order of the alphabet.
    Text(String),
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Width in cells; the least of it, for the column that takes what is left.
    pub width: u16,
    /// It takes what is left.
    pub rest: bool,
    /// Numbers stand on the right.
    pub right: bool,
    /// When there is too little room, columns with the highest rank go first; 0 never goes.
    pub rank: u8,
}

/// Which columns fit, with their widths.
pub fn fit(columns: &[Column], width: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<(usize, &Column)> = columns.iter().enumerate().collect();
    // Each column is followed by a blank, but the last.
    let needed = |shown: &[(usize, &Column)]| shown.iter().map(|(_, c)| c.width + 1).sum::<u16>();
    while needed(&shown) > width + 1 {
        let Some(&(worst, _)) = shown.iter().filter(|(_, c)| c.rank > 0).max_by_key(|(_, c)| c.rank) else {
            break;
        };
        shown.retain(|&(i, _)| i != worst);
    }
    let rest = (width + 1).saturating_sub(needed(&shown));
    let fitted = |(i, c): (usize, &Column)| (i, if c.rest { c.width + rest } else { c.width });
    shown.into_iter().map(fitted).collect()
}

/// Draws the cells of one row.
pub fn put_cells(
    buffer: &mut Buffer,
    area: Rect,
    columns: &[Column],
    fitted: &[(usize, u16)],
    cells: &[Text],
    theme: &Theme,
) {
    let mut x = area.x;
    for &(index, width) in fitted {
        let (Some(column), Some(cell)) = (columns.get(index), cells.get(index)) else {
            continue;
        };
        let width = width.min(area.right().saturating_sub(x));
        let cells = u16::try_from(cell.width()).unwrap_or(u16::MAX);
        let shift = if column.right { width.saturating_sub(cells) } else { 0 };
        put(buffer, (x + shift, area.y), width - shift, cell, theme);
        x = x.saturating_add(width + 1);
    }
}

/// A horizontal line with a title.
pub fn rule(buffer: &mut Buffer, area: Rect, title: &Text, theme: &Theme) {
    let line = theme.glyphs.line.repeat(usize::from(area.width));
    buffer.set_stringn(area.x, area.y, line, usize::from(area.width), theme.style(Role::Dim));
    if title.width() > 0 && area.width > 6 {
        let text = Text::plain(" ").then(title.clone()).and(Role::Text, " ");
        put(buffer, (area.x + 2, area.y), area.width - 4, &text, theme);
    }
}

/// A row of small bars.
pub fn sparkline(values: &[u32], glyphs: &Glyphs) -> String {
    let spark = glyphs.spark;
    let max = values.iter().copied().max().unwrap_or(0);
    let level = |value: u32| match (value, max) {
        (0, _) | (_, 0) => " ",
        _ => {
            let index = usize::try_from(u64::from(value) * (spark.len() as u64 - 1) / u64::from(max)).unwrap_or(0);
            spark.get(index).copied().unwrap_or(" ")
        }
    };
    values.iter().copied().map(level).collect()
}

/// A number with its thousands apart.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun, which takes an "s" unless there is one.
pub fn count(n: usize, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", number(n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_blanks_and_loses_nothing() {
        let text = Text::plain("one two three ").and(Role::Strong, "four five sixsevenandmore");
        let lines: Vec<String> = text
            .wrapped(14, 2)
            .iter()
            .map(|l| l.0.iter().map(|(_, t)| t.as_str()).collect::<String>())
            .collect();
        assert_eq!(lines, ["one two three", "  four five", "  sixsevenandmore"]);
    }

    #[test]
    fn columns_go_by_rank() {
        let column = |width, rest, rank| Column {
            title: "",
            width,
            rest,
            right: false,
            rank,
        };
        let columns = [
            column(10, false, 0),
            column(24, true, 0),
            column(8, false, 1),
            column(8, false, 2),
        ];
        assert_eq!(fit(&columns, 60), [(0, 10), (1, 31), (2, 8), (3, 8)]);
        assert_eq!(fit(&columns, 50), [(0, 10), (1, 30), (2, 8)]);
        assert_eq!(fit(&columns, 40), [(0, 10), (1, 29)]);
        assert_eq!(fit(&columns, 5), [(0, 10), (1, 24)]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
