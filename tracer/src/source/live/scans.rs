//! Walks over all threads during a live run: what blocked before the probes were attached, and what no probe shows.

use anyhow::Result;
use aya::{Btf, Ebpf};

use super::sleepers::Sleepers;
use crate::bpf::stats::Losses;
use crate::event::{Body, Event};
use crate::ids::{Nanos, Timestamp};
use crate::kernel::facts::KernelFacts;
use crate::kernel::stackscan::Memory;
use crate::source::snapshot::Walker;
use crate::wire::Decoder;

/// Time between the two walks at the start, which prove what is older than the run.
const FIRST_PAIR: Nanos = Nanos::from_millis(200);
/// Time between later walks, at least.
const EVERY: Nanos = Nanos::from_secs(1);
/// Share of the time that walks may take is one part in this many.
const BUDGET: u64 = 50;

/// State of the walks.
pub struct Scans {
    walker: Walker,
    sleepers: Sleepers,
    next: Timestamp,
    done: u64,
    /// The last walk found somebody waiting, so another one has to say whether that is over.
    found: bool,
}

impl Scans {
    /// Loads the programs. `age`: who sleeps uninterruptibly for so long is to be explained.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn new(ebpf: &mut Ebpf, btf: &Btf, facts: &KernelFacts, age: Nanos) -> Result<Self> {
        Ok(Self {
            walker: Walker::new(ebpf, btf, facts)?,
            sleepers: Sleepers::new(ebpf, btf, age)?,
            next: Timestamp(0),
            done: 0,
            found: false,
        })
    }

    /// What walks over the threads and reads kernel memory.
    pub fn walker(&self) -> &Walker {
        &self.walker
    }

    /// Kernel memory.
    pub fn memory<'e>(&'e self, ebpf: &'e mut Ebpf) -> impl Memory + 'e {
        self.walker.memory(ebpf)
    }

    /// Walks if it is time: twice at the start, then when somebody has begun to wait for long, and until nobody does.
    ///
    /// # Errors
    /// When the kernel stops answering.
    pub fn run(
        &mut self,
        ebpf: &mut Ebpf,
        somebody_waits: bool,
        (decoder, losses): (&mut Decoder, &mut Losses),
        now: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        self.sleepers.look(ebpf, now)?;
        let wanted = self.done < 2 || self.found || somebody_waits || self.sleepers.has_news(now);
        if now < self.next || !wanted {
            return Ok(());
        }
        self.sleepers.explained(now);
        let from = out.len();
        let cost = self.walker.round(ebpf, false, decoder, losses, out)?;
        self.found = out
            .iter()
            .skip(from)
            .any(|event| matches!(event.body, Body::Wait(_) | Body::Dependency(_)));
        self.done += 1;
        let took = Nanos::from(cost.walk + cost.analysis);
        let pause = if self.done == 1 {
            FIRST_PAIR
        } else {
            EVERY.max(Nanos(took.0.saturating_mul(BUDGET)))
        };
        self.next = now + took + pause;
        Ok(())
    }
}
