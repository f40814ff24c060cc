//! Findings and reports as plain text.

use std::io::{self, Write};

use super::stacks::{self, Depth};
use super::units::{count, duration, instant};
use crate::diagnosis::{Finding, FindingChange, Link, Source, phrase};
use crate::event::Mode;
use crate::report::{Coverage, Report};

/// Chain links and evidence lines printed before the rest is only counted.
const MAX_LINES: usize = 24;

/// Writes what became of one finding, at time `now` of the model.
///
/// # Errors
/// When `out` cannot be written to.
pub fn change(out: &mut impl Write, now: crate::ids::Timestamp, change: &FindingChange) -> io::Result<()> {
    match change {
        FindingChange::Opened(finding) => {
            write!(out, "{} OPENED ", instant(now))?;
            self::finding(out, now, finding)
        }
        FindingChange::Changed(finding) => {
            write!(out, "{} CHANGED ", instant(now))?;
            self::finding(out, now, finding)
        }
        FindingChange::Closed(closed) => {
            let f = &closed.finding;
            writeln!(
                out,
                "{} CLOSED {} [{}, {}]",
                instant(closed.closed),
                f.kind,
                f.severity,
                f.certainty
            )?;
            writeln!(out, "  {}", f.title)?;
            writeln!(
                out,
                "  lasted {}{}",
                at_least(f.since_is_lower_bound),
                duration(closed.lasted)
            )
        }
    }
}

fn at_least(lower_bound: bool) -> &'static str {
    if lower_bound { "at least " } else { "" }
}

/// Writes one finding in full.
///
/// # Errors
/// When `out` cannot be written to.
pub fn finding(out: &mut impl Write, now: crate::ids::Timestamp, finding: &Finding) -> io::Result<()> {
    writeln!(out, "{} [{}, {}]", finding.kind, finding.severity, finding.certainty)?;
    writeln!(out, "  {}", finding.title)?;
    let age = duration(finding.age(now));
    writeln!(
        out,
        "  since {}, for {}{age}",
        instant(finding.since),
        at_least(finding.since_is_lower_bound)
    )?;
    section(out, "chain:", &finding.chain, |out, link| self::link(out, link))?;
    about(out, finding)?;
    victims(out, finding)?;
    section(out, "evidence:", &finding.evidence, |out, line| match line.source {
        Source::Loss(_) | Source::Missing => writeln!(out, "    ({}) {}", line.source, line.text),
        source => writeln!(out, "    [{source}] {}", line.text),
    })?;
    section(out, "next:", &finding.next_steps, |out, step| {
        writeln!(out, "    {step}")
    })
}

fn section<W: Write, T>(
    out: &mut W,
    title: &str,
    items: &[T],
    mut item: impl FnMut(&mut W, &T) -> io::Result<()>,
) -> io::Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {title}")?;
    for i in items.iter().take(MAX_LINES) {
        item(out, i)?;
    }
    if items.len() > MAX_LINES {
        writeln!(out, "    ... and {} more", items.len() - MAX_LINES)?;
    }
    Ok(())
}

fn link(out: &mut impl Write, link: &Link) -> io::Result<()> {
    let waited = format!("{}{}", at_least(link.waited_is_lower_bound), duration(link.waited));
    match &link.holder {
        Some(holder) => writeln!(out, "    {} waits {waited} for {} <- {holder}", link.waiter, link.on),
        None => writeln!(out, "    {} waits {waited} for {}", link.waiter, link.on),
    }
}

/// What its tasks are about, where that is known.
fn about(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let about = finding.tasks.iter().filter_map(|party| {
        let words = party.about.words();
        (!words.is_empty()).then(|| format!("{}: {}", party.name, words.join("; ")))
    });
    section(out, "tasks:", &about.collect::<Vec<_>>(), |out, line| {
        writeln!(out, "    {line}")
    })
}

