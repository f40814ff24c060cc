//! The CPU board: which CPUs look stuck, what they do, and who can hold what they spin on.
//!
//! `/proc/stat` is read in every round and costs nothing that matters. Only while a CPU looks stuck (or when asked for) is the
//! sampler on, for all CPUs that tick, and kernel memory is read for those that do not: who holds a spinlock is found by looking
//! at everybody who does not.

mod answers;
mod candidates;
mod queue;
mod spins;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use anyhow::Result;
use aya::Ebpf;
use tracer_common::sample::CpuSample;

use self::spins::end;
use super::percpu::Places;
use super::sampler::Sampler;
use super::spin::LongSpin;
use super::stalls::Stalls;
use super::standstill::{self, Locks, Spin};
use crate::bpf::attach::Attached;
use crate::bpf::leave::Links;
use crate::bpf::load::Sizes;
use crate::event::{Actor, Event, LockKind};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId, Timestamp};
use crate::kernel::clock;
use crate::kernel::cpu_times::{CpuTimes, SHORTEST};
use crate::kernel::facts::KernelFacts;
use crate::kernel::symbols::Symbols;
use crate::kernel::sysroot::Sysroot;
use crate::source::snapshot::Walker;

/// A CPU must have stood still for this long before it is said to spin.
const STILL: Nanos = Nanos::from_millis(200);
/// Samples in a row that say so, at least.
const STREAK: u64 = 5;
/// Rounds without a suspicion after which the sampler is switched off.
const CALM_ROUNDS: u32 = 8;
/// A CPU that has not moved for this long before the start is taken for dead.
const STANDS_STILL: Nanos = Nanos::from_millis(600);
/// The start is delayed by no more than this by a CPU that looks stuck.
const PATIENCE: Nanos = Nanos::from_millis(1600);
/// What was not seen to spin for this long does so no more.
const STALE: Nanos = Nanos::from_secs(2);
/// Bits of the preempt count that count spinlocks. KERNEL: include/linux/preempt.h, 5.10 to 6.18.
const SPINLOCKS: u32 = 0xff;

/// What a CPU was last seen to spin on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spinning {
    who: Actor,
    lock: LockAddr,
    kind: LockKind,
    since: Timestamp,
    seen: Timestamp,
    /// See [`Spin::behind`]; `None` where that is not known.
    behind: Option<bool>,
}

/// A sample with what was found in it.
struct Sampled {
    cpu: CpuId,
    sample: CpuSample,
    frames: Vec<KernelAddr>,
    spin: Option<Spin>,
    /// Waits for another CPU's answer.
    asks: bool,
}

/// State of the board.
pub struct Board {
    sampler: Sampler,
    times: CpuTimes,
    root: Sysroot,
    symbols: Option<Arc<Symbols>>,
    places: Option<Places>,
    stalls: Stalls,
    locks: Locks,
    always: bool,
    suspicious_since: Option<Timestamp>,
    calm: u32,
    /// Number of the newest sample looked at.
    looked: BTreeMap<CpuId, u64>,
    /// When a CPU was last seen to hold no spinlock.
    free: BTreeMap<CpuId, Timestamp>,
    spinning: BTreeMap<CpuId, Spinning>,
    /// Spinlocks are counted in this kernel's preempt counts.
    counted: bool,
    /// Requests that a CPU has not taken, and since when.
    unanswered: BTreeMap<(CpuId, u64), Timestamp>,
    stacks: HashSet<StackId>,
}

