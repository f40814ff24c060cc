//! The CPU board: which CPUs look stuck, what they do, and who can hold what they spin on.
//!
//! `/proc/stat` is read in every round and costs nothing that matters. Only while a CPU looks stuck (or when asked for) is the
//! sampler on, for all CPUs that tick, and kernel memory is read for those that do not: who holds a spinlock is found by looking
//! at everybody who does not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use aya::Ebpf;
use tracer_common::sample::CpuSample;

use super::percpu::{self, Places, Running};
use super::queue_search;
use super::sampler::Sampler;
use super::scans::Scans;
use super::spin::LongSpin;
use super::standstill::{self, Spin};
use crate::bpf::leave::Links;
use crate::bpf::load::Sizes;
use crate::event::{
    Actor, Body, Context, Dependency, DependencySample, Event, Evidence, HolderCandidate, LockKind, LockSample, Mode,
    Owner, Phase, Queued, StackFrames, WaitEnd, WaitSample,
};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId, Timestamp};
use crate::kernel::clock;
use crate::kernel::cpu_times::{CpuTimes, SHORTEST};
use crate::kernel::facts::KernelFacts;
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::Symbols;
use crate::kernel::sysroot::Sysroot;
use crate::{spin_word, wire};

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
/// An inter-processor interrupt is answered in microseconds; after this long it is told.
const UNANSWERED: Nanos = Nanos::from_millis(400);
/// What was not seen to spin for this long does so no more.
const STALE: Nanos = Nanos::from_secs(2);
/// Reads of a lock's word in one round: a lock that is free for a moment is not free every time.
const WORD_READS: usize = 4;
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
    cpus: u32,
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
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes, facts: &KernelFacts, always: bool) -> Result<Self> {
        let root = Sysroot::host();
        let mut times = CpuTimes::default();
        times.read(&root, clock::monotonic());
        Ok(Self {
            sampler: Sampler::new(ebpf, sizes)?,
            times,
            root,
            symbols: facts.files.symbols().cloned(),
            places: Places::of(facts),
            cpus: sizes.cpus,
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

    /// A CPU that takes no timer interrupt: whatever asks it for something waits for ever.
    #[must_use]
    pub fn silent(&self, now: Timestamp) -> Option<CpuId> {
        self.times.online().find(|&cpu| self.times.silent(cpu, now).is_some())
    }

    /// One round. `long`: what CPUs have been spinning on for long, by their own probes.
    ///
    /// # Errors
    /// When kernel memory cannot be read any more.
    pub fn poll(
        &mut self,
        ebpf: &mut Ebpf,
        scans: &Scans,
        long: &[LongSpin],
        now: Timestamp,
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
            self.read(&mut scans.memory(ebpf), &sampled, long, now, out)?;
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
                self.stop(ebpf);
            }
        }
        Ok(())
    }

    /// Gives up the timers of CPUs that do not tick, so that nobody waits for those CPUs.
    pub fn leave(&mut self, ebpf: &mut Ebpf, links: &mut Links) {
        self.stop(ebpf);
        self.sampler.leave(ebpf, links);
    }

    /// Switches the sampler off.
    fn stop(&mut self, ebpf: &mut Ebpf) {
        self.sampler.stop(ebpf, clock::monotonic());
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
                spin: symbols.and_then(|symbols| standstill::spin(&sample, &frames, symbols, self.cpus)),
                asks: stands && symbols.is_some_and(|symbols| standstill::waits_for_answer(&frames, symbols)),
                sample,
                frames,
            });
        }
        sampled
    }

    fn look(&mut self, sampled: &[Sampled], now: Timestamp, out: &mut Vec<Event>) {
        // A CPU that spins has counted its own attempt, if attempts are counted at all.
        self.counted |= sampled
            .iter()
            .any(|s| s.spin.is_some() && standstill::spinlocks(&s.sample).is_some_and(|n| n > 0));
        for s in sampled {
            if standstill::is_free(&s.sample, self.counted) {
                self.free.insert(s.cpu, Timestamp(s.sample.time));
            }
        }
        for s in sampled {
            let still = Timestamp(s.sample.time).since(standstill::still_since(&s.sample));
            if let Some(spin) = &s.spin
                && s.sample.streak >= STREAK
                && still >= STILL
            {
                self.spins(s, spin, out);
            }
        }
        self.ended(now, sampled, out);
    }

    /// Who runs on a sampled CPU; `None` for the idle thread.
    fn who(&self, s: &Sampled) -> Option<Actor> {
        let context = standstill::context(&s.sample, &s.frames, self.symbols.as_deref());
        // The idle thread is no thread that could be named or held to account.
        let thread = (s.sample.task.tid != 0).then(|| wire::task_ref(&s.sample.task).key);
        match (context, thread) {
            (Context::Task, thread) => thread.map(Actor::Task),
            (context, interrupted) => Some(Actor::Interrupt {
                cpu: s.cpu,
                context,
                interrupted,
            }),
        }
    }

    /// A CPU has stood still in a lock's slowpath for long.
    fn spins(&mut self, s: &Sampled, spin: &Spin, out: &mut Vec<Event>) {
        let time = Timestamp(s.sample.time);
        let Some(who) = self.who(s) else { return };
        let stack = self.stack(&s.frames, time, out);
        // The stack of an interrupted thread begins below the interrupt: it goes with the interrupt's wait.
        out.extend(wire::task_event(&s.sample.task, StackId(0), time));
        let since = standstill::still_since(&s.sample);
        // It goes on only if the CPU has stood still since it was last looked at.
        let known = self
            .spinning
            .get(&s.cpu)
            .filter(|k| k.who == who && k.lock == spin.lock && since <= k.seen)
            .copied();
        if known.is_none() {
            out.extend(self.spinning.remove(&s.cpu).map(|over| end(over, since)));
        }
        let since = known.map_or(since, |k| k.since);
        let wait = |time| Event {
            time,
            body: Body::Wait(WaitSample {
                waiter: who,
                task: (s.sample.task.tid != 0).then(|| wire::task_ref(&s.sample.task)),
                lock: spin.lock,
                kind: spin.kind,
                mode: spin.mode,
                phase: Phase::Spinning,
                since: None,
                owner_word: spin.word.into(),
                owner: spin.owner.clone(),
                queued: Queued::Unknown,
                cpu: Some(s.cpu),
                stack,
                evidence: Evidence::CpuSample,
            }),
        };
        if known.is_none() {
            out.push(wait(since));
        }
        out.push(wait(time));
        self.spinning.insert(
            s.cpu,
            Spinning {
                who,
                lock: spin.lock,
                kind: spin.kind,
                since,
                seen: time,
            },
        );
    }

    /// Says of CPUs which do something else by now that their wait is over.
    fn ended(&mut self, now: Timestamp, sampled: &[Sampled], out: &mut Vec<Event>) {
        for s in sampled {
            let Some(&spinning) = self.spinning.get(&s.cpu) else {
                continue;
            };
            // The wait of this round's sample was reported just now.
            if spinning.seen >= Timestamp(s.sample.time) {
                continue;
            }
            self.spinning.remove(&s.cpu);
            out.push(end(spinning, now));
        }
    }

    /// What kernel memory adds: the words of the locks, requests between CPUs, and who is left as a holder.
    fn read(
        &mut self,
        memory: &mut dyn Memory,
        sampled: &[Sampled],
        long: &[LongSpin],
        now: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let online: Vec<CpuId> = self.times.online().collect();
        let running = match &mut self.places {
            Some(places) => places.read(memory, &online)?,
            None => Vec::new(),
        };
        self.queued(memory, &running, long, now, out)?;
        let mut locks: BTreeMap<LockAddr, (LockKind, Timestamp)> = BTreeMap::new();
        let spins = self.spinning.values().map(|s| (s.lock, s.kind, s.since));
        for (lock, kind, since) in spins.chain(long.iter().map(|l| (l.lock, l.kind, l.since))) {
            let known = locks.entry(lock).or_insert((kind, since));
            known.1 = known.1.max(since);
        }
        self.answers(&running, sampled, long, now, out);
        for (lock, (kind, since)) in locks {
            let Some((word, owner)) = self.word(memory, lock, kind)? else {
                continue;
            };
            let held = owner != Owner::Nobody;
            out.push(Event {
                time: now,
                body: Body::Lock(LockSample {
                    lock,
                    kind,
                    owner_word: word.into(),
                    owner,
                }),
            });
            if held {
                out.extend(self.holder(lock, kind, since, &running, sampled, long, now));
            }
        }
        Ok(())
    }

    /// What CPUs that take no interrupts spin on, where no probe has told.
    fn queued(
        &mut self,
        memory: &mut dyn Memory,
        running: &[Running],
        long: &[LongSpin],
        now: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        for r in running {
            let told = long.iter().any(|l| l.cpu == r.cpu);
            let Some(since) = self.times.silent(r.cpu, now).filter(|_| !told) else {
                continue;
            };
            let (Some(task), Some(count)) = (&r.task, r.preempt_count) else {
                continue;
            };
            // Above the thread the stack is another one, and its thread's stack does not lead to the lock.
            if standstill::serves_interrupt(count) {
                continue;
            }
            let found = queue_search::queued_on(memory, r, self.symbols.as_deref(), self.cpus)?;
            let Some(lock) = found else { continue };
            self.counted |= count & SPINLOCKS > 0;
            let who = Actor::Task(task.key);
            out.push(Event {
                time: now,
                body: Body::Wait(WaitSample {
                    waiter: who,
                    task: Some(task.clone()),
                    lock,
                    kind: LockKind::Spinlock,
                    mode: Mode::Exclusive,
                    phase: Phase::Spinning,
                    since: None,
                    owner_word: 0,
                    owner: Owner::NotRecorded,
                    queued: Queued::Unknown,
                    cpu: Some(r.cpu),
                    stack: StackId(0),
                    evidence: Evidence::CpuSample,
                }),
            });
            let spinning = Spinning {
                who,
                lock,
                kind: LockKind::Spinlock,
                since,
                seen: now,
            };
            self.spinning.insert(r.cpu, spinning);
        }
        Ok(())
    }

    /// The word of a spinning lock; of several reads one that says "held", if there is one.
    fn word(&self, memory: &mut dyn Memory, lock: LockAddr, kind: LockKind) -> Result<Option<(u32, Owner)>> {
        let mut last = None;
        for _ in 0..WORD_READS {
            let Some(word) = memory.read(&[lock.0])?.first().copied().flatten() else {
                return Ok(None);
            };
            #[expect(clippy::cast_possible_truncation, reason = "the lock word is the lower half")]
            let word = word as u32;
            let owner = match kind {
                LockKind::Rwlock => spin_word::rwlock(word),
                _ => spin_word::spinlock(word, self.cpus).owner(),
            };
            let held = owner != Owner::Nobody;
            last = Some((word, owner));
            if held {
                break;
            }
        }
        Ok(last)
    }

    /// CPUs that wait for another one to answer.
    fn answers(
        &mut self,
        running: &[Running],
        sampled: &[Sampled],
        long: &[LongSpin],
        now: Timestamp,
        out: &mut Vec<Event>,
    ) {
        let requests = || {
            running
                .iter()
                .flat_map(|r| r.requests.iter().map(move |&node| (r, node)))
        };
        let current: HashSet<(CpuId, u64)> = requests().map(|(r, node)| (r.cpu, node)).collect();
        self.unanswered.retain(|key, _| current.contains(key));
        for (target, node) in requests() {
            let since = *self.unanswered.entry((target.cpu, node)).or_insert(now);
            if now.since(since) < UNANSWERED {
                continue;
            }
            let area = self.places.as_ref().and_then(|p| p.area(target.cpu)).unwrap_or(0);
            let sender = percpu::sender(node, area, running).map(|sender| sender.cpu);
            let Some(asking) = sampled.iter().find(|s| Some(s.cpu) == sender && s.asks) else {
                continue;
            };
            let Some(waiter) = self.who(asking) else { continue };
            let time = Timestamp(asking.sample.time);
            let stack = self.stack(&asking.frames, time, out);
            out.extend(wire::task_event(&asking.sample.task, stack, time));
            let on = self.stands_on(target, long);
            out.push(Event {
                time: now,
                body: Body::Dependency(DependencySample {
                    waiter,
                    task: (asking.sample.task.tid != 0).then(|| wire::task_ref(&asking.sample.task)),
                    dependency: Dependency::Ipi { cpu: target.cpu },
                    on,
                    on_task: target.task.clone(),
                    since: None,
                    stack,
                    evidence: Evidence::CpuSample,
                }),
            });
        }
    }

    /// Who keeps a CPU: the interrupt that spins there, or else its thread.
    fn stands_on(&self, on: &Running, long: &[LongSpin]) -> Option<Actor> {
        if let Some(spinning) = self.spinning.get(&on.cpu) {
            return Some(spinning.who);
        }
        let in_interrupt = long.iter().any(|l| l.cpu == on.cpu && !l.in_task);
        on.task
            .as_ref()
            .filter(|_| !in_interrupt)
            .map(|task| Actor::Task(task.key))
    }

    /// The only CPU that can hold a lock, if there is only one. Whoever holds a spinlock keeps its CPU. So a CPU that could have
    /// switched to another thread since the wait began holds none; and one that stands still holds no more than its preempt count
    /// says, less the lock that it waits for itself, and less the count with which it waits for another CPU's answer.
    #[expect(clippy::too_many_arguments, reason = "everything that is known of a round")]
    fn holder(
        &self,
        lock: LockAddr,
        kind: LockKind,
        since: Timestamp,
        running: &[Running],
        sampled: &[Sampled],
        long: &[LongSpin],
        now: Timestamp,
    ) -> Option<Event> {
        let mut suspects = running.iter().filter(|r| {
            if self.free.get(&r.cpu).is_some_and(|&free| free > since) {
                return false;
            }
            let spins = self.spinning.contains_key(&r.cpu) || long.iter().any(|l| l.cpu == r.cpu);
            let asks = sampled.iter().any(|s| s.cpu == r.cpu && s.asks);
            let own = u32::from(spins) + u32::from(asks);
            let spinlocks = r.preempt_count.map(|count| count & SPINLOCKS);
            // Of a CPU that does not stand still the count is that of a moment.
            !(own > 0 && self.counted && spinlocks.is_some_and(|n| n <= own))
        });
        let (only, None) = (suspects.next()?, suspects.next()) else {
            return None;
        };
        let task = only.task.clone()?;
        let holder = match self.spinning.get(&only.cpu) {
            Some(s) if s.lock != lock => s.who,
            _ => Actor::Task(task.key),
        };
        Some(Event {
            time: now,
            body: Body::Holder(HolderCandidate {
                lock,
                kind,
                mode: Mode::Exclusive,
                holder,
                task: Some(task),
                rank: 0,
                evidence: Evidence::CpuSample,
            }),
        })
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
