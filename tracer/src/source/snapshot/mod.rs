//! Rounds over every thread of the machine: what blocked before holdup came, told in the same events as what blocks now.

mod emit;
mod peek;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::{Btf, Ebpf};

use self::emit::Emitter;
use self::peek::Peeks;
use crate::bpf::iterators;
use crate::bpf::stats::Losses;
use crate::event::{Body, Event, LossCause, Round, RoundEdge, RoundScope};
use crate::ids::{KernelAddr, Timestamp};
use crate::kernel::clock;
use crate::kernel::facts::KernelFacts;
use crate::kernel::offsets::{BlockedOnTarget, KernelOffsets, blocked_on_target};
use crate::kernel::stackscan::{self, CodeMap, Kernel, Memory, Threads};
use crate::kernel::symbols::Symbols;
use crate::wire::Decoder;

const ITERATOR: &str = "iter_threads";
/// Bytes of threads and stacks kept in a round; beyond it, raw stacks only of threads in uninterruptible sleep.
const MEMORY_BUDGET: usize = 256 << 20;
/// Bytes taken from the kernel at a time.
const BLOCK: usize = 1 << 18;

/// Walks over all threads.
pub struct Walker {
    peeks: Peeks,
    offsets: KernelOffsets,
    blocked_on_mutex: bool,
    code: CodeMap,
    symbols: Option<Arc<Symbols>>,
    number: u64,
}

/// What a round cost and could not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundCost {
    /// Threads.
    pub threads: usize,
    /// Bytes kept while the round was analysed.
    pub bytes: usize,
    /// Time in the kernel's walk over all threads.
    pub walk: Duration,
    /// Time for reading the locks and for the analysis.
    pub analysis: Duration,
    /// Threads without raw stack, for lack of memory.
    pub stripped: usize,
    /// Threads whose wait list was changing or corrupt.
    pub changing: usize,
    /// Threads that ran while they were looked at.
    pub restless: usize,
}

impl Walker {
    /// Loads the programs.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn new(ebpf: &mut Ebpf, btf: &Btf, facts: &KernelFacts) -> Result<Self> {
        iterators::load_over(ebpf, ITERATOR, "task", btf)?;
        let symbols = facts.files.symbols().cloned();
        let target = facts.files.btf().and_then(|btf| blocked_on_target(btf));
        Ok(Self {
            peeks: Peeks::new(ebpf, btf)?,
            offsets: facts.offsets.offsets,
            blocked_on_mutex: target == Some(BlockedOnTarget::Mutex),
            code: symbols
                .as_ref()
                .map(|symbols| CodeMap::new(symbols))
                .unwrap_or_default(),
            symbols,
            number: 0,
        })
    }

    /// Kernel memory.
    pub fn memory<'e>(&'e self, ebpf: &'e mut Ebpf) -> impl Memory + 'e {
        self.peeks.memory(ebpf)
    }

    /// What the walks of this machine cannot see, one line each.
    #[must_use]
    pub fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        if self.code.is_empty() {
            limits.push(
                "kernel symbols are hidden: what blocked threads wait for is not found on their stacks".to_owned(),
            );
        }
        limits
    }

    /// One round: every thread, explained. `all`: interruptible sleepers on locks, too.
    ///
    /// # Errors
    /// When the kernel stops answering.
    pub fn round(
        &mut self,
        ebpf: &mut Ebpf,
        all: bool,
        decoder: &mut Decoder,
        losses: &mut Losses,
        out: &mut Vec<Event>,
    ) -> Result<RoundCost> {
        self.number += 1;
        let begin = clock::monotonic();
        out.push(self.edge(begin, RoundEdge::Begin));
        let started = Instant::now();
        let (threads, complete) = walk(ebpf)?;
        if !complete {
            losses.add(LossCause::Malformed, 1);
        }
        let walked = started.elapsed();
        let symbols = self.symbols.clone();
        let is_static = |addr| {
            symbols
                .as_ref()
                .is_some_and(|symbols| symbols.resolve(KernelAddr(addr)).is_some())
        };
        let kernel = Kernel {
            offsets: &self.offsets,
            blocked_on_mutex: self.blocked_on_mutex,
            code: &self.code,
            is_static: &is_static,
            own: std::process::id(),
            clock: &clock::monotonic,
            all,
        };
        let found = stackscan::scan(&threads, &kernel, &mut self.peeks.memory(ebpf))?;
        Emitter::new(&threads, &found, decoder, out).events();
        let edge = if complete { RoundEdge::End } else { RoundEdge::Aborted };
        out.push(self.edge(found.time, edge));
        Ok(RoundCost {
            threads: threads.len(),
            bytes: threads.bytes(),
            walk: walked,
            analysis: started.elapsed().saturating_sub(walked),
            stripped: threads.stripped(),
            changing: found.changing,
            restless: found.restless.len(),
        })
    }

    fn edge(&self, time: Timestamp, edge: RoundEdge) -> Event {
        Event {
            time,
            body: Body::Round(Round {
                number: self.number,
                edge,
                scope: RoundScope::AllTasks,
            }),
        }
    }
}

/// Takes every thread; false when the walk ended in the middle of a record.
fn walk(ebpf: &mut Ebpf) -> Result<(Threads, bool)> {
    let mut file = iterators::open(ebpf, ITERATOR)?;
    let mut threads = Threads::default();
    let mut buffer = vec![0; BLOCK];
    let mut filled = 0;
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let got = file
            .read(free)
            .with_context(|| format!("reading the iterator {ITERATOR}"))?;
        if got == 0 {
            return Ok((threads, filled == 0));
        }
        filled += got;
        let mut taken = 0;
        loop {
            let rest = buffer.get(taken..filled).unwrap_or_default();
            match threads.take(rest, MEMORY_BUDGET) {
                Ok(0) => break,
                Ok(size) => taken += size,
                Err(_) => return Ok((threads, false)),
            }
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
}
