//! Contention statistics: the programs fill one bank of cells while the other is read and cleared.

use anyhow::{Context, Result};
use aya::Ebpf;
use std::collections::BTreeMap;
use tracer_common::kind::mode;
use tracer_common::table::{BUCKET_SHIFT, BUCKETS, Control, LockCell};

use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::event::{Body, Event, LockKind, LockStats, Mode};
use crate::ids::{LockAddr, Nanos, Timestamp};
use crate::wire;

/// Time between two flips. A program that was preempted between reading the bank and writing its cell has this long to finish.
const FLIP_EVERY: Nanos = Nanos::from_secs(1);
/// log2 of the histogram buckets' lower bounds in [`LockStats`], for cell bucket 0.
const HISTOGRAM: usize = BUCKETS + BUCKET_SHIFT as usize;

/// Reader of the statistics.
#[derive(Debug)]
pub struct Cells {
    cells: SharedArray<LockCell>,
    control: SharedArray<Control>,
    bank_entries: usize,
    bank: u64,
    last_flip: Timestamp,
}

impl Cells {
    /// Takes the maps.
    ///
    /// # Errors
    /// When a map is missing.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes) -> Result<Self> {
        let cells = ebpf.take_map("CELLS").context("the BPF object has no map CELLS")?;
        let control = ebpf.take_map("CONTROL").context("the BPF object has no map CONTROL")?;
        Ok(Self {
            cells: SharedArray::new(cells, "CELLS", sizes.cell_entries() as usize)?,
            control: SharedArray::new(control, "CONTROL", 1)?,
            bank_entries: (sizes.cells * sizes.cpus) as usize,
            bank: 0,
            last_flip: Timestamp(0),
        })
    }

    /// Starts or stops the log of watched locks.
    pub fn set_watching(&self, on: bool) {
        const WATCHING_WORD: usize = std::mem::offset_of!(Control, watching) / 8;
        self.control.set_word(0, WATCHING_WORD, on.into());
    }

    /// Once a second: reads and clears the bank that has rested since the last flip, then makes it the active one.
    pub fn read(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        if now.since(self.last_flip) >= FLIP_EVERY {
            self.flip(now, out);
        }
    }

    /// Reads both banks, when no more is to come.
    pub fn finish(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        self.flip(now, out);
        self.flip(now, out);
    }

    fn flip(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        self.last_flip = now;
        let resting = 1 - self.bank;
        let from = usize::try_from(resting).unwrap_or(0) * self.bank_entries;
        let mut merged: BTreeMap<(u64, Mode), (LockKind, LockCell)> = BTreeMap::new();
        for index in from..from + self.bank_entries {
            if self.cells.word(index, 0).unwrap_or(0) == 0 {
                continue;
            }
            let Some(cell) = self.cells.get(index) else {
                continue;
            };
            for word in (0..size_of::<LockCell>() / 8).rev() {
                self.cells.set_word(index, word, 0);
            }
            merge(&mut merged, &cell);
        }
        self.control.set_word(0, 0, resting);
        self.bank = resting;
        out.extend(merged.into_iter().map(|((lock, mode), (kind, cell))| Event {
            time: now,
            body: Body::Stats(LockStats {
                lock: LockAddr(lock),
                kind,
                mode,
                waits: cell.waits,
                total: Nanos(cell.total),
                max: Nanos(cell.max),
                histogram: histogram(&cell),
            }),
        }));
    }
}

fn merge(merged: &mut BTreeMap<(u64, Mode), (LockKind, LockCell)>, cell: &LockCell) {
    let code = if cell.key & 1 == 1 {
        mode::SHARED
    } else {
        mode::EXCLUSIVE
    };
    let (kind, mode) = wire::table_codes(u8::try_from(cell.kind).unwrap_or(0), code);
    merged
        .entry((cell.key & !1, mode))
        .and_modify(|(_, sum)| {
            sum.waits = sum.waits.saturating_add(cell.waits);
            sum.total = sum.total.saturating_add(cell.total);
            sum.max = sum.max.max(cell.max);
            for (sum, n) in sum.buckets.iter_mut().zip(cell.buckets) {
                *sum = sum.saturating_add(n);
            }
        })
        .or_insert((kind, *cell));
}

/// Cell buckets, shifted to `histogram[i]` = waits in `[2^i, 2^(i+1))` ns; what was below 512 ns stands at 256 ns.
fn histogram(cell: &LockCell) -> Vec<u64> {
    let mut histogram = vec![0; HISTOGRAM];
    for (place, n) in histogram.iter_mut().skip(BUCKET_SHIFT as usize).zip(cell.buckets) {
        *place = n;
    }
    let used = histogram.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
    histogram.truncate(used);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(key: u64, waits: u64, max: u64, bucket: usize) -> LockCell {
        let mut buckets = [0; BUCKETS];
        buckets[bucket] = waits;
        LockCell {
            key,
            kind: 3,
            waits,
            total: waits * max,
            max,
            buckets,
        }
    }

    #[test]
    fn cells_of_one_lock_and_mode_add_up_over_cpus() {
        let mut merged = BTreeMap::new();
        for c in [cell(0x1000, 2, 10, 0), cell(0x1000, 3, 7, 1), cell(0x1001, 1, 5, 0)] {
            merge(&mut merged, &c);
        }
        let (kind, writers) = &merged[&(0x1000, Mode::Exclusive)];
        assert_eq!(
            (*kind, writers.waits, writers.total, writers.max),
            (LockKind::Rwsem, 5, 41, 10)
        );
        assert_eq!(merged[&(0x1000, Mode::Shared)].1.waits, 1);
    }

    #[test]
    fn buckets_land_on_their_power_of_two() {
        assert_eq!(histogram(&cell(8, 4, 9, 1)).iter().rposition(|&n| n == 4), Some(9));
        assert!(histogram(&cell(8, 0, 0, 0)).is_empty());
    }
}
