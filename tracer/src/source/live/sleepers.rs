//! Who has been in uninterruptible sleep for long: found by a walk that only counts, often and cheaply, so that the dear walk which
//! explains is made when there is something new to explain.

use std::collections::HashMap;

use anyhow::Result;
use aya::{Btf, Ebpf};
use tracer_common::snapshot::BlockedRecord;
use zerocopy::FromBytes;

use crate::bpf::iterators;
use crate::ids::{Nanos, Tid, Timestamp};
use crate::kernel::clock;

const ITERATOR: &str = "iter_blocked";
/// Time between two walks, at least.
const EVERY: Nanos = Nanos::from_millis(500);
/// Share of the time that walks may take is one part in this many.
const BUDGET: u64 = 100;

/// A sleep of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sleep {
    /// Context switches: unchanged, it is the same sleep.
    switches: u64,
    /// When it was first seen.
    seen: Timestamp,
    /// A walk that explains has been made since it was long.
    explained: bool,
}

/// The sleeps at the last look.
#[derive(Debug)]
pub struct Sleepers {
    age: Nanos,
    next: Timestamp,
    sleeps: HashMap<Tid, Sleep>,
    bytes: Vec<u8>,
}

impl Sleepers {
    /// Loads the program. `age`: a sleep is long from then on.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn new(ebpf: &mut Ebpf, btf: &Btf, age: Nanos) -> Result<Self> {
        iterators::load(ebpf, ITERATOR, btf)?;
        Ok(Self {
            age,
            next: Timestamp(0),
            sleeps: HashMap::new(),
            bytes: Vec::new(),
        })
    }

    /// Looks, if it is time.
    ///
    /// # Errors
    /// When the iterator fails.
    pub fn look(&mut self, ebpf: &mut Ebpf, now: Timestamp) -> Result<()> {
        if now < self.next {
            return Ok(());
        }
        self.bytes.clear();
        iterators::run(ebpf, ITERATOR, &mut self.bytes)?;
        let bytes = std::mem::take(&mut self.bytes);
        self.update(&bytes, now);
        self.bytes = bytes;
        let end = clock::monotonic();
        let took = end.since(now);
        self.next = end + EVERY.max(Nanos(took.0.saturating_mul(BUDGET)));
        Ok(())
    }

    fn update(&mut self, bytes: &[u8], now: Timestamp) {
        let before = std::mem::take(&mut self.sleeps);
        for bytes in bytes.chunks_exact(size_of::<BlockedRecord>()) {
            let Ok(record) = BlockedRecord::read_from_bytes(bytes) else {
                continue;
            };
            let tid = Tid(u32::try_from(record.tid).unwrap_or(0));
            let same = before.get(&tid).filter(|known| known.switches == record.switches);
            let sleep = same.copied().unwrap_or(Sleep {
                switches: record.switches,
                seen: now,
                explained: false,
            });
            self.sleeps.insert(tid, sleep);
        }
    }

    /// Whether a sleep has become long which no walk has explained.
    #[must_use]
    pub fn has_news(&self, now: Timestamp) -> bool {
        self.sleeps
            .values()
            .any(|sleep| !sleep.explained && now.since(sleep.seen) >= self.age)
    }

    /// A walk that began at this time has explained what there was to explain.
    pub fn explained(&mut self, begin: Timestamp) {
        for sleep in self.sleeps.values_mut() {
            sleep.explained |= begin.since(sleep.seen) >= self.age;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn only_a_sleep_that_became_long_is_news_and_only_once() {
        let mut sleepers = Sleepers {
            age: Nanos::from_millis(100),
            next: Timestamp(0),
            sleeps: HashMap::new(),
            bytes: Vec::new(),
        };
        let mut look = |records: &[(u64, u64)], at| {
            let records: Vec<BlockedRecord> = records
                .iter()
                .map(|&(tid, switches)| BlockedRecord { tid, switches })
                .collect();
            sleepers.update(records.as_slice().as_bytes(), ms(at));
            let news = sleepers.has_news(ms(at));
            sleepers.explained(ms(at));
            news
        };
        assert!(!look(&[(1, 5), (2, 7)], 0), "they may have fallen asleep just now");
        assert!(look(&[(1, 5), (2, 8)], 200), "1 has slept on");
        assert!(!look(&[(1, 5), (2, 9)], 400), "2 has run twice");
        assert!(look(&[(1, 5), (2, 9)], 600), "2 has slept on");
        assert!(!look(&[(1, 5), (2, 9)], 800), "both are known");
        assert!(!look(&[(1, 6)], 1000) && !look(&[], 1200));
        assert!(!look(&[(1, 6)], 1400), "it was not there meanwhile");
    }
}
