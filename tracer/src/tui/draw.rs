//! Draws the view: header, panes, footer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::footer;
use super::header;
use super::help;
use super::input::Pane;
use super::panes::{Subject, Table};
use super::state::Ui;
use super::theme::{Role, Theme};
use super::widgets::{Text, fit, number, put, put_cells, rule};
use crate::report::Report;

/// From this width on, the graph, which needs height, and the detail stand side by side.
const SIDE_BY_SIDE: u16 = 140;
/// Below this there is no room for anything.
const LEAST: (u16, u16) = (30, 8);

/// Where things were drawn, for the mouse and for moving by pages.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Width of the screen.
    pub width: u16,
    /// Rows by which PgUp and PgDn move.
    pub page: u16,
    /// The tabs.
    pub tabs: Vec<(Rect, Pane)>,
    /// The rows that can be clicked.
    pub rows: Rect,
    /// What stands in the first of them.
    pub first: usize,
}

/// A line of a detail, cut to the width of the screen.
pub type Shown = (Text, Option<Subject>);

/// The lines about `subject`, cut to `width`.
pub fn shown_lines(ui: &Ui, report: &Report, subject: &Subject, width: u16) -> Vec<Shown> {
    let mut shown = Vec::new();
    for line in ui.detail(report, subject) {
        let indent = usize::from(line.indent);
        let text = Text::plain(" ".repeat(indent)).then(line.text);
        let pieces = text.wrapped(usize::from(width), indent + 2);
        shown.extend(pieces.into_iter().map(|piece| (piece, line.link.clone())));
    }
    shown
}

/// Draws everything.
pub fn screen(ui: &mut Ui, buffer: &mut Buffer) {
    let area = buffer.area;
    buffer.reset();
    ui.hits.width = area.width;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = Text::plain("holdup: too small");
        if area.is_empty() {
            return;
        }
        put(buffer, (area.x, area.y), area.width, &text, &ui.theme);
        return;
    }
    let row = |y: u16| Rect::new(area.x, area.y + y, area.width, 1);
    let report = ui.report();
    header::draw(ui, report.as_deref(), buffer, [row(0), row(1)]);
    tabs(ui, report.as_deref(), buffer, row(2));
    let body = Rect::new(area.x, area.y + 3, area.width, area.height - 4);
    ui.hits.page = body.height.saturating_sub(2);
    let mut table = None;
    match report.as_deref() {
        None => put(
            buffer,
            (body.x + 1, body.y + 1),
            body.width - 1,
            &Text::of(Role::Dim, "waiting for the first events"),
            &ui.theme,
        ),
        Some(report) if ui.opened.is_some() => opened(ui, report, buffer, body),
        Some(report) => table = Some(list_and_detail(ui, report, buffer, body)),
    }
    footer::draw(ui, table.as_ref(), buffer, row(area.height - 1));
    if let Some(scroll) = ui.help {
        ui.help = Some(help::draw(buffer, body, scroll, &ui.theme));
    }
    if ui.theme.glyphs.ascii {
        only_ascii(buffer);
    }
}

/// Names come from anywhere: whatever is not ASCII becomes a question mark.
fn only_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            cell.set_symbol("?");
        }
    }
}

fn tabs(ui: &mut Ui, report: Option<&Report>, buffer: &mut Buffer, area: Rect) {
    let mut x = area.x;
    ui.hits.tabs.clear();
    for pane in Pane::ALL {
        let count = report.map_or(0, |report| match pane {
            Pane::Findings => report.findings.len(),
            Pane::Graph => report.roots.len(),
            Pane::Locks => report.locks.len() + report.locks_left_out,
            Pane::Tasks => report.tasks.len(),
            Pane::Cpus => report.cpus.len(),
        });
        let text = format!(" {} {} {} ", pane.index() + 1, pane.title(), number(count as u64));
        let role = if pane == ui.pane { Role::Active } else { Role::Text };
        let text = Text::of(role, text);
        let width = u16::try_from(text.width())
            .unwrap_or(0)
            .min(area.right().saturating_sub(x));
        put(buffer, (x, area.y), width, &text, &ui.theme);
        ui.hits.tabs.push((Rect::new(x, area.y, width, 1), pane));
        x += width;
    }
    if let Some((pinned, report)) = ui.pinned.as_ref().zip(report) {
        let text = Text::of(Role::Warning, header::pinned(report, pinned, ui.theme.glyphs));
        let free = area.right().saturating_sub(x + 1);
        let width = u16::try_from(text.width()).unwrap_or(u16::MAX).min(free);
        put(buffer, (area.right() - width, area.y), width, &text, &ui.theme);
    }
}

fn list_and_detail(ui: &mut Ui, report: &Report, buffer: &mut Buffer, body: Rect) -> Table {
    let table = ui.table(report);
    let (list, detail);
    if body.width >= SIDE_BY_SIDE && ui.pane == Pane::Graph {
        let left = body.width * 11 / 20;
        list = Rect { width: left, ..body };
        detail = Rect {
            x: body.x + left + 2,
            width: body.width - left - 2,
            ..body
        };
        for y in body.y..body.bottom() {
            let style = ui.theme.style(Role::Dim);
            buffer.set_string(body.x + left, y, ui.theme.glyphs.bar, style);
        }
    } else {
        let wanted = u16::try_from(table.rows.len()).unwrap_or(u16::MAX).saturating_add(1);
        let share = if ui.pane == Pane::Graph {
            body.height * 2 / 3
        } else {
            body.height / 2
        };
        let height = wanted.clamp(3, share.max(3));
        list = Rect { height, ..body };
        detail = Rect {
            y: body.y + height,
            height: body.height - height,
            ..body
        };
    }
    draw_list(ui, &table, buffer, list);
    brief(ui, report, &table, buffer, detail);
    table
}