impl Board {
    /// Loads the sampler; it stays off until something looks wrong, unless `always`.
    ///
    /// # Errors
    /// When the sampler is refused.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes, facts: &KernelFacts, always: bool, links: &Links) -> Result<Self> {
        let root = Sysroot::host();
        let mut times = CpuTimes::default();
        times.read(&root, clock::monotonic());
        Ok(Self {
            sampler: Sampler::new(ebpf, sizes, links.home())?,
            times,
            root,
            symbols: facts.files.symbols().cloned(),
            places: Places::of(facts),
            stalls: Stalls::of(facts.files.symbols().map(AsRef::as_ref), &facts.offsets.offsets),
            locks: Locks {
                cpus: sizes.cpus,
                rwlock_queue: facts.offsets.offsets.spin.rwlock_queue,
            },
            always,
            suspicious_since: None,
            calm: 0,
            looked: BTreeMap::new(),
            free: BTreeMap::new(),
            spinning: BTreeMap::new(),
            counted: false,
            unanswered: BTreeMap::new(),
            stacks: HashSet::new(),
        })
    }

    /// Whether some CPU stands still, so that no RCU grace period ends. Looks twice at least [`SHORTEST`] apart, and for longer
    /// only where something looks wrong.
    pub fn stands_still(&mut self, ebpf: &mut Ebpf) -> Option<CpuId> {
        let begin = clock::monotonic();
        std::thread::sleep(SHORTEST.into());
        loop {
            let now = clock::monotonic();
            self.times.read(&self.root, now);
            let suspects: Vec<CpuId> = self.times.online().filter(|&cpu| self.times.looks_stuck(cpu)).collect();
            let still = |cpu: CpuId| {
                let sampled = self.sampler.newest(cpu).is_some_and(|sample| {
                    let still = Timestamp(sample.time).since(standstill::still_since(&sample));
                    still >= STANDS_STILL && standstill::preempt_count(&sample) != Some(0)
                });
                sampled || self.times.silent(cpu, now).is_some()
            };
            if let Some(&cpu) = suspects.iter().find(|&&cpu| still(cpu)) {
                return Some(cpu);
            }
            if suspects.is_empty() || now.since(begin) >= PATIENCE {
                return None;
            }
            let ticking = suspects.into_iter().filter(|&cpu| self.times.ticks_since(cpu, begin));
            self.sampler.watch(ebpf, ticking);
            std::thread::sleep(SHORTEST.into());
        }
    }

    /// CPUs that take no timer interrupt: whatever asks one for something waits for ever. Looks again until it is sure, which takes
    /// no longer than [`PATIENCE`].
    pub fn silent(&mut self) -> BTreeSet<CpuId> {
        let begin = clock::monotonic();
        loop {
            std::thread::sleep(SHORTEST.into());
            let now = clock::monotonic();
            self.times.read(&self.root, now);
            let stopped: BTreeSet<CpuId> = self.times.online().filter(|&cpu| self.times.stood_still(cpu)).collect();
            let sure = stopped.iter().any(|&cpu| self.times.silent(cpu, now).is_some());
            if sure || stopped.is_empty() {
                return stopped;
            }
            if now.since(begin) >= PATIENCE {
                return BTreeSet::new();
            }
        }
    }

    /// Samples every CPU rarely, from now on for good. Every CPU must be ticking.
    pub fn stand_by(&mut self, ebpf: &mut Ebpf, links: &mut Links) -> Vec<Attached> {
        self.sampler.stand_by(ebpf, self.times.online(), links)
    }

    /// One round. `long`: what CPUs have been spinning on for long, by their own probes. What they told in this round stands in
    /// `out` from `from` on.
    ///
    /// # Errors
    /// When kernel memory cannot be read any more.
    pub fn poll(
        &mut self,
        ebpf: &mut Ebpf,
        walker: &Walker,
        long: &[LongSpin],
        now: Timestamp,
        from: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        self.times.read(&self.root, now);
        let sampled = if self.sampler.is_on() {
            self.samples()
        } else {
            Vec::new()
        };
        self.look(&sampled, now, out);
        let stale = |s: &Spinning| now.since(s.seen) >= STALE;
        out.extend(self.spinning.values().copied().filter(stale).map(|s| end(s, now)));
        self.spinning.retain(|_, s| !stale(s));
        let stuck = |cpu| self.times.in_kernel(cpu, now).or(self.times.silent(cpu, now)).is_some();
        let suspicious = !long.is_empty() || self.times.online().any(stuck);
        if suspicious {
            self.read(&mut walker.memory(ebpf), &sampled, long, now, from, out)?;
        } else {
            self.stalls.over(now, out);
        }
        if suspicious || self.always {
            self.calm = 0;
            // A CPU that has just died still ticked in the interval in which it did.
            let since = *self.suspicious_since.get_or_insert(now);
            let ticking = self.times.online().filter(|&cpu| self.times.ticks_since(cpu, since));
            self.sampler.watch(ebpf, ticking);
        } else {
            self.suspicious_since = None;
        }
        if !suspicious && !self.always && self.sampler.is_on() {
            self.calm += 1;
            if self.calm >= CALM_ROUNDS {
                self.sampler.stop(clock::monotonic());
            }
        }
        Ok(())
    }

    /// Whether a CPU looks stuck, or did until lately, so that another look is worth it.
    #[must_use]
    pub fn looks_stuck(&self) -> bool {
        self.times.online().any(|cpu| self.times.looks_stuck(cpu))
    }

    /// Whether timers are open that have to be taken off.
    #[must_use]
    pub fn is_sampling(&self) -> bool {
        self.sampler.is_on()
    }

    /// Hands over the timers, so that who takes them off can leave those of CPUs that do not tick.
    pub fn leave(&mut self, links: &mut Links) {
        self.sampler.leave(links);
    }

    /// Takes newer symbols: tracing adds some.
    pub fn renew(&mut self, symbols: Arc<Symbols>) {
        self.symbols = Some(symbols);
    }

    /// The samples that are news.
    fn samples(&mut self) -> Vec<Sampled> {
        let mut sampled = Vec::new();
        for cpu in self.times.online() {
            let Some(sample) = self.sampler.newest(cpu) else {
                continue;
            };
            let looked = self.looked.entry(cpu).or_default();
            if *looked == sample.count {
                continue;
            }
            *looked = sample.count;
            let frames = standstill::frames(&sample);
            let symbols = self.symbols.as_deref();
            let still = Timestamp(sample.time).since(standstill::still_since(&sample));
            let stands = sample.streak >= STREAK && still >= STILL;
            sampled.push(Sampled {
                cpu,
                spin: symbols.and_then(|symbols| standstill::spin(cpu, &sample, &frames, symbols, self.locks)),
                asks: stands && symbols.is_some_and(|symbols| standstill::waits_for_answer(&frames, symbols)),
                sample,
                frames,
            });
        }
        sampled
    }
}
