//! The wait-for graph of a report in the language of Graphviz: who waits (boxes), for what (ellipses), held by whom.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::units::{count, duration, instant};
use crate::diagnosis::{Finding, LockRef, Name, Severity};
use crate::ids::Tid;
use crate::model::LockKey;
use crate::report::{OwnerRow, Report, TaskRow, WaitRow};

/// Waiters of one lock that are drawn; the rest is one box with their number, unless somebody waits for them in turn.
const MAX_WAITERS: usize = 12;

/// Writes the graph. With a finding, only what belongs to it is drawn.
///
/// # Errors
/// When `out` cannot be written to.
pub fn graph(out: &mut impl Write, report: &Report, finding: Option<&Finding>) -> io::Result<()> {
    let marked = Marked::of(report, finding);
    writeln!(out, "digraph holdup {{")?;
    writeln!(out, "  rankdir=LR;")?;
    writeln!(out, "  node [fontname=\"sans-serif\", fontsize=10];")?;
    writeln!(out, "  edge [fontname=\"sans-serif\", fontsize=9];")?;
    let title = finding.map_or_else(
        || count(report.findings.len(), "finding"),
        |finding| finding.title.clone(),
    );
    writeln!(
        out,
        "  label={};",
        quoted(&format!("{title}\nat {} s since boot", instant(report.time)))
    )?;
    let drawing = Drawing::of(report, finding, &marked);
    for &row in &drawing.rows {
        if let Some(task) = report.tasks.get(row) {
            writeln!(
                out,
                "  {} [shape=box, label={}{}];",
                node(row),
                quoted(&task_label(task)),
                marked.task_style(&task.name)
            )?;
        }
    }
    for (key, lock) in &drawing.locks {
        let style = if marked.locks.contains(key) {
            ", color=red, penwidth=2"
        } else {
            ""
        };
        writeln!(
            out,
            "  {} [shape=ellipse, label={}{style}];",
            lock_node(*key),
            quoted(&lock_label(lock))
        )?;
    }
    for &row in &drawing.rows {
        if let Some(task) = report.tasks.get(row) {
            wait_edge(out, report, row, task, &drawing)?;
        }
    }
    for (key, folded) in &drawing.folded {
        let name = format!("more_{}", lock_node(*key));
        writeln!(
            out,
            "  {name} [shape=box, style=dashed, label={}];",
            quoted(&format!("and {}", count(*folded, "more waiter")))
        )?;
        writeln!(out, "  {name} -> {};", lock_node(*key))?;
    }
    for lock in drawing.locks.values() {
        owner_edges(out, report, lock, &drawing)?;
    }
    writeln!(out, "}}")
}

/// What is drawn.
struct Drawing<'r> {
    rows: BTreeSet<usize>,
    locks: BTreeMap<LockKey, &'r LockRef>,
    folded: BTreeMap<LockKey, usize>,
}

impl<'r> Drawing<'r> {
    fn of(report: &'r Report, finding: Option<&Finding>, marked: &Marked) -> Self {
        let mut rows: BTreeSet<usize> = match finding {
            None => (0..report.tasks.len()).collect(),
            Some(_) => connected(report, marked),
        };
        let mut locks = BTreeMap::new();
        let mut by_lock: BTreeMap<LockKey, Vec<usize>> = BTreeMap::new();
        for &row in &rows {
            let Some(task) = report.tasks.get(row) else { continue };
            if let Some(lock) = task.wait.as_ref().and_then(|wait| wait.lock.as_ref()) {
                locks.insert(lock.key(), lock);
                let leaf = task.blocks.is_empty() && !marked.tasks.contains_key(&task.name.tid);
                if leaf {
                    by_lock.entry(lock.key()).or_default().push(row);
                }
            }
        }
        let mut folded = BTreeMap::new();
        for (key, leaves) in by_lock {
            if leaves.len() > MAX_WAITERS {
                let rest = leaves.get(MAX_WAITERS - 1..).unwrap_or_default();
                rest.iter().for_each(|row| {
                    rows.remove(row);
                });
                folded.insert(key, rest.len());
            }
        }
        Self { rows, locks, folded }
    }
}

/// Rows of a finding's parties, of everybody behind them and of everybody they wait for.
fn connected(report: &Report, marked: &Marked) -> BTreeSet<usize> {
    let party = |(_, task): &(usize, &TaskRow)| {
        let waits_for = task.wait.as_ref().and_then(|wait| wait.lock.as_ref()).map(LockRef::key);
        marked.tasks.contains_key(&task.name.tid) || waits_for.is_some_and(|lock| marked.locks.contains(&lock))
    };
    let mut todo: Vec<usize> = report
        .tasks
        .iter()
        .enumerate()
        .filter(party)
        .map(|(row, _)| row)
        .collect();
    let mut rows = BTreeSet::new();
    while let Some(row) = todo.pop() {
        if rows.insert(row)
            && let Some(task) = report.tasks.get(row)
        {
            todo.extend(task.blocks.iter().copied().chain(task.blocked_by));
        }
    }
    rows
}

/// What findings are about.
struct Marked {
    tasks: BTreeMap<Tid, Severity>,
    locks: BTreeSet<LockKey>,
}

