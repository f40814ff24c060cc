//! Everything about one lock.

use super::detail::{Page, waiting};
use super::{Subject, words};
use crate::ids::Nanos;
use crate::model::LockKey;
use crate::report::{LockRow, Report, TaskRow};
use crate::tui::theme::{Glyphs, Role};
use crate::tui::widgets::{Text, count, number, sparkline};
use crate::view::units::duration;

/// Widest bar of the histogram, in cells.
const BAR: u64 = 40;

pub(super) fn lock(page: &mut Page, report: &Report, wanted: LockKey, glyphs: &Glyphs) {
    let Some(row) = report.locks.iter().find(|l| l.lock.key() == wanted) else {
        page.plain("This lock is not, or no longer, among the contended ones.");
        return;
    };
    page.text(0, Text::of(Role::Strong, row.lock.to_string()));
    if let Some(source) = &row.lock.name_source {
        page.text(0, super::dim(format!("named after: {source}")));
    }
    let class = row.lock.class.as_ref();
    if let Some(class) = class.filter(|class| Some(*class) != row.lock.name.as_ref()) {
        page.text(0, super::dim(format!("class: {class}")));
    }
    page.heading("held by");
    match words::owner(&row.owner) {
        (text, Some(name)) => page.link(text, Subject::task(name)),
        (text, None) => page.plain(text),
    }
    let mut waiters: Vec<&TaskRow> = report.tasks.iter().filter(|task| waits_for(task, wanted)).collect();
    waiters.sort_by_key(|task| {
        let wait = task.wait.as_ref();
        let place = wait.and_then(|w| w.place).unwrap_or(u32::MAX);
        (place, std::cmp::Reverse(wait.map_or(Nanos(0), |w| w.waited)))
    });
    if row.lock.waiters > 0 {
        let readers = match row.readers_waiting {
            0 => String::new(),
            n => format!(", {} of them for reading", number(n as u64)),
        };
        let waiters = count(row.lock.waiters, "waiter");
        page.heading(format!(
            "{waiters}{readers}, longest wait {}",
            duration(row.longest_wait)
        ));
    }
    waiting(page, &waiters);
    statistics(page, row, glyphs);
}

fn waits_for(task: &TaskRow, wanted: LockKey) -> bool {
    let lock = task.wait.as_ref().and_then(|wait| wait.lock.as_ref());
    lock.is_some_and(|lock| lock.key() == wanted)
}

fn statistics(page: &mut Page, row: &LockRow, glyphs: &Glyphs) {
    if row.waits == 0 {
        page.text(2, super::dim("no wait for it has ended yet"));
        return;
    }
    page.heading("waits that ended");
    let percentile = |p: Option<Nanos>| p.map_or_else(|| "unknown".to_owned(), |p| format!("below {}", duration(p)));
    page.plain(format!(
        "{}, in sum {}, longest {}, half of them {}, 99 of 100 {}",
        count(usize::try_from(row.waits).unwrap_or(usize::MAX), "wait"),
        duration(row.total),
        duration(row.max),
        percentile(row.p50),
        percentile(row.p99)
    ));
    if let Some(held) = row.held {
        page.plain(format!(
            "held while somebody waited: {}, in sum at least {}, longest at least {}",
            count(usize::try_from(held.times).unwrap_or(usize::MAX), "time"),
            duration(held.total),
            duration(held.max)
        ));
    }
    page.plain(format!(
        "{} a second, {} of waiting a second",
        number(row.rate),
        duration(row.wait_per_second)
    ));
    page.text(
        2,
        Text::plain(format!("last {} ", count(row.history.len(), "second")))
            .and(Role::Info, sparkline(&row.history, glyphs)),
    );
    histogram(page, &row.histogram, glyphs);
}

/// One bar for each power of two of nanoseconds, from the first to the last that is not empty.
fn histogram(page: &mut Page, histogram: &[u64], glyphs: &Glyphs) {
    let Some(first) = histogram.iter().position(|n| *n > 0) else {
        return;
    };
    let last = histogram.iter().rposition(|n| *n > 0).unwrap_or(first);
    let most = histogram.iter().copied().max().unwrap_or(1).max(1);
    page.heading("how long they took");
    for (power, n) in histogram.iter().enumerate().take(last + 1).skip(first) {
        let upper = 1_u64
            .checked_shl(u32::try_from(power + 1).unwrap_or(u32::MAX))
            .unwrap_or(u64::MAX);
        let cells = usize::try_from(u128::from(*n) * u128::from(BAR) / u128::from(most)).unwrap_or(0);
        // What is not nothing must not look like it.
        let cells = cells.max(usize::from(*n > 0));
        page.text(
            2,
            Text::plain(format!("< {:>9} {:>9} ", duration(Nanos(upper)), number(*n)))
                .and(Role::Info, glyphs.block.repeat(cells)),
        );
    }
}
