//! Spinning waits: those that ended, from the per-CPU logs, and those that last, from the per-CPU state.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use aya::Ebpf;
use tracer_common::kind::{context, seen_by};
use tracer_common::table::{SpinCpu, SpinLogEntry, SpinSlot};

use super::cpu_log::{CpuLog, Cursor};
use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::bpf::stats::Losses;
use crate::event::{
    Actor, Body, Context as CpuContext, Event, Evidence, LockKind, LossCause, Mode, Owner, Phase, Queued, TaskRef,
    TaskSample, TaskState, WaitEnd, WaitSample,
};
use crate::ids::{CpuId, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use crate::wire;

/// Reader of the spin tables.
#[derive(Debug)]
pub struct Spins {
    cpus: SharedArray<SpinCpu>,
    log: SharedArray<SpinLogEntry>,
    per_cpu: usize,
    /// By CPU.
    cursors: Vec<Cursor>,
    age: Nanos,
    /// For each old spin at the last look: its begin, and the switch count of the thread on its CPU.
    checked: HashMap<(usize, usize), (u64, Option<u64>)>,
}

/// A spin that began long ago and has not been seen to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongSpin {
    /// Where.
    pub cpu: CpuId,
    /// In process context, not in an interrupt.
    pub in_task: bool,
    /// On what.
    pub lock: LockAddr,
    /// Its kind.
    pub kind: LockKind,
    /// How it is wanted.
    pub mode: Mode,
    /// Since when.
    pub since: Timestamp,
}

/// 64-bit words of a [`SpinSlot`], and place of the log counter in a [`SpinCpu`].
const SLOT_WORDS: usize = size_of::<SpinSlot>() / 8;
const LOGGED_WORD: usize = std::mem::offset_of!(SpinCpu, logged) / 8;

fn sampled(event: &Event) -> Option<(Tid, TaskSample)> {
    match &event.body {
        Body::Task(sample) => Some((sample.task.key.tid, sample.clone())),
        _ => None,
    }
}

impl Spins {
    /// Takes the maps.
    ///
    /// # Errors
    /// When a map is missing.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes, age: Nanos) -> Result<Self> {
        let cpus = ebpf.take_map("SPINS").context("the BPF object has no map SPINS")?;
        let log = ebpf
            .take_map("SPIN_LOG")
            .context("the BPF object has no map SPIN_LOG")?;
        Ok(Self {
            cpus: SharedArray::new(cpus, "SPINS", sizes.cpus as usize)?,
            log: SharedArray::new(log, "SPIN_LOG", sizes.spin_log_entries() as usize)?,
            per_cpu: sizes.spin_log as usize,
            cursors: (0..sizes.cpus).map(|_| Cursor::new(sizes.spin_log as usize)).collect(),
            age,
            checked: HashMap::new(),
        })
    }

    /// Threads on whose CPU somebody seems to have been spinning for long.
    #[must_use]
    pub fn suspects(&self, now: Timestamp) -> BTreeSet<Tid> {
        self.old(now)
            .map(|(place, slot)| (place, Tid(slot.tid)))
            .filter(|(_, tid)| tid.0 != 0)
            .map(|(_, tid)| tid)
            .collect()
    }

    /// Locks that CPUs have been spinning on for long, as their probes say, with their CPU and context.
    #[must_use]
    pub fn long(&self, now: Timestamp) -> Vec<LongSpin> {
        self.old(now)
            .map(|((cpu, index), slot)| {
                let (kind, mode) = wire::table_codes(slot.kind, slot.mode);
                LongSpin {
                    cpu: CpuId(u32::try_from(cpu).unwrap_or(u32::MAX)),
                    in_task: matches!(u8::try_from(index), Ok(context::TASK | context::UNKNOWN)),
                    lock: LockAddr(slot.lock),
                    kind,
                    mode,
                    since: Timestamp(slot.since),
                }
            })
            .collect()
    }

    /// Appends what happened since the last call. `out` holds, from index `from` on, the newest samples of the suspects.
    pub fn read(&mut self, from: usize, losses: &mut Losses, now: Timestamp, out: &mut Vec<Event>) {
        for (cpu, cursor) in self.cursors.iter_mut().enumerate() {
            let log = CpuLog {
                cpus: &self.cpus,
                logged_word: LOGGED_WORD,
                log: &self.log,
                per_cpu: self.per_cpu,
                cpu,
            };
            let overwritten = cursor.read(&log, |entry| {
                logged_events(cpu, &entry, out);
                true
            });
            losses.add(LossCause::Overrun, overwritten);
        }
        let samples: HashMap<Tid, TaskSample> = out.iter().skip(from).filter_map(sampled).collect();
        let mut seen = HashMap::new();
        for ((cpu, index), slot) in self.old(now).collect::<Vec<_>>() {
            let Some(sample) = samples.get(&Tid(slot.tid)) else {
                continue;
            };
            let here = sample.state == TaskState::Running && sample.cpu.is_some_and(|on| on.0 as usize == cpu);
            let state = (slot.since, sample.switches);
            match self.checked.get(&(cpu, index)) {
                // A spinning CPU does not switch threads: equal twice, it is still in the same wait.
                Some(before) if here && *before == state => out.push(spinning(cpu, index, &slot, sample, now)),
                Some((since, _)) if *since == slot.since => {
                    // It went on since: the kernel skipped our program at the end of the wait.
                    self.cpus.set_word(cpu, index * SLOT_WORDS, 0);
                    losses.add(LossCause::MissedEnd, 1);
                    continue;
                }
                _ => {}
            }
            seen.insert((cpu, index), state);
        }
        self.checked = seen;
    }

    /// Spins that began long ago and have not been seen to end: CPU, slot, and what stands in it.
    fn old(&self, now: Timestamp) -> impl Iterator<Item = ((usize, usize), SpinSlot)> {
        (0..self.cpus.len())
            .filter_map(|cpu| Some((cpu, self.cpus.get(cpu)?)))
            .flat_map(move |(cpu, state)| {
                state.slots.into_iter().enumerate().filter_map(move |(index, slot)| {
                    let old = slot.lock != 0
                        && slot.seen_by == seen_by::TRACEPOINT
                        && now.since(Timestamp(slot.since)) >= self.age;
                    old.then_some(((cpu, index), slot))
                })
            })
    }
}

