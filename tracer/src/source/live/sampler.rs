//! The CPU sampler: a timer on each CPU that runs a program which notes what the CPU does.
//!
//! Opening or closing such a timer asks the CPU itself, by an interrupt, and waits for the answer with preemption off
//! (KERNEL: `cpu_function_call`, kernel/events/core.c, 5.10 to 6.18). A CPU that takes no interrupts would take ours with it,
//! so only CPUs whose clock was seen to tick are asked, and a timer of a CPU that has stopped is left alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::PerfEvent;
use aya::programs::perf_event::{PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent};
use tracer_common::sample::CpuSample;

use crate::bpf::leave::Links;
use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::ids::{CpuId, Nanos, Timestamp};

const PROGRAM: &str = "cpu_sample";
/// Time between two samples of a CPU, ns: rare enough to cost nothing that matters, often enough for a streak in a second.
const PERIOD: u64 = 10_000_000;
/// A CPU that has given a sample this lately takes interrupts.
const FRESH: Nanos = Nanos::from_millis(100);
/// 64-bit word of a [`CpuSample`] that tells whether it is whole.
const SEQ_WORD: usize = 0;

/// The timers and what they see.
pub struct Sampler {
    samples: SharedArray<CpuSample>,
    timers: BTreeMap<CpuId, PerfEventLinkId>,
    refused: bool,
}

impl Sampler {
    /// Takes the map and loads the program; nothing is sampled yet.
    ///
    /// # Errors
    /// When the map is missing or the program is refused.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes) -> Result<Self> {
        let samples = ebpf.take_map("SAMPLES").context("the BPF object has no map SAMPLES")?;
        program(ebpf)?.load().context("loading the CPU sampler")?;
        Ok(Self {
            samples: SharedArray::new(samples, "SAMPLES", sizes.cpus as usize)?,
            timers: BTreeMap::new(),
            refused: false,
        })
    }

    /// Whether any CPU is sampled.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Samples these CPUs, too. All of them must be ticking.
    pub fn watch(&mut self, ebpf: &mut Ebpf, cpus: impl Iterator<Item = CpuId>) {
        for cpu in cpus {
            if self.refused || self.timers.contains_key(&cpu) {
                continue;
            }
            match open(ebpf, cpu) {
                Ok(timer) => {
                    self.timers.insert(cpu, timer);
                }
                Err(error) => {
                    self.refused = true;
                    eprintln!("holdup: CPUs cannot be sampled: {error:#}");
                }
            }
        }
    }

    /// Stops sampling the CPUs that still give samples.
    pub fn stop(&mut self, ebpf: &mut Ebpf, now: Timestamp) {
        let mut left = BTreeMap::new();
        for (cpu, timer) in std::mem::take(&mut self.timers) {
            let fresh = |sample: CpuSample| now.since(Timestamp(sample.time)) < FRESH;
            if !self.newest(cpu).is_some_and(fresh) {
                left.insert(cpu, timer);
            } else if let Ok(program) = program(ebpf) {
                // A timer that is gone already is what we want.
                let _ = program.detach(timer);
            }
        }
        self.timers = left;
    }

    /// Hands over the timers that are still there.
    pub fn leave(&mut self, ebpf: &mut Ebpf, links: &mut Links) {
        for (cpu, timer) in std::mem::take(&mut self.timers) {
            let Ok(program) = program(ebpf) else { continue };
            if let Ok(link) = program.take_link(timer)
                && let Ok(link) = link.try_into()
            {
                links.keep(&format!("{PROGRAM}-{cpu}"), link);
            }
        }
    }

    /// The newest whole sample of a CPU.
    #[must_use]
    pub fn newest(&self, cpu: CpuId) -> Option<CpuSample> {
        let cpu = cpu.0 as usize;
        let before = self.samples.word(cpu, SEQ_WORD)?;
        let sample = self.samples.get(cpu)?;
        let after = self.samples.word(cpu, SEQ_WORD)?;
        (before != 0 && before == after && sample.count == before).then_some(sample)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut PerfEvent> {
    Ok(ebpf
        .program_mut(PROGRAM)
        .with_context(|| format!("the BPF object has no program {PROGRAM}"))?
        .try_into()?)
}

fn open(ebpf: &mut Ebpf, cpu: CpuId) -> Result<PerfEventLinkId> {
    program(ebpf)?
        .attach(
            PerfEventConfig::Software(SoftwareEvent::CpuClock),
            PerfEventScope::AllProcessesOneCpu { cpu: cpu.0 },
            SamplePolicy::Period(PERIOD),
            false,
        )
        .with_context(|| format!("opening the clock of CPU {cpu}"))
}

const _: () = assert!(std::mem::offset_of!(CpuSample, seq) == SEQ_WORD * 8);
