//! The run itself: coverage, losses, probes and what they cost, and what is not covered.

use super::Subject;
use super::detail::Page;
use crate::diagnosis::phrase;
use crate::ids::Nanos;
use crate::report::Report;
use crate::tui::theme::Role;
use crate::tui::widgets::{Text, count, number};
use crate::view::units::duration;

pub(super) fn unexplained(page: &mut Page, report: &Report) {
    page.plain(crate::view::text::coverage_line(&report.coverage));
    for group in &report.coverage.groups {
        page.heading(format!(
            "{} at {}",
            count(group.count, "task"),
            group.site.as_deref().unwrap_or("an unknown place")
        ));
        for name in &group.tasks {
            page.link(name.to_string(), Subject::task(name));
        }
        page.stack(report, group.stack);
    }
}

pub(super) fn run(page: &mut Page, report: &Report) {
    let source = &report.source;
    page.plain(format!("{} on {}, Linux {}", source.mode, source.host, source.kernel));
    page.plain(format!(
        "{} taken in; {} and {} known, {} pending",
        count(usize::try_from(report.totals.events).unwrap_or(usize::MAX), "event"),
        count(report.totals.tasks, "task"),
        count(report.totals.locks, "lock"),
        count(report.totals.waits, "wait")
    ));
    page.heading("coverage");
    page.link(crate::view::text::coverage_line(&report.coverage), Subject::Unexplained);
    page.heading("losses since the start");
    if report.losses.is_empty() {
        page.text(2, Text::of(Role::Good, "none"));
    }
    for loss in &report.losses {
        page.text(
            2,
            Text::of(Role::Critical, number(loss.count)).and(Role::Text, format!(" {}", phrase::loss(loss.cause))),
        );
    }
    for (number_of, what) in [
        (
            report.totals.missed_ends,
            "ends of waits that were not told and followed from other events",
        ),
        (
            report.totals.unseen_ends,
            "waits that a complete round did not report any more",
        ),
    ] {
        if number_of > 0 {
            page.plain(format!("{} {what}", number(number_of)));
        }
    }
    page.heading(format!("probes in use: {}", source.probes.len()));
    for probe in &source.probes {
        page.plain(probe.clone());
    }
    let costs: Vec<_> = source.programs.iter().filter(|p| p.runs > 0 || p.skipped > 0).collect();
    if costs.is_empty() {
        page.text(
            2,
            super::dim("the kernel counts their cost while kernel.bpf_stats_enabled is 1"),
        );
    }
    for cost in costs {
        page.plain(format!(
            "{}: {} runs, {} each, {} skipped",
            cost.program,
            number(cost.runs),
            duration(Nanos(cost.run_time.0.checked_div(cost.runs).unwrap_or(0))),
            number(cost.skipped)
        ));
    }
    if !source.limits.is_empty() {
        page.heading("not covered");
        for limit in &source.limits {
            page.text(2, Text::of(Role::Warning, limit.clone()));
        }
    }
}
