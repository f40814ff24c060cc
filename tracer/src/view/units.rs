//! Durations and numbers for people.

use crate::ids::{Nanos, Timestamp};

/// A duration with three significant digits and its unit: `1.23 s`, `45.6 ms`, `789 us`.
#[must_use]
pub fn duration(nanos: Nanos) -> String {
    const MINUTE: u64 = 60_000_000_000;
    match nanos.0 {
        n if n < 1_000 => format!("{n} ns"),
        n if n < 1_000_000 => three_digits(n, 1_000, "us"),
        n if n < 1_000_000_000 => three_digits(n, 1_000_000, "ms"),
        n if n < 2 * MINUTE => three_digits(n, 1_000_000_000, "s"),
        n if n < 120 * MINUTE => format!("{} min {} s", n / MINUTE, n % MINUTE / 1_000_000_000),
        n if n < 48 * 60 * MINUTE => format!("{} h {} min", n / (60 * MINUTE), n / MINUTE % 60),
        n => format!("{} d {} h", n / (24 * 60 * MINUTE), n / (60 * MINUTE) % 24),
    }
}

fn three_digits(value: u64, unit: u64, name: &str) -> String {
    let whole = value / unit;
    let part = value % unit;
    match whole {
        0..10 => format!("{whole}.{:02} {name}", part / (unit / 100)),
        10..100 => format!("{whole}.{} {name}", part / (unit / 10)),
        _ => format!("{whole} {name}"),
    }
}

/// An instant as seconds since boot with milliseconds.
#[must_use]
pub fn instant(time: Timestamp) -> String {
    format!("{}.{:03}", time.0 / 1_000_000_000, time.0 / 1_000_000 % 1_000)
}

/// A count with its noun, which takes an "s" unless there is one.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits_and_never_round_up_to_the_next_unit() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (999_999, "999 us"),
            (12_345_678, "12.3 ms"),
            (1_500_000_000, "1.50 s"),
            (119_999_999_999, "119 s"),
            (120_000_000_000, "2 min 0 s"),
            (7_200_000_000_000, "2 h 0 min"),
            (200_000_000_000_000, "2 d 7 h"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(Nanos(nanos)), text);
        }
    }
}
