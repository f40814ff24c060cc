//! What each CPU was last seen doing, who spins on it, and which CPU it waits for.

use std::collections::HashSet;

use super::detail::Page;
use super::{Row, Subject, Table, View, column, dim, rest, words};
use crate::event::{Phase, TaskState};
use crate::ids::CpuId;
use crate::report::{CpuRow, Report, StallRow, TaskRow};
use crate::tui::filter::{Field, Fields};
use crate::tui::theme::Role;
use crate::tui::widgets::{Column, SortKey, Text};
use crate::view::units::duration;

const COLUMNS: &[Column] = &[
    column("cpu", 3, true, 0),
    column("runs", 24, false, 1),
    column("seen", 12, true, 4),
    column("stuck", 11, true, 0),
    column("behind CPU", 14, false, 2),
    rest("what spins or waits, for what", 24),
];

pub(super) fn table(report: &Report, view: &View<'_>) -> Table {
    let mut table = Table::new(COLUMNS, dim("No CPU was seen at work or spinning yet."));
    for cpu in &report.cpus {
        table.add(view, || fields(cpu), || row(report, cpu, view));
    }
    table
}

fn fields(cpu: &CpuRow) -> Fields {
    let mut fields = Fields::default();
    for name in cpu.task.iter().chain(cpu.spins.iter().map(|s| &s.who)) {
        fields.add(Field::Task, name);
    }
    for spin in &cpu.spins {
        fields.add(Field::Lock, &spin.lock);
    }
    fields
}

fn row(report: &Report, cpu: &CpuRow, view: &View<'_>) -> Row {
    let task = cpu.task.as_ref().map(ToString::to_string);
    let stuck = stuck(report, cpu.cpu);
    let longest = stuck.iter().filter_map(|t| t.wait.as_ref()).map(|w| w.waited).max();
    let seen = task.is_some().then(|| report.time.since(cpu.seen));
    let behind: Vec<String> = chain(report, cpu.cpu)
        .iter()
        .skip(1)
        .map(|(cpu, _)| cpu.to_string())
        .collect();
    let behind = behind.join(if view.glyphs.ascii { " > " } else { " → " });
    let what: Vec<String> = stuck
        .iter()
        .filter_map(|task| {
            let wait = task.wait.as_ref()?;
            let what = format!("{}{}", words::wanted(wait), words::place(wait));
            // The thread has a column of its own.
            let thread = cpu.task.as_ref() == Some(&task.name);
            Some(if thread { what } else { format!("{}: {what}", task.name) })
        })
        .collect();
    let said = cpu.stall.iter().flat_map(StallRow::words);
    let what = what.into_iter().chain(said).collect::<Vec<_>>().join("; ");
    let or_dash = |text: &str| if text.is_empty() { dim("-") } else { Text::plain(text) };
    Row {
        subject: Subject::Cpu(cpu.cpu),
        keys: vec![
            SortKey::Number(u64::MAX - u64::from(cpu.cpu.0)),
            SortKey::Text(task.clone().unwrap_or_default()),
            SortKey::Number(cpu.seen.0),
            SortKey::Number(longest.map_or(0, |l| l.0)),
            SortKey::Text(behind.clone()),
            SortKey::Text(what.clone()),
        ],
        cells: vec![
            Text::plain(cpu.cpu.to_string()),
            task.map_or_else(|| dim("-"), Text::plain),
            seen.map_or_else(|| dim("-"), |ago| dim(format!("{} ago", duration(ago)))),
            longest.map_or_else(|| dim("-"), |l| Text::of(Role::Warning, duration(l))),
            or_dash(&behind),
            or_dash(&what),
        ],
    }
}

/// Who keeps this CPU busy waiting: those who spin on it, interrupts first, and a running thread that waits for something.
fn stuck(report: &Report, cpu: CpuId) -> Vec<&TaskRow> {
    let mut stuck: Vec<&TaskRow> = report
        .tasks
        .iter()
        .filter(|task| task.name.interrupt_cpu.or(task.cpu) == Some(cpu))
        .filter(|task| {
            let spins = task.wait.as_ref().is_some_and(|w| w.phase == Phase::Spinning);
            spins || (task.wait.is_some() && task.state == TaskState::Running)
        })
        .collect();
    stuck.sort_by_key(|task| std::cmp::Reverse(task.name.context));
    stuck
}

/// This CPU, the CPU whose thread holds what it spins on or must answer it, and so on; each with who is stuck on it.
fn chain(report: &Report, cpu: CpuId) -> Vec<(CpuId, Option<&TaskRow>)> {
    let mut chain = Vec::new();
    let mut seen = HashSet::new();
    let mut at = Some(cpu);
    while let Some(cpu) = at.filter(|cpu| seen.insert(*cpu)) {
        let stuck = stuck(report, cpu);
        chain.push((cpu, stuck.first().copied()));
        let behind = stuck.iter().find_map(|task| report.tasks.get(task.blocked_by?));
        at = behind.and_then(|task| task.name.interrupt_cpu.or(task.cpu));
    }
    chain
}

pub(super) fn detail(page: &mut Page, report: &Report, cpu: CpuId) {
    let Some(row) = report.cpus.iter().find(|row| row.cpu == cpu) else {
        page.plain("Nothing was seen on this CPU lately.");
        return;
    };
    match &row.task {
        Some(name) => page.link(
            format!("{name} was seen running {} ago", duration(report.time.since(row.seen))),
            Subject::task(name),
        ),
        None => page.plain("No thread was seen running on it."),
    }
    if let Some(stall) = &row.stall {
        page.heading("what the kernel's own watchers know");
        for clause in stall.words() {
            page.plain(format!("it {clause}"));
        }
    }
    if !row.spins.is_empty() {
        page.heading("spins, the one that runs last");
    }
    for spin in &row.spins {
        page.link(
            format!("{} for {}", spin.who, duration(spin.waited)),
            Subject::task(&spin.who),
        );
        page.link(format!("  on {}", spin.lock), Subject::Lock(spin.lock.key()));
    }
    let chain = chain(report, cpu);
    if chain.len() > 1 || chain.iter().any(|(_, task)| task.is_some()) {
        page.heading("chain of CPUs");
    }
    for (cpu, task) in chain {
        let Some(task) = task else {
            page.link(format!("CPU {cpu} is not stuck, as far as is known"), Subject::Cpu(cpu));
            continue;
        };
        let what = task.wait.as_ref().map(|wait| {
            format!(
                "{} {} for {}{}",
                words::phase(wait.phase),
                words::waited(wait),
                words::wanted(wait),
                words::place(wait)
            )
        });
        page.link(
            format!("CPU {cpu}: {} {}", task.name, what.unwrap_or_default()),
            Subject::task(&task.name),
        );
    }
}
