//! Tasks and interrupts that wait, or hold somebody up.

use super::{Row, Subject, Table, View, column, dim, rest, words};
use crate::diagnosis::lock_kind_name;
use crate::report::{Report, TaskRow};
use crate::tui::filter::{Field, Fields};
use crate::tui::theme::Role;
use crate::tui::widgets::{Column, SortKey, Text, number};

const COLUMNS: &[Column] = &[
    column("task", 24, false, 0),
    column("state", 8, false, 3),
    column("cpu", 3, true, 6),
    column("waited", 11, true, 0),
    column("mode", 4, false, 5),
    rest("waits for", 24),
    column("held by", 22, false, 4),
    column("blocks", 6, true, 2),
    column("cgroup", 8, true, 8),
    column("at", 28, false, 7),
];

pub(super) fn table(report: &Report, view: &View<'_>) -> Table {
    let mut table = Table::new(
        COLUMNS,
        Text::of(Role::Good, "No task waits or holds a contended lock."),
    );
    for task in &report.tasks {
        table.add(view, || fields(task), || row(report, task, view));
    }
    table
}

/// What the filter looks at; the graph asks, too.
pub(super) fn fields(task: &TaskRow) -> Fields {
    let mut fields = Fields::default();
    fields.add(Field::Task, &task.name);
    fields.add(Field::Cgroup, task.cgroup);
    if let Some(path) = &task.about.cgroup_path {
        fields.add(Field::Cgroup, path);
    }
    if let Some(wait) = &task.wait {
        match &wait.lock {
            Some(lock) => {
                fields.add(Field::Lock, lock);
                fields.add(Field::Kind, lock_kind_name(lock.kind));
            }
            None => fields.add(Field::Kind, words::wanted(wait)),
        }
    }
    for lock in &task.holds {
        fields.add(Field::Lock, lock);
        fields.add(Field::Kind, lock_kind_name(lock.kind));
    }
    fields
}

fn row(report: &Report, task: &TaskRow, view: &View<'_>) -> Row {
    let by = task.blocked_by.and_then(|row| report.tasks.get(row));
    let by = by.map(|by| &by.name);
    let wait = task.wait.as_ref();
    let wanted = wait.map(words::wanted);
    let holds = task.holds.first().map(|lock| format!("holds {}", words::lock(lock)));
    let subject = Subject::task(&task.name);
    // Who waits for itself does not count as its own victim.
    let itself = usize::from(by == Some(&task.name));
    let blocks = task.blocks.len().saturating_sub(itself);
    let by = by.map(ToString::to_string);
    let pin = if view.pinned == Some(&subject) {
        view.glyphs.pin
    } else {
        ""
    };
    let cpu = task.cpu.map(|cpu| cpu.0);
    let name = task.name.to_string();
    let or_dash = |text: Option<String>| text.map_or_else(|| dim("-"), Text::plain);
    Row {
        subject,
        keys: vec![
            SortKey::Text(name.clone()),
            SortKey::Text(words::state(task.state).to_owned()),
            SortKey::Number(cpu.map_or(0, |cpu| u64::from(cpu) + 1)),
            SortKey::Number(wait.map_or(0, |w| w.waited.0)),
            SortKey::Text(wait.map_or("", |w| words::mode(w.mode)).to_owned()),
            SortKey::Text(wanted.clone().unwrap_or_default()),
            SortKey::Text(by.clone().unwrap_or_default()),
            SortKey::Number(blocks as u64),
            SortKey::Number(task.cgroup.0),
            SortKey::Text(task.site.as_deref().unwrap_or_default().to_owned()),
        ],
        cells: vec![
            Text::of(
                if blocks == 0 { Role::Text } else { Role::Strong },
                format!("{pin}{name}"),
            ),
            Text::plain(words::state(task.state)),
            or_dash(cpu.map(|cpu| cpu.to_string())),
            or_dash(wait.map(words::waited)),
            or_dash(
                wait.filter(|w| w.lock.is_some())
                    .map(|w| words::mode(w.mode).to_owned()),
            ),
            or_dash(wanted.or(holds)),
            or_dash(by),
            or_dash((blocks > 0).then(|| number(blocks as u64))),
            or_dash((task.cgroup.0 != 0).then(|| words::cgroup(task.cgroup, &task.about))),
            or_dash(task.site.as_deref().map(str::to_owned)),
        ],
    }
}
