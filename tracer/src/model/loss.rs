//! What was not seen, by cause, and when: a finding whose evidence falls into such a time may not be called proven.

use std::collections::BTreeMap;

use super::steady::Span;
use crate::event::{LossCause, LossReport};
use crate::ids::Timestamp;

/// Growth intervals remembered per cause; older ones are merged.
const REMEMBERED: usize = 16;

#[derive(Debug, Default)]
struct Cause {
    reported: u64,
    own: u64,
    grew: Vec<Span>,
}

impl Cause {
    fn total(&self) -> u64 {
        self.reported.saturating_add(self.own)
    }

    fn grew(&mut self, when: Span) {
        if self.grew.len() >= REMEMBERED {
            let second = self.grew.remove(1);
            if let Some(first) = self.grew.first_mut() {
                first.extend(second.last);
            }
        }
        self.grew.push(when);
    }
}

/// Loss counters with the times at which they grew.
#[derive(Debug, Default)]
pub struct Losses {
    causes: BTreeMap<LossCause, Cause>,
    last_report: Timestamp,
}

impl Losses {
    /// Takes in cumulative counters. A loss has happened at some time since the previous report.
    pub fn apply(&mut self, time: Timestamp, report: &LossReport) {
        for &(cause, total) in &report.by_cause {
            self.grow_to(
                cause,
                total,
                Span {
                    first: self.last_report.min(time),
                    last: time,
                },
            );
        }
        self.last_report = self.last_report.max(time);
    }

    /// Counts one loss that the model itself is the cause of.
    pub fn count(&mut self, cause: LossCause, time: Timestamp) {
        let entry = self.causes.entry(cause).or_default();
        entry.own = entry.own.saturating_add(1);
        entry.grew(Span::at(time));
    }

    fn grow_to(&mut self, cause: LossCause, total: u64, when: Span) {
        let entry = self.causes.entry(cause).or_default();
        // A late report carries an older, smaller total.
        if total > entry.reported {
            entry.reported = total;
            entry.grew(when);
        }
    }

    /// Totals by cause, sorted by cause.
    pub fn totals(&self) -> impl Iterator<Item = (LossCause, u64)> + '_ {
        self.causes.iter().map(|(&cause, c)| (cause, c.total()))
    }

    /// The first of `causes` that grew at a time which overlaps `span`, with its total.
    #[must_use]
    pub fn touching(&self, span: Span, causes: &[LossCause]) -> Option<(LossCause, u64)> {
        causes.iter().find_map(|&cause| {
            let entry = self.causes.get(&cause)?;
            entry
                .grew
                .iter()
                .any(|g| g.intersect(span).is_some())
                .then_some((cause, entry.total()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(n: u64) -> LossReport {
        LossReport {
            by_cause: vec![(LossCause::ReadFailed, n)],
        }
    }

    #[test]
    fn a_loss_touches_the_time_since_the_previous_report() {
        let mut losses = Losses::default();
        losses.apply(Timestamp(100), &LossReport::default());
        losses.apply(Timestamp(200), &report(3));
        losses.apply(Timestamp(300), &report(3));
        let touches = |a, b| {
            losses.touching(
                Span {
                    first: Timestamp(a),
                    last: Timestamp(b),
                },
                &[LossCause::ReadFailed],
            )
        };
        assert_eq!(touches(150, 160), Some((LossCause::ReadFailed, 3)));
        assert_eq!(touches(20, 90), None);
        assert_eq!(touches(210, 300), None);
    }

    #[test]
    fn merging_old_intervals_forgets_none() {
        let mut losses = Losses::default();
        for i in 1..100 {
            losses.apply(Timestamp(i * 10), &report(i));
        }
        for i in 1..100 {
            assert!(
                losses
                    .touching(Span::at(Timestamp(i * 10 - 1)), &[LossCause::ReadFailed])
                    .is_some(),
                "{i}"
            );
        }
    }
}