impl Marked {
    fn of(report: &Report, finding: Option<&Finding>) -> Self {
        let mut marked = Self {
            tasks: BTreeMap::new(),
            locks: BTreeSet::new(),
        };
        let findings = finding.map_or_else(|| report.findings.iter().collect(), |finding| vec![finding]);
        for finding in findings {
            for party in finding.tasks.iter().filter(|party| party.name.tid.0 != 0) {
                let severity = marked.tasks.entry(party.name.tid).or_insert(finding.severity);
                *severity = (*severity).max(finding.severity);
            }
            marked.locks.extend(finding.locks.iter().map(LockRef::key));
        }
        marked
    }

    fn task_style(&self, name: &Name) -> &'static str {
        match self.tasks.get(&name.tid) {
            Some(Severity::Critical) => ", color=red, penwidth=2",
            Some(Severity::Warning) => ", color=orange, penwidth=2",
            Some(Severity::Info) => ", penwidth=2",
            None => "",
        }
    }
}

fn node(row: usize) -> String {
    format!("task_{row}")
}

fn lock_node(lock: LockKey) -> String {
    let spins = if lock.spins { "spin_" } else { "" };
    format!("{spins}lock_{:x}", lock.addr.0)
}

fn task_label(task: &TaskRow) -> String {
    let mut label = format!("{}\n{:?}", task.name, task.state);
    if let Some(site) = &task.site {
        label.push_str("\nin ");
        label.push_str(site);
    }
    label
}

fn lock_label(lock: &LockRef) -> String {
    let kind = crate::diagnosis::lock_kind_name(lock.kind);
    match &lock.name {
        Some(name) => format!("{kind}\n{name}"),
        None => format!("{kind}\n{}", lock.address),
    }
}

fn waited(wait: &WaitRow) -> String {
    let bound = if wait.waited_is_lower_bound { "at least " } else { "" };
    format!("{bound}{}", duration(wait.waited))
}

fn wait_edge(
    out: &mut impl Write,
    report: &Report,
    row: usize,
    task: &TaskRow,
    drawing: &Drawing<'_>,
) -> io::Result<()> {
    let Some(wait) = &task.wait else { return Ok(()) };
    if let Some(lock) = &wait.lock {
        let mode = if wait.mode == crate::event::Mode::Shared {
            ", for reading"
        } else {
            ""
        };
        let label = quoted(&format!("{}{mode}", waited(wait)));
        writeln!(out, "  {} -> {} [label={label}];", node(row), lock_node(lock.key()))?;
        // Where the lock names nobody, the graph may: a task that was found to stand before this one.
        let recorded = report.locks.iter().find(|known| known.lock.key() == lock.key());
        let named = match recorded.map(|known| &known.owner) {
            Some(OwnerRow::Task { .. } | OwnerRow::Handed { .. }) => true,
            Some(OwnerRow::Unrecorded { candidates, .. }) => !candidates.is_empty(),
            Some(OwnerRow::Nobody | OwnerRow::Unreadable { .. }) | None => false,
        };
        if let Some(holder) = task.blocked_by.filter(|holder| !named && drawing.rows.contains(holder)) {
            writeln!(
                out,
                "  {} -> {} [style=dashed, label=\"behind\"];",
                node(row),
                node(holder)
            )?;
        }
        return Ok(());
    }
    let text = wait.dependency.as_deref().unwrap_or("something");
    let label = quoted(&format!("{text}, {}", waited(wait)));
    match task.blocked_by.filter(|holder| drawing.rows.contains(holder)) {
        Some(holder) => writeln!(
            out,
            "  {} -> {} [style=dashed, label={label}];",
            node(row),
            node(holder)
        ),
        None => {
            let unknown = format!("unknown_{row}");
            writeln!(out, "  {unknown} [shape=plaintext, label=\"?\"];")?;
            writeln!(out, "  {} -> {unknown} [style=dashed, label={label}];", node(row))
        }
    }
}

fn owner_edges(out: &mut impl Write, report: &Report, lock: &LockRef, drawing: &Drawing<'_>) -> io::Result<()> {
    let from = lock_node(lock.key());
    let mut edge = |name: &Name, style: &str| match row_of(report, name).filter(|row| drawing.rows.contains(row)) {
        Some(row) => writeln!(out, "  {from} -> {} [{style}];", node(row)),
        None => {
            let holder = format!("holder_{from}_{}", name.tid);
            writeln!(out, "  {holder} [shape=box, label={}];", quoted(&name.to_string()))?;
            writeln!(out, "  {from} -> {holder} [{style}];")
        }
    };
    match report
        .locks
        .iter()
        .find(|known| known.lock.key() == lock.key())
        .map(|known| &known.owner)
    {
        Some(OwnerRow::Task { name }) => edge(name, "label=\"held by\""),
        Some(OwnerRow::Handed { name }) => edge(name, "label=\"handed to\", style=dashed"),
        Some(OwnerRow::Unrecorded { candidates, .. }) => candidates
            .iter()
            .try_for_each(|name| edge(name, "label=\"may be held by\", style=dashed")),
        Some(OwnerRow::Nobody | OwnerRow::Unreadable { .. }) | None => Ok(()),
    }
}

fn row_of(report: &Report, name: &Name) -> Option<usize> {
    report
        .tasks
        .iter()
        .position(|task| task.name.tid == name.tid && task.name.interrupt_cpu == name.interrupt_cpu)
}

/// A text in Graphviz' quotes, its lines kept.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"; b -> c [x=\"\\"), r#""a\"; b -> c [x=\"\\""#);
        assert_eq!(quoted("two\nlines\t"), "\"two\\nlines\u{fffd}\"");
    }
}