fn draw_list(ui: &mut Ui, table: &Table, buffer: &mut Buffer, area: Rect) {
    let fitted = fit(table.columns, area.width);
    let mut rows = area;
    if ui.pane != Pane::Graph {
        let list = ui.list();
        let sorted = (list.sort, list.reversed);
        headings(table, &fitted, sorted, buffer, area, &ui.theme);
        rows = Rect {
            y: area.y + 1,
            height: area.height - 1,
            ..area
        };
    }
    let selected = ui.row(&table.rows);
    let first = scrolled(ui.list().offset, selected, table.rows.len(), rows.height);
    ui.list_mut().offset = first;
    ui.list_mut().index = selected;
    (ui.hits.rows, ui.hits.first) = (rows, first);
    if table.rows.is_empty() {
        let text = if ui.filter.is_empty() {
            table.empty.clone()
        } else {
            Text::of(
                Role::Warning,
                format!("The filter hides all {}.", number(table.total as u64)),
            )
        };
        put(buffer, (rows.x, rows.y), rows.width, &text, &ui.theme);
        return;
    }
    for (i, row) in table.rows.iter().enumerate().skip(first).take(usize::from(rows.height)) {
        let line = Rect {
            y: rows.y + u16::try_from(i - first).unwrap_or(0),
            height: 1,
            ..rows
        };
        put_cells(buffer, line, table.columns, &fitted, &row.cells, &ui.theme);
        if i == selected {
            buffer.set_style(line, ui.theme.selected());
        }
    }
}

fn headings(
    table: &Table,
    fitted: &[(usize, u16)],
    (sorted, reversed): (Option<usize>, bool),
    buffer: &mut Buffer,
    area: Rect,
    theme: &Theme,
) {
    let mark = theme
        .glyphs
        .sorted
        .get(usize::from(!reversed))
        .copied()
        .unwrap_or_default();
    let titles = table.columns.iter().enumerate();
    let cells: Vec<Text> = titles
        .map(|(i, column)| {
            let mark = if sorted == Some(i) { mark } else { "" };
            Text::of(Role::Heading, format!("{}{mark}", column.title))
        })
        .collect();
    put_cells(buffer, Rect { height: 1, ..area }, table.columns, fitted, &cells, theme);
}

/// The first row on the screen, so that the selected one is on it.
fn scrolled(offset: usize, selected: usize, len: usize, height: u16) -> usize {
    let height = usize::from(height).max(1);
    let lowest = (selected + 1).saturating_sub(height);
    offset
        .clamp(lowest, selected.max(lowest))
        .min(len.saturating_sub(height))
}

/// The selected row's detail, as far as there is room.
fn brief(ui: &Ui, report: &Report, table: &Table, buffer: &mut Buffer, area: Rect) {
    let subject = table.rows.get(ui.row(&table.rows)).map(|row| &row.subject);
    let beside = area.height > 0 && area.y == 3;
    let mut area = area;
    if !beside || subject.is_none() {
        let title = subject.map_or_else(String::new, |s| super::panes::detail::title(report, s));
        rule(
            buffer,
            Rect { height: 1, ..area },
            &Text::of(Role::Strong, title),
            &ui.theme,
        );
        area = Rect {
            y: area.y + 1,
            height: area.height.saturating_sub(1),
            ..area
        };
    }
    let Some(subject) = subject else { return };
    let lines = shown_lines(ui, report, subject, area.width);
    let fits = usize::from(area.height);
    for (y, (text, _)) in (area.y..area.bottom()).zip(&lines) {
        put(buffer, (area.x, y), area.width, text, &ui.theme);
    }
    if lines.len() > fits && area.height > 0 {
        let rest = lines.len() - fits + 1;
        let text = Text::of(Role::Dim, format!("{} {rest} more lines: Enter", ui.theme.glyphs.more));
        let last = Rect {
            y: area.bottom() - 1,
            height: 1,
            ..area
        };
        buffer.set_stringn(
            last.x,
            last.y,
            " ".repeat(usize::from(last.width)),
            usize::from(last.width),
            ui.theme.style(Role::Text),
        );
        put(buffer, (last.x, last.y), last.width, &text, &ui.theme);
    }
}

/// What is opened, on the whole screen.
fn opened(ui: &mut Ui, report: &Report, buffer: &mut Buffer, area: Rect) {
    let Some(subject) = ui.opened.as_ref().map(|o| o.subject.clone()) else {
        return;
    };
    let title = super::panes::detail::title(report, &subject);
    rule(
        buffer,
        Rect { height: 1, ..area },
        &Text::of(Role::Strong, title),
        &ui.theme,
    );
    let rows = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    let lines = shown_lines(ui, report, &subject, rows.width);
    let Some(opened) = &mut ui.opened else { return };
    let cursor = opened.cursor.min(lines.len().saturating_sub(1));
    let first = scrolled(opened.offset, cursor, lines.len(), rows.height);
    (opened.cursor, opened.offset) = (cursor, first);
    (ui.hits.rows, ui.hits.first) = (rows, first);
    for (y, (i, (text, _))) in (rows.y..rows.bottom()).zip(lines.iter().enumerate().skip(first)) {
        put(buffer, (rows.x, y), rows.width, text, &ui.theme);
        if i == cursor {
            buffer.set_style(Rect { y, height: 1, ..rows }, ui.theme.selected());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_on_the_screen() {
        for len in 0..30 {
            for selected in 0..len {
                for offset in 0..40 {
                    for height in 1..12_u16 {
                        let first = scrolled(offset, selected, len, height);
                        assert!((first..first + usize::from(height)).contains(&selected));
                        assert!(first == 0 || first + usize::from(height) <= len);
                    }
                }
            }
        }
    }
}
