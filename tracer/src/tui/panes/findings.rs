//! What is wrong, and what was wrong a moment ago.

use super::{Row, Subject, Table, View, column, dim, rest, words};
use crate::diagnosis::Finding;
use crate::ids::Nanos;
use crate::report::Report;
use crate::tui::filter::{Field, Fields};
use crate::tui::theme::Role;
use crate::tui::widgets::{Column, SortKey, Text, number};
use crate::view::units::duration;

const COLUMNS: &[Column] = &[
    column("severity", 8, false, 0),
    column("certainty", 9, false, 2),
    column("kind", 16, false, 3),
    column("age", 11, true, 1),
    column("victims", 7, true, 1),
    rest("what", 40),
];

pub(super) fn table(report: &Report, view: &View<'_>) -> Table {
    let quiet = Text::of(Role::Good, "Nothing is wrong, as far as was seen.");
    let mut table = Table::new(COLUMNS, quiet);
    for finding in &report.findings {
        table.add(
            view,
            || fields(finding),
            || row(finding, finding.age(report.time), None, view),
        );
    }
    if report.coverage.unexplained() > 0 {
        table.add(view, Fields::default, || unexplained(report));
    }
    for closed in &report.closed {
        let ended = report.time.since(closed.closed);
        table.add(
            view,
            || fields(&closed.finding),
            || row(&closed.finding, closed.lasted, Some(ended), view),
        );
    }
    if let Some(pinned) = view.pinned {
        table.rows.sort_by_key(|row| row.subject != *pinned);
    }
    table
}

fn fields(finding: &Finding) -> Fields {
    let mut fields = Fields::default();
    fields.add(Field::Kind, finding.kind);
    for task in &finding.tasks {
        fields.add(Field::Task, &task.name);
        fields.add(Field::Cgroup, task.cgroup);
    }
    for lock in &finding.locks {
        fields.add(Field::Lock, lock);
    }
    for victim in &finding.victims.tasks {
        fields.add(Field::Task, &victim.link.waiter);
        fields.add(Field::Cgroup, victim.cgroup);
    }
    fields
}

fn row(finding: &Finding, age: Nanos, ended: Option<Nanos>, view: &View<'_>) -> Row {
    let subject = Subject::Finding(finding.id.clone());
    let pin = if view.pinned == Some(&subject) {
        format!("{} ", view.glyphs.pin)
    } else {
        String::new()
    };
    let open = |role| if ended.is_some() { Role::Dim } else { role };
    let (severity, what) = match ended {
        None => (finding.severity.to_string(), finding.title.clone()),
        Some(ago) => ("closed".to_owned(), format!("{} ago: {}", duration(ago), finding.title)),
    };
    let text = |role, text: String| Text::of(open(role), text);
    Row {
        cells: vec![
            text(words::severity(finding.severity), severity),
            text(words::certainty(finding.certainty), finding.certainty.to_string()),
            text(Role::Text, finding.kind.to_string()),
            text(Role::Text, words::at_least(age, finding.since_is_lower_bound)),
            text(Role::Text, number(finding.victims.count as u64)),
            text(Role::Text, pin + &what),
        ],
        keys: vec![
            SortKey::Number(if ended.is_some() {
                0
            } else {
                finding.severity as u64 + 1
            }),
            SortKey::Number(finding.certainty as u64),
            SortKey::Text(finding.kind.to_string()),
            SortKey::Number(age.0),
            SortKey::Number(finding.victims.count as u64),
            SortKey::Text(finding.title.clone()),
        ],
        subject,
    }
}

/// Waiting tasks of which no finding and no edge tells why.
fn unexplained(report: &Report) -> Row {
    let count = report.coverage.unexplained();
    let what = match report.coverage.groups.first() {
        Some(group) => format!(
            "waiting, not explained; most at {}",
            group.site.as_deref().unwrap_or("an unknown place")
        ),
        None => "waiting, not explained".to_owned(),
    };
    Row {
        subject: Subject::Unexplained,
        cells: vec![
            dim("-"),
            dim("-"),
            Text::plain("unexplained"),
            dim("-"),
            Text::plain(number(count as u64)),
            Text::plain(what),
        ],
        keys: vec![
            SortKey::Number(0),
            SortKey::Number(0),
            SortKey::Text("unexplained".to_owned()),
            SortKey::Number(0),
            SortKey::Number(count as u64),
            SortKey::Text(String::new()),
        ],
    }
}
