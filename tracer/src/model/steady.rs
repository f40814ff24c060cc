//! Values read again and again: since when they have not changed, and over which span of time that is known.

use crate::ids::{Nanos, Timestamp};

/// A closed interval of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant.
    pub first: Timestamp,
    /// Last instant.
    pub last: Timestamp,
}

impl Span {
    /// One instant.
    #[must_use]
    pub const fn at(time: Timestamp) -> Self {
        Self {
            first: time,
            last: time,
        }
    }

    /// From `first` to `last`; `None` when that is backwards.
    #[must_use]
    pub fn new(first: Timestamp, last: Timestamp) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The part that both share.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Moves the end forward; a time before the end changes nothing.
    pub fn extend(&mut self, time: Timestamp) {
        self.last = self.last.max(time);
    }

    /// Its length.
    #[must_use]
    pub fn length(self) -> Nanos {
        self.last.since(self.first)
    }
}

/// How far apart two remembered reads have to be to serve as a fresh pair.
const PAIR: Nanos = Nanos::from_millis(100);

/// A value together with the reads that found it unchanged.
///
/// Besides the whole span a recent pair of reads is kept, so that a loss of events long ago does not taint the value for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady<T> {
    /// What was read.
    pub value: T,
    /// First and last read that found it, with no other value in between.
    pub span: Span,
    /// Reads at different instants.
    pub reads: u32,
    older: Timestamp,
    newer: Timestamp,
}

impl<T: PartialEq> Steady<T> {
    /// First read of a value.
    pub fn new(value: T, time: Timestamp) -> Self {
        Self {
            value,
            span: Span::at(time),
            reads: 1,
            older: time,
            newer: time,
        }
    }

    /// Adds a read. Returns whether the newest known value is now another one.
    ///
    /// A late read (older than the last one) never becomes the newest value. If it falls into the span and differs, the value
    /// has changed in between and the span starts anew at its last read.
    pub fn read(&mut self, value: T, time: Timestamp) -> bool {
        if self.value == value {
            if time > self.span.last {
                // Equal values may still differ in what does not matter: the newest is kept.
                self.value = value;
                self.span.last = time;
                self.reads = self.reads.saturating_add(1);
                if time.since(self.newer) >= PAIR {
                    self.older = self.newer;
                    self.newer = time;
                }
            }
            return false;
        }
        if time < self.span.first {
            return false;
        }
        if time < self.span.last {
            self.restart(self.span.last);
            return false;
        }
        self.value = value;
        self.restart(time);
        true
    }

    fn restart(&mut self, time: Timestamp) {
        (self.span, self.reads, self.older, self.newer) = (Span::at(time), 1, time, time);
    }

    /// The last read together with one at least 100 ms before it, where there is one.
    #[must_use]
    pub fn recent(&self) -> Span {
        Span {
            first: self.older,
            last: self.span.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn equal_reads_extend_and_duplicates_do_not_count() {
        let mut s = Steady::new(7, t(10));
        assert!(!s.read(7, t(20)));
        assert!(!s.read(7, t(20)));
        assert_eq!(
            (s.span, s.reads),
            (
                Span {
                    first: t(10),
                    last: t(20)
                },
                2
            )
        );
    }

    #[test]
    fn a_late_different_read_inside_the_span_breaks_it() {
        let mut s = Steady::new(7, t(10));
        s.read(7, t(30));
        assert!(!s.read(8, t(20)));
        assert_eq!((s.value, s.span), (7, Span::at(t(30))));
    }

    #[test]
    fn a_late_read_before_the_span_says_nothing() {
        let mut s = Steady::new(7, t(10));
        s.read(8, t(20));
        s.read(7, t(10));
        assert_eq!((s.value, s.span), (8, Span::at(t(20))));
    }

    #[test]
    fn the_recent_pair_is_at_least_a_hundred_milliseconds_wide_and_moves_on() {
        let mut s = Steady::new(7, t(0));
        for ms in [200, 400, 600] {
            s.read(7, t(ms));
        }
        assert_eq!(
            s.recent(),
            Span {
                first: t(400),
                last: t(600)
            }
        );
    }
}
