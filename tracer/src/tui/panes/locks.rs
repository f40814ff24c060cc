//! Contended locks.

use super::{Row, Subject, Table, View, column, dim, rest, words};
use crate::diagnosis::lock_kind_name;
use crate::ids::Nanos;
use crate::report::{LockRow, Report};
use crate::tui::filter::{Field, Fields};
use crate::tui::theme::Role;
use crate::tui::widgets::{Column, SortKey, Text, number, sparkline};
use crate::view::units::duration;

const COLUMNS: &[Column] = &[
    rest("lock", 24),
    column("kind", 20, false, 6),
    column("wait", 5, true, 0),
    column("owner", 22, false, 2),
    column("waits", 9, true, 3),
    column("total", 11, true, 1),
    column("max", 11, true, 5),
    column("p50", 8, true, 8),
    column("p99", 8, true, 4),
    column("/s", 6, true, 2),
    column("last seconds", 16, false, 7),
];

pub(super) fn table(report: &Report, view: &View<'_>) -> Table {
    let mut table = Table::new(
        COLUMNS,
        Text::of(Role::Good, "No lock is or was contended, as far as was seen."),
    );
    for lock in &report.locks {
        table.add(view, || fields(lock), || row(lock, view));
    }
    table
}

fn fields(row: &LockRow) -> Fields {
    let mut fields = Fields::default();
    fields.add(Field::Lock, &row.lock);
    fields.add(Field::Kind, lock_kind_name(row.lock.kind));
    fields.add(Field::Task, words::owner(&row.owner).0);
    fields
}

fn row(row: &LockRow, view: &View<'_>) -> Row {
    let (owner, _) = words::owner(&row.owner);
    let waiting = row.lock.waiters;
    let waiting_role = if waiting > 0 { Role::Strong } else { Role::Dim };
    let percentile = |p: Option<Nanos>| p.map_or_else(|| dim("-"), |p| Text::plain(format!("<{}", short(p))));
    let history = row
        .history
        .get(row.history.len().saturating_sub(16)..)
        .unwrap_or_default();
    let name = words::lock_name(&row.lock);
    let pin = if view.pinned == Some(&Subject::Lock(row.lock.key())) {
        view.glyphs.pin
    } else {
        ""
    };
    Row {
        subject: Subject::Lock(row.lock.key()),
        keys: vec![
            SortKey::Text(name.clone()),
            SortKey::Text(lock_kind_name(row.lock.kind).to_owned()),
            SortKey::Number(waiting as u64),
            SortKey::Text(owner.clone()),
            SortKey::Number(row.waits),
            SortKey::Number(row.total.0),
            SortKey::Number(row.max.0),
            SortKey::Number(row.p50.map_or(0, |p| p.0)),
            SortKey::Number(row.p99.map_or(0, |p| p.0)),
            SortKey::Number(row.rate),
            SortKey::Number(row.history.iter().map(|n| u64::from(*n)).sum()),
        ],
        cells: vec![
            Text::plain(format!("{pin}{name}")),
            Text::plain(lock_kind_name(row.lock.kind)),
            Text::of(waiting_role, number(waiting as u64)),
            Text::plain(owner),
            Text::plain(number(row.waits)),
            Text::plain(duration(row.total)),
            Text::plain(duration(row.max)),
            percentile(row.p50),
            percentile(row.p99),
            Text::plain(number(row.rate)),
            Text::of(Role::Info, sparkline(history, view.glyphs)),
        ],
    }
}

/// A power of two of nanoseconds, in few characters.
fn short(time: Nanos) -> String {
    duration(time).replace(' ', "")
}
