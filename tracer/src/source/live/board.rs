//! The CPU board: which CPUs look stuck, what they do, and who can hold what they spin on.
//!
//! `/proc/stat` is read in every round and costs nothing that matters. Only while a CPU looks stuck (or when asked for) is the
//! sampler on, for all CPUs: who holds a spinlock is found by looking at everybody who does not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use aya::Ebpf;
use tracer_common::sample::CpuSample;

use super::sampler::Sampler;
use super::standstill::{self, Spin};
use crate::bpf::load::Sizes;
use crate::event::{
    Actor, Body, Context, Event, Evidence, HolderCandidate, Mode, Phase, Queued, StackFrames, TaskRef, WaitEnd,
    WaitSample,
};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId, Timestamp};
use crate::kernel::clock;
use crate::kernel::cpu_times::{CpuTimes, SHORTEST};
use crate::kernel::symbols::Symbols;
use crate::kernel::sysroot::Sysroot;
use crate::wire;

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

/// What a CPU was last seen to spin on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spinning {
    who: Actor,
    lock: LockAddr,
    since: Timestamp,
    seen: Timestamp,
}

/// State of the board.
pub struct Board {
    sampler: Sampler,
    times: CpuTimes,
    root: Sysroot,
    symbols: Option<Arc<Symbols>>,
    cpus: u32,
    always: bool,
    calm: u32,
    /// Number of the newest sample looked at.
    looked: BTreeMap<CpuId, u64>,
    /// When a CPU was last seen to hold no spinlock.
    free: BTreeMap<CpuId, Timestamp>,
    spinning: BTreeMap<CpuId, Spinning>,
    /// Spinlocks are counted in this kernel's preempt counts.
    counted: bool,
    stacks: HashSet<StackId>,
}

impl Board {
    /// Loads the sampler; it stays off until something looks wrong, unless `always`.
    ///
    /// # Errors
    /// When the sampler is refused.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes, symbols: Option<Arc<Symbols>>, always: bool) -> Result<Self> {
        let root = Sysroot::host();
        let mut times = CpuTimes::default();
        times.read(&root, clock::monotonic());
        Ok(Self {
            sampler: Sampler::new(ebpf, sizes)?,
            times,
            root,
            symbols,
            cpus: sizes.cpus,
            always,
            calm: 0,
            looked: BTreeMap::new(),
            free: BTreeMap::new(),
            spinning: BTreeMap::new(),
            counted: false,
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
            let ticking: Vec<CpuId> = suspects.into_iter().filter(|&cpu| self.times.ticks(cpu)).collect();
            self.sampler.watch(ebpf, ticking.into_iter());
            std::thread::sleep(SHORTEST.into());
        }
    }

    /// One round. `long_spin`: some CPU has spun for long, by its own probe.
    pub fn poll(&mut self, ebpf: &mut Ebpf, long_spin: bool, now: Timestamp, out: &mut Vec<Event>) {
        self.times.read(&self.root, now);
        if self.sampler.is_on() {
            self.look(now, out);
        }
        let stuck = |cpu| self.times.in_kernel(cpu, now).is_some();
        if self.always || long_spin || self.times.online().any(stuck) {
            self.calm = 0;
            let ticking: Vec<CpuId> = self.times.online().filter(|&cpu| self.times.ticks(cpu)).collect();
            self.sampler.watch(ebpf, ticking.into_iter());
        } else if self.sampler.is_on() {
            self.calm += 1;
            if self.calm >= CALM_ROUNDS {
                self.stop(ebpf);
            }
        }
    }

    /// Switches the sampler off.
    pub fn stop(&mut self, ebpf: &mut Ebpf) {
        let times = &self.times;
        self.sampler.stop(ebpf, |cpu| times.ticks(cpu));
    }

    fn look(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let mut samples = Vec::new();
        for cpu in self.times.online() {
            let Some(sample) = self.sampler.newest(cpu) else {
                continue;
            };
            let looked = self.looked.entry(cpu).or_default();
            if *looked != sample.count {
                *looked = sample.count;
                samples.push((cpu, sample));
            }
        }
        // A CPU that spins has counted its own attempt, if attempts are counted at all.
        let spins: Vec<(CpuId, CpuSample, Vec<KernelAddr>, Spin)> = samples
            .iter()
            .filter_map(|(cpu, sample)| {
                let frames = standstill::frames(sample);
                let spin = standstill::spin(sample, &frames, self.symbols.as_deref()?, self.cpus)?;
                Some((*cpu, *sample, frames, spin))
            })
            .collect();
        self.counted |= spins
            .iter()
            .any(|(_, sample, ..)| standstill::spinlocks(sample).is_some_and(|n| n > 0));
        for (cpu, sample) in &samples {
            if standstill::is_free(sample, self.counted) {
                self.free.insert(*cpu, Timestamp(sample.time));
            }
        }
        for (cpu, sample, frames, spin) in &spins {
            let still = Timestamp(sample.time).since(standstill::still_since(sample));
            if sample.streak >= STREAK && still >= STILL {
                self.spins(*cpu, sample, frames, spin, out);
            }
        }
        self.ended(now, &samples, out);
    }

