//! Contention statistics of one lock: totals, a histogram and a sliding window.

use crate::event::LockStats;
use crate::ids::{Nanos, Timestamp};

/// Number of power-of-two buckets; the last one takes everything above 2^39 ns (9 minutes).
pub const BUCKETS: usize = 40;
/// Seconds in the sliding window.
pub const WINDOW: usize = 30;

/// Waits that ended, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Number of waits.
    pub waits: u64,
    /// Their summed time.
    pub total: Nanos,
    /// The longest.
    pub max: Nanos,
    histogram: [u64; BUCKETS],
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            waits: 0,
            total: Nanos(0),
            max: Nanos(0),
            histogram: [0; BUCKETS],
        }
    }
}

fn bucket(nanos: u64) -> usize {
    (nanos.max(1).ilog2() as usize).min(BUCKETS - 1)
}

impl Totals {
    fn add(&mut self, waited: Nanos) {
        self.waits = self.waits.saturating_add(1);
        self.total += waited;
        self.max = self.max.max(waited);
        if let Some(cell) = self.histogram.get_mut(bucket(waited.0)) {
            *cell = cell.saturating_add(1);
        }
    }

    fn add_all(&mut self, stats: &LockStats) {
        self.waits = self.waits.saturating_add(stats.waits);
        self.total += stats.total;
        self.max = self.max.max(stats.max);
        for (i, &count) in stats.histogram.iter().enumerate() {
            if let Some(cell) = self.histogram.get_mut(i.min(BUCKETS - 1)) {
                *cell = cell.saturating_add(count);
            }
        }
    }

    /// Upper bound of the wait that `percent` of 100 waits did not exceed: the end of its power-of-two bucket, at most the
    /// longest wait seen.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Nanos> {
        let counted: u128 = self.histogram.iter().copied().map(u128::from).sum();
        if counted == 0 {
            return None;
        }
        let rank = (counted * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0_u128;
        for (i, &count) in self.histogram.iter().enumerate() {
            seen += u128::from(count);
            if seen >= rank {
                let end = if i + 1 >= BUCKETS {
                    u64::MAX
                } else {
                    (1_u64 << (i + 1)) - 1
                };
                return Some(Nanos(end).min(self.max.max(Nanos(1))));
            }
        }
        Some(self.max)
    }

    /// Waits per power of two of nanoseconds.
    #[must_use]
    pub fn histogram(&self) -> &[u64] {
        &self.histogram
    }
}

/// Counts per second over the last [`WINDOW`] seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    second: u64,
    first: u64,
    waits: [u32; WINDOW],
    time: [u64; WINDOW],
}

impl Window {
    fn new(now: Timestamp) -> Self {
        let second = now.0 / 1_000_000_000;
        Self {
            second,
            first: second,
            waits: [0; WINDOW],
            time: [0; WINDOW],
        }
    }

    fn add(&mut self, now: Timestamp, waits: u64, total: Nanos) {
        let second = now.0 / 1_000_000_000;
        if second + (WINDOW as u64) <= self.second {
            return;
        }
        while self.second < second {
            if second - self.second > WINDOW as u64 {
                (self.waits, self.time) = ([0; WINDOW], [0; WINDOW]);
                self.second = second;
                break;
            }
            self.second += 1;
            let slot = (self.second % WINDOW as u64) as usize;
            (self.waits[slot], self.time[slot]) = (0, 0);
        }
        let slot = (second % WINDOW as u64) as usize;
        self.waits[slot] = self.waits[slot].saturating_add(u32::try_from(waits).unwrap_or(u32::MAX));
        self.time[slot] = self.time[slot].saturating_add(total.0);
    }

    /// Waits of each of the last [`WINDOW`] whole seconds before `now`, oldest first.
    pub fn waits_per_second(&self, now: Timestamp) -> impl Iterator<Item = u32> + '_ {
        let end = now.0 / 1_000_000_000;
        (0..WINDOW as u64).map(move |i| {
            let second = (end + i).checked_sub(WINDOW as u64);
            second
                .filter(|&s| self.has(s))
                .map_or(0, |s| self.waits[(s % WINDOW as u64) as usize])
        })
    }

    fn has(&self, second: u64) -> bool {
        second <= self.second && second + (WINDOW as u64) > self.second
    }

    /// Mean waits per second and waited time per second over the last `seconds` whole seconds before `now`.
    #[must_use]
    pub fn rate(&self, now: Timestamp, seconds: u64) -> (u64, Nanos) {
        let end = now.0 / 1_000_000_000;
        let seconds = seconds
            .clamp(1, WINDOW as u64 - 1)
            .min(end.saturating_sub(self.first).max(1));
        let (mut waits, mut time) = (0_u64, 0_u64);
        for second in end.saturating_sub(seconds)..end {
            if self.has(second) {
                let slot = (second % WINDOW as u64) as usize;
                waits = waits.saturating_add(u64::from(self.waits[slot]));
                time = time.saturating_add(self.time[slot]);
            }
        }
        (waits / seconds, Nanos(time / seconds))
    }
}

/// All statistics of one lock.
///
/// The source either sums up in the kernel and sends [`LockStats`], or sends the end of every wait: what came as statistics
/// wins, so that nothing is counted twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contention {
    from_ends: Totals,
    from_stats: Option<Box<Totals>>,
    window: Window,
}

impl Contention {
    /// Nothing so far.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            from_ends: Totals::default(),
            from_stats: None,
            window: Window::new(now),
        }
    }

    /// One wait ended.
    pub fn ended(&mut self, time: Timestamp, waited: Nanos) {
        self.from_ends.add(waited);
        if self.from_stats.is_none() {
            self.window.add(time, 1, waited);
        }
    }

    /// The kernel side summed up an interval.
    pub fn summed(&mut self, time: Timestamp, stats: &LockStats) {
        if self.from_stats.is_none() {
            self.window = Window::new(time);
        }
        self.from_stats.get_or_insert_default().add_all(stats);
        self.window.add(time, stats.waits, stats.total);
    }

    /// Totals since the start of the source.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        self.from_stats.as_deref().unwrap_or(&self.from_ends)
    }

    /// The sliding window.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_bounds_of_the_bucket() {
        let mut totals = Totals::default();
        for _ in 0..99 {
            totals.add(Nanos(1_000));
        }
        totals.add(Nanos(1_000_000));
        assert_eq!(totals.percentile(50), Some(Nanos(1_023)));
        assert_eq!(totals.percentile(99), Some(Nanos(1_023)));
        assert_eq!(totals.percentile(100), Some(Nanos(1_000_000)));
        assert_eq!(Totals::default().percentile(50), None);
    }

    #[test]
    fn the_window_forgets_what_is_older_than_it() {
        let second = |s: u64| Timestamp(s * 1_000_000_000);
        let mut window = Window::new(second(100));
        window.add(second(100), 30, Nanos(300));
        window.add(second(101), 10, Nanos(100));
        assert_eq!(window.rate(second(102), 2), (20, Nanos(200)));
        assert_eq!(window.waits_per_second(second(102)).sum::<u32>(), 40);
        assert_eq!(window.rate(second(500), 2), (0, Nanos(0)));
        window.add(second(500), 1, Nanos(1));
        assert_eq!(window.waits_per_second(second(501)).sum::<u32>(), 1);
    }
}
