//! CPUs that neither schedule nor tick, as the kernel's own watchers say.

use std::collections::BTreeMap;

use crate::event::CpuStall;
use crate::ids::{CpuId, Timestamp};

/// More CPUs than kernels are built for.
const MAX_CPUS: usize = 8192;

/// The newest word about each CPU.
#[derive(Debug, Default)]
pub struct Stalls {
    of: BTreeMap<CpuId, (Timestamp, CpuStall)>,
}

impl Stalls {
    /// Takes in what was told at `time`.
    pub fn apply(&mut self, time: Timestamp, stall: CpuStall) {
        let known = self.of.get(&stall.cpu).map(|(known, _)| *known);
        let news = match known {
            Some(known) => time >= known,
            None => self.of.len() < MAX_CPUS,
        };
        if news {
            // What is over stays, so that an older word that comes late does not revive it.
            self.of.insert(stall.cpu, (time, stall));
        }
    }

    /// What is wrong, by CPU.
    pub fn iter(&self) -> impl Iterator<Item = &CpuStall> {
        self.of
            .values()
            .map(|(_, stall)| stall)
            .filter(|stall| !stall.is_over())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_counts_and_what_is_over_does_not_come_back() {
        let mut stalls = Stalls::default();
        let stalled = CpuStall {
            timer: Some(Timestamp(3)),
            ..CpuStall::none(CpuId(2))
        };
        stalls.apply(Timestamp(10), stalled);
        assert_eq!(stalls.iter().collect::<Vec<_>>(), [&stalled]);
        stalls.apply(Timestamp(20), CpuStall::none(CpuId(2)));
        stalls.apply(Timestamp(15), stalled);
        assert_eq!(stalls.iter().count(), 0);
    }
}
