//! The CPU sampler: a timer on each CPU that runs a program which notes what the CPU does.
//!
//! Opening or closing such a timer asks the CPU itself, by an interrupt, and waits for the answer with preemption off
//! (KERNEL: `cpu_function_call`, kernel/events/core.c, 5.10 to 6.18). A CPU that takes no interrupts would take ours with it,
//! so only CPUs whose clock was seen to tick are asked, and a timer of a CPU that has stopped is left alone.
//!
//! An armed run has a slow sample of each CPU from the start: by the cycle counter where the machine has one, whose interrupt comes
//! also where all others are off.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::PerfEvent;
use aya::programs::perf_event::{HardwareEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use tracer_common::sample::CpuSample;

use crate::bpf::attach::Attached;
use crate::bpf::leave::{Asks, Attachment, Home, Link, Links};
use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::ids::{CpuId, Nanos, Timestamp};

pub const PROGRAM: &str = "cpu_sample";
/// Time between two samples of a CPU, ns: rare enough to cost nothing that matters, often enough for a streak in a second.
const PERIOD: u64 = 10_000_000;
/// The same while nothing looks wrong.
const STANDBY_PERIOD: u64 = 1_000_000_000;
/// Cycles between two samples of a busy CPU while nothing looks wrong: a fraction of a second; an idle CPU counts none.
const STANDBY_CYCLES: u64 = 1_000_000_000;
/// A CPU that has given a sample this lately takes interrupts.
const FRESH: Nanos = Nanos::from_millis(100);
/// 64-bit word of a [`CpuSample`] that tells whether it is whole.
const SEQ_WORD: usize = 0;

/// The timers and what they see.
pub struct Sampler {
    samples: SharedArray<CpuSample>,
    timers: BTreeMap<CpuId, Link>,
    home: Option<Arc<Home>>,
    refused: bool,
}

impl Sampler {
    /// Takes the map and loads the program; nothing is sampled yet. `home`: for timers that must not end with the process.
    ///
    /// # Errors
    /// When the map is missing or the program is refused.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes, home: Option<Arc<Home>>) -> Result<Self> {
        let samples = ebpf.take_map("SAMPLES").context("the BPF object has no map SAMPLES")?;
        program(ebpf)?.load().context("loading the CPU sampler")?;
        Ok(Self {
            samples: SharedArray::new(samples, "SAMPLES", sizes.cpus as usize)?,
            timers: BTreeMap::new(),
            home,
            refused: false,
        })
    }

    /// Samples these CPUs rarely and for good. All of them must be ticking. Tells what became of it.
    pub fn stand_by(&self, ebpf: &mut Ebpf, cpus: impl Iterator<Item = CpuId>, links: &mut Links) -> Vec<Attached> {
        let mut report = Vec::new();
        let mut kinds = vec![Clock::Cycles, Clock::Timer];
        for cpu in cpus {
            while let Some(&clock) = kinds.first() {
                let attached = open(ebpf, cpu, clock)
                    .and_then(|timer| links.keep(&format!("{PROGRAM}-slow-{cpu}"), timer, Asks::Cpu(cpu)));
                let error = attached.err().map(|error| format!("{error:#}"));
                let works = error.is_none();
                let told = report.iter().any(|a: &Attached| a.target == clock.name());
                if !told || !works {
                    report.push(Attached {
                        program: PROGRAM,
                        target: clock.name().into(),
                        error,
                    });
                }
                if works {
                    break;
                }
                // What one CPU lacks is not tried on the next.
                kinds.remove(0);
            }
        }
        report
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
            let timer = open(ebpf, cpu, Clock::FastTimer)
                .and_then(|timer| Link::new(format!("{PROGRAM}-{cpu}"), timer, self.home.as_deref()));
            match timer {
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
    pub fn stop(&mut self, now: Timestamp) {
        let mut left = BTreeMap::new();
        for (cpu, timer) in std::mem::take(&mut self.timers) {
            let fresh = |sample: CpuSample| now.since(Timestamp(sample.time)) < FRESH;
            if self.newest(cpu).is_some_and(fresh) {
                timer.take_off();
            } else {
                left.insert(cpu, timer);
            }
        }
        self.timers = left;
    }

    /// Hands over the timers that are still there.
    pub fn leave(&mut self, links: &mut Links) {
        for (cpu, timer) in std::mem::take(&mut self.timers) {
            links.add(timer, Asks::Cpu(cpu));
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

/// What makes a CPU take samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// A timer, while something looks wrong.
    FastTimer,
    /// A timer.
    Timer,
    /// The counter of cycles. Its interrupt is an NMI on x86 and, where the machine has such, a pseudo-NMI on arm64.
    Cycles,
}

impl Clock {
    fn name(self) -> &'static str {
        match self {
            Self::FastTimer => "a fast timer of each CPU",
            Self::Timer => "a timer of each CPU",
            Self::Cycles => "the cycle counter of each CPU",
        }
    }

    fn event(self) -> (PerfEventConfig, u64) {
        match self {
            Self::FastTimer => (PerfEventConfig::Software(SoftwareEvent::CpuClock), PERIOD),
            Self::Timer => (PerfEventConfig::Software(SoftwareEvent::CpuClock), STANDBY_PERIOD),
            Self::Cycles => (PerfEventConfig::Hardware(HardwareEvent::CpuCycles), STANDBY_CYCLES),
        }
    }
}

fn open(ebpf: &mut Ebpf, cpu: CpuId, clock: Clock) -> Result<Attachment> {
    let (config, period) = clock.event();
    let scope = PerfEventScope::AllProcessesOneCpu { cpu: cpu.0 };
    let program = program(ebpf)?;
    let timer = program
        .attach(config, scope, SamplePolicy::Period(period), false)
        .with_context(|| format!("opening {} for CPU {cpu}", clock.name()))?;
    Ok(Attachment::Timer(program.take_link(timer)?))
}

const _: () = assert!(std::mem::offset_of!(CpuSample, seq) == SEQ_WORD * 8);