    /// A CPU has stood still in a lock's slowpath for long.
    fn spins(&mut self, cpu: CpuId, sample: &CpuSample, frames: &[KernelAddr], spin: &Spin, out: &mut Vec<Event>) {
        let time = Timestamp(sample.time);
        let context = standstill::context(sample, frames, self.symbols.as_deref());
        // The idle thread is no thread that could be named or held to account.
        let thread = (sample.task.tid != 0).then(|| wire::task_ref(&sample.task));
        let who = match (context, &thread) {
            (Context::Task, Some(thread)) => Actor::Task(thread.key),
            (Context::Task, None) => return,
            (context, thread) => Actor::Interrupt {
                cpu,
                context,
                interrupted: thread.as_ref().map(|t| t.key),
            },
        };
        let stack = self.stack(frames, time, out);
        // The stack of an interrupted thread begins below the interrupt: it goes with the interrupt's wait.
        out.extend(wire::task_event(&sample.task, StackId(0), time));
        let since = standstill::still_since(sample);
        // It goes on only if the CPU has stood still since it was last looked at.
        let known = self
            .spinning
            .get(&cpu)
            .filter(|s| s.who == who && s.lock == spin.lock && since <= s.seen)
            .copied();
        if known.is_none() {
            out.extend(self.spinning.remove(&cpu).map(|over| end(over, since)));
        }
        let since = known.map_or(since, |s| s.since);
        let wait = |time| Event {
            time,
            body: Body::Wait(WaitSample {
                waiter: who,
                task: thread.clone(),
                lock: spin.lock,
                kind: spin.kind,
                mode: spin.mode,
                phase: Phase::Spinning,
                since: None,
                owner_word: spin.word.into(),
                owner: spin.owner.clone(),
                queued: Queued::Unknown,
                cpu: Some(cpu),
                stack,
                evidence: Evidence::CpuSample,
            }),
        };
        if known.is_none() {
            out.push(wait(since));
        }
        out.push(wait(time));
        self.spinning.insert(
            cpu,
            Spinning {
                who,
                lock: spin.lock,
                since,
                seen: time,
            },
        );
        if let (Actor::Interrupt { .. }, Some(thread)) = (who, thread) {
            self.interrupted(cpu, sample, spin, thread, since, out);
        }
    }

    /// The thread under a spinning interrupt holds the lock if nobody else can: whoever holds a spinlock keeps its CPU, so a CPU
    /// that could have switched to another thread since then holds none; and this CPU counts one more spinlock than the
    /// interrupt waits for.
    fn interrupted(
        &self,
        cpu: CpuId,
        sample: &CpuSample,
        spin: &Spin,
        thread: TaskRef,
        since: Timestamp,
        out: &mut Vec<Event>,
    ) {
        let others_free = self
            .times
            .online()
            .filter(|&other| other != cpu)
            .all(|other| self.free.get(&other).is_some_and(|&free| free > since));
        let one_more = standstill::spinlocks(sample).is_some_and(|n| n > 1);
        let held = spin.owner != crate::event::Owner::Nobody;
        if !(held && one_more && others_free) {
            return;
        }
        out.push(Event {
            time: Timestamp(sample.time),
            body: Body::Holder(HolderCandidate {
                lock: spin.lock,
                kind: spin.kind,
                mode: Mode::Exclusive,
                holder: Actor::Task(thread.key),
                task: Some(thread),
                rank: 0,
                evidence: Evidence::CpuSample,
            }),
        });
    }

    /// Says of CPUs which do something else by now that their wait is over.
    fn ended(&mut self, now: Timestamp, samples: &[(CpuId, CpuSample)], out: &mut Vec<Event>) {
        for (cpu, sample) in samples {
            let Some(&spinning) = self.spinning.get(cpu) else {
                continue;
            };
            // The wait of this round's sample was reported just now.
            if spinning.seen >= Timestamp(sample.time) {
                continue;
            }
            self.spinning.remove(cpu);
            out.push(end(spinning, now));
        }
    }

    fn stack(&mut self, frames: &[KernelAddr], time: Timestamp, out: &mut Vec<Event>) -> StackId {
        if frames.is_empty() {
            return StackId(0);
        }
        let id = wire::stack_id(frames);
        if self.stacks.insert(id) {
            out.push(Event {
                time,
                body: Body::Stack(StackFrames {
                    id,
                    frames: frames.into(),
                }),
            });
        }
        id
    }
}

fn end(over: Spinning, time: Timestamp) -> Event {
    Event {
        time,
        body: Body::WaitEnd(WaitEnd {
            waiter: over.who,
            lock: over.lock,
            result: 0,
            waited: time.since(over.since),
        }),
    }
}