fn victims(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let victims = &finding.victims;
    if victims.count == 0 {
        return Ok(());
    }
    write!(
        out,
        "  victims: {}, longest {}",
        victims.count,
        duration(victims.longest_wait)
    )?;
    write!(out, ", in sum {}", duration(victims.total_wait))?;
    match victims.cgroups.len() {
        0 => writeln!(out)?,
        n => writeln!(out, ", in {}", count(n, "cgroup"))?,
    }
    for victim in &victims.tasks {
        link(out, &victim.link)?;
    }
    if victims.count > victims.tasks.len() {
        writeln!(out, "    ... and {} more", victims.count - victims.tasks.len())?;
    }
    Ok(())
}

/// Writes a whole report: findings, coverage, losses.
///
/// # Errors
/// When `out` cannot be written to.
pub fn report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    findings(out, report)?;
    summary(out, report)
}

/// Writes the findings of a report.
///
/// # Errors
/// When `out` cannot be written to.
pub fn findings(out: &mut impl Write, report: &Report) -> io::Result<()> {
    if report.findings.is_empty() {
        writeln!(out, "no findings")?;
    }
    for finding in &report.findings {
        self::finding(out, report.time, finding)?;
        writeln!(out)?;
    }
    if report.findings_left_out > 0 {
        writeln!(out, "{} not listed", count(report.findings_left_out, "more finding"))?;
    }
    Ok(())
}

/// Writes what a report covers and what it does not.
///
/// # Errors
/// When `out` cannot be written to.
pub fn summary(out: &mut impl Write, report: &Report) -> io::Result<()> {
    watched(out, report)?;
    stalls(out, report)?;
    coverage(out, report)?;
    losses(out, report)?;
    for limit in &report.source.limits {
        writeln!(out, "not covered: {limit}")?;
    }
    Ok(())
}

/// The coverage line.
#[must_use]
pub fn coverage_line(coverage: &Coverage) -> String {
    format!(
        "{} waiting: {} explained, {} not",
        count(coverage.waiting, "task"),
        coverage.explained,
        coverage.unexplained()
    )
}

fn coverage(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}", coverage_line(&report.coverage))?;
    for group in report.coverage.groups.iter().take(MAX_LINES) {
        let names: Vec<String> = group.tasks.iter().map(ToString::to_string).collect();
        let more = if group.count > group.tasks.len() { ", ..." } else { "" };
        writeln!(
            out,
            "  {} not explained: {}{more}",
            count(group.count, "task"),
            names.join(", ")
        )?;
        match report.stacks.get(&group.stack) {
            Some(frames) => {
                for line in stacks::lines(frames, Depth::Full) {
                    writeln!(out, "      {line}")?;
                }
            }
            None => writeln!(out, "      no stack")?,
        }
    }
    if report.coverage.groups.len() > MAX_LINES {
        writeln!(
            out,
            "  ... and {} more groups",
            report.coverage.groups.len() - MAX_LINES
        )?;
    }
    Ok(())
}

fn watched(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let at = |site: &Option<std::sync::Arc<str>>| site.as_ref().map_or_else(String::new, |site| format!(" at {site}"));
    for row in &report.watched {
        write!(
            out,
            "watched {}: taken {} times, held {} in sum over {} holds",
            row.lock,
            row.acquisitions,
            duration(row.held_total),
            row.holds
        )?;
        if row.unmatched > 0 {
            write!(out, ", {} without their other end", row.unmatched)?;
        }
        writeln!(out)?;
        if let Some(longest) = &row.longest {
            let held = duration(longest.held);
            writeln!(out, "  longest {held} by {}{}", longest.name, at(&longest.site))?;
        }
        for holder in &row.holders {
            writeln!(
                out,
                "  {} holds it ({}) for {}{}",
                holder.name,
                phrase_mode(holder.mode),
                duration(holder.held),
                at(&holder.site)
            )?;
        }
    }
    Ok(())
}

fn stalls(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for cpu in &report.cpus {
        if let Some(stall) = &cpu.stall {
            writeln!(
                out,
                "by the kernel's own watchers CPU {} {}",
                cpu.cpu,
                stall.words().join("; ")
            )?;
        }
    }
    Ok(())
}

fn phrase_mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}

fn losses(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for loss in &report.losses {
        writeln!(out, "lost: {} {}", loss.count, phrase::loss(loss.cause))?;
    }
    Ok(())
}
