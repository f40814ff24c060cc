//! The two lines that never hide: where we are, what goes on, and what was lost.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::panes::{Subject, detail};
use super::source::{Playback, Vitals};
use super::state::Ui;
use super::theme::{Glyphs, Role, Theme};
use super::widgets::{Text, count, number, put};
use crate::ids::Nanos;
use crate::report::Report;
use crate::view::units::{duration, instant};

/// Draws both lines.
pub fn draw(ui: &Ui, report: Option<&Report>, buffer: &mut Buffer, [first, second]: [Rect; 2]) {
    let theme = &ui.theme;
    buffer.set_style(first, theme.style(Role::Bar));
    let vitals = ui.picture.as_ref().map(|p| &p.vitals);
    let dot = theme.glyphs.dot;
    let mode = vitals.map_or_else(|| "starting".to_owned(), |vitals| state(ui, report, vitals));
    let place = report.map_or_else(String::new, |report| {
        let source = &report.source;
        let fields = [source.mode.as_str(), source.host.as_str(), source.kernel.as_str()];
        let mut text: String = fields
            .iter()
            .filter(|f| !f.is_empty())
            .map(|f| format!("{dot}{f}"))
            .collect();
        if !source.probes.is_empty() {
            text = format!("{text}{dot}{}", count(source.probes.len(), "probe"));
        }
        if !source.limits.is_empty() {
            text = format!("{text}, {}", count(source.limits.len(), "limit"));
        }
        text
    });
    let mode = Text::of(Role::Active, format!(" {mode} "));
    let right = u16::try_from(mode.width()).unwrap_or(u16::MAX).min(first.width);
    let left = Text::of(Role::Active, " holdup").and(Role::Bar, place);
    put(
        buffer,
        (first.x, first.y),
        first.width.saturating_sub(right + 1),
        &left,
        theme,
    );
    put(buffer, (first.right() - right, first.y), right, &mode, theme);
    if let Some((vitals, report)) = vitals.zip(report) {
        put(
            buffer,
            (second.x, second.y),
            second.width,
            &figures(vitals, report, theme),
            theme,
        );
    }
}

/// Running, frozen, or somewhere in a recording.
fn state(ui: &Ui, report: Option<&Report>, vitals: &Vitals) -> String {
    match (vitals.playback, ui.frozen.is_some(), report) {
        (Some(playback), ..) => recording(playback),
        (None, true, Some(report)) => {
            format!(
                "PAUSED at {}, {} ago",
                instant(report.time),
                duration(vitals.now.since(report.time))
            )
        }
        _ => format!("LIVE {}", instant(vitals.now)),
    }
}

fn recording(playback: Playback) -> String {
    let at = playback.position.since(playback.start);
    let all = playback.end.since(playback.start);
    let what = if playback.paused { "PAUSED" } else { "PLAYING" };
    let speed = match playback.percent {
        100 => String::new(),
        percent => format!(" x{}.{:02}", percent / 100, percent % 100),
    };
    format!("{what}{speed} {} / {}", seconds(at), seconds(all))
}

fn seconds(time: Nanos) -> String {
    format!("{}.{} s", time.0 / 1_000_000_000, time.0 / 100_000_000 % 10)
}

/// Losses stand first: whatever else is cut off on a very narrow screen, they are not.
fn figures(vitals: &Vitals, report: &Report, theme: &Theme) -> Text {
    let dot = theme.glyphs.dot;
    let lost: u64 = vitals.losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.count));
    let text = match lost {
        0 => Text::of(Role::Good, " nothing lost"),
        lost => Text::of(Role::Critical, format!(" LOST {} (i)", number(lost))),
    };
    let waiting = number(report.coverage.waiting as u64);
    let events = number(vitals.events_per_second);
    let text = text.and(Role::Text, format!("{dot}{events} ev/s{dot}{waiting} waiting"));
    let text = match report.coverage.unexplained() {
        0 => text,
        n => text.and(Role::Warning, format!(", {} unexplained", number(n as u64))),
    };
    let share = |per_mille: u32| format!("{}.{}", per_mille / 10, per_mille % 10);
    match (vitals.own_cpu, vitals.probe_cpu) {
        (None, _) => text,
        (Some(own), None) => text.and(Role::Text, format!("{dot}own {} % CPU", share(own))),
        (Some(own), Some(bpf)) => text.and(Role::Text, format!("{dot}own {}+{} % CPU", share(own), share(bpf))),
    }
}

/// What is pinned, and how it is.
pub fn pinned(report: &Report, subject: &Subject, glyphs: &Glyphs) -> String {
    let pin = glyphs.pin;
    let Subject::Finding(id) = subject else {
        return format!("{pin} {}", detail::title(report, subject));
    };
    let open = report.findings.iter().find(|f| f.id == *id);
    let closed = || report.closed.iter().find(|c| c.finding.id == *id);
    match open {
        Some(finding) => format!("{pin} {} {}", finding.kind, duration(finding.age(report.time))),
        None => match closed() {
            Some(closed) => format!("{pin} {} closed", closed.finding.kind),
            None => format!("{pin} gone"),
        },
    }
}