pub(super) fn actor(cpu: usize, code: usize, key: TaskKey) -> Actor {
    let cpu = CpuId(u32::try_from(cpu).unwrap_or(u32::MAX));
    let interrupt = |context| Actor::Interrupt {
        cpu,
        context,
        interrupted: Some(key),
    };
    match u8::try_from(code).unwrap_or(context::UNKNOWN) {
        context::SOFTIRQ => interrupt(CpuContext::Softirq),
        context::HARDIRQ => interrupt(CpuContext::Hardirq),
        context::NMI => interrupt(CpuContext::Nmi),
        // Where the context cannot be read, the thread is what we know.
        _ => Actor::Task(key),
    }
}

fn evidence(code: u8) -> Evidence {
    if code == seen_by::KPROBE {
        Evidence::Kprobe
    } else {
        Evidence::Tracepoint
    }
}

fn spinning(cpu: usize, index: usize, slot: &SpinSlot, sample: &TaskSample, now: Timestamp) -> Event {
    let (kind, mode) = wire::table_codes(slot.kind, slot.mode);
    Event {
        time: now,
        body: Body::Wait(WaitSample {
            waiter: actor(cpu, index, sample.task.key),
            task: Some(sample.task.clone()),
            lock: LockAddr(slot.lock),
            kind,
            mode,
            phase: Phase::Spinning,
            since: Some(Timestamp(slot.since)),
            // The word at the begin says nothing of now; the board reads it again.
            owner_word: 0,
            owner: Owner::NotRecorded,
            queued: Queued::Unknown,
            cpu: Some(CpuId(u32::try_from(cpu).unwrap_or(u32::MAX))),
            stack: StackId(0),
            evidence: evidence(slot.seen_by),
        }),
    }
}

fn logged_events(cpu: usize, entry: &SpinLogEntry, out: &mut Vec<Event>) {
    let (kind, mode) = wire::table_codes(entry.kind, entry.mode);
    let key = TaskKey {
        tid: Tid(entry.tid),
        start: Timestamp(0),
    };
    let waiter = actor(cpu, entry.context.into(), key);
    let (since, until) = (Timestamp(entry.since), Timestamp(entry.until));
    out.push(Event {
        time: since,
        body: Body::Wait(WaitSample {
            waiter,
            task: Some(TaskRef {
                key,
                tgid: Tgid(entry.tgid),
                comm: wire::comm(&entry.comm),
            }),
            lock: LockAddr(entry.lock),
            kind,
            mode,
            phase: Phase::Spinning,
            since: Some(since),
            owner_word: entry.word,
            owner: Owner::NotRecorded,
            queued: Queued::Unknown,
            cpu: Some(CpuId(u32::try_from(cpu).unwrap_or(u32::MAX))),
            stack: StackId(0),
            evidence: evidence(entry.seen_by),
        }),
    });
    // A kprobe sees no end; the next thing this thread does shows that it went on.
    out.push(Event {
        time: until,
        body: Body::WaitEnd(WaitEnd {
            waiter,
            lock: LockAddr(entry.lock),
            result: 0,
            waited: until.since(since),
        }),
    });
}
