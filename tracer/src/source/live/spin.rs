//! Spinning waits: those that ended, from the per-CPU logs, and those that last, from the per-CPU state.

use anyhow::{Context, Result};
use aya::Ebpf;
use tracer_common::kind::{context, seen_by};
use tracer_common::table::{SpinCpu, SpinLogEntry, SpinSlot};

use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::bpf::stats::Losses;
use crate::event::{
    Actor, Body, Context as CpuContext, Event, Evidence, LossCause, Owner, Phase, Queued, TaskRef, WaitEnd, WaitSample,
};
use crate::ids::{CpuId, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use crate::wire;

/// Reader of the spin tables.
#[derive(Debug)]
pub struct Spins {
    cpus: SharedArray<SpinCpu>,
    log: SharedArray<SpinLogEntry>,
    per_cpu: usize,
    /// Next sequence number to read, by CPU.
    next: Vec<u64>,
    age: Nanos,
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
            next: vec![0; sizes.cpus as usize],
            age,
        })
    }

    /// Appends what happened since the last call.
    pub fn read(&mut self, losses: &mut Losses, now: Timestamp, out: &mut Vec<Event>) {
        for cpu in 0..self.cpus.len() {
            let Some(state) = self.cpus.get(cpu) else { continue };
            self.read_log(cpu, state.logged, losses, out);
            for (index, slot) in state.slots.iter().enumerate() {
                if slot.lock != 0 && slot.seen_by == seen_by::TRACEPOINT && now.since(Timestamp(slot.since)) >= self.age
                {
                    out.push(spinning(cpu, index, slot, now));
                }
            }
        }
    }

    fn read_log(&mut self, cpu: usize, logged: u64, losses: &mut Losses, out: &mut Vec<Event>) {
        let Some(next) = self.next.get_mut(cpu) else { return };
        let oldest = logged.saturating_sub(self.per_cpu as u64);
        if *next < oldest {
            losses.add(LossCause::Overrun, oldest - *next);
            *next = oldest;
        }
        while *next < logged {
            let index = cpu * self.per_cpu + usize::try_from(*next).unwrap_or(0) % self.per_cpu;
            *next += 1;
            // A writer sets the sequence number to 0 first and last to its own: equal before and after means a whole copy.
            let (Some(before), Some(entry), Some(after)) =
                (self.log.word(index, 0), self.log.get(index), self.log.word(index, 0))
            else {
                continue;
            };
            if before != *next || after != *next {
                losses.add(LossCause::Overrun, 1);
                continue;
            }
            logged_events(cpu, &entry, out);
        }
    }
}

fn actor(cpu: usize, code: usize, key: TaskKey) -> Actor {
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

fn spinning(cpu: usize, index: usize, slot: &SpinSlot, now: Timestamp) -> Event {
    let (kind, mode) = wire::table_codes(slot.kind, slot.mode);
    // Spin paths read no more than they must: the start time of the thread is not among it.
    let key = TaskKey {
        tid: Tid(slot.tid),
        start: Timestamp(0),
    };
    Event {
        time: now,
        body: Body::Wait(WaitSample {
            waiter: actor(cpu, index, key),
            task: None,
            lock: LockAddr(slot.lock),
            kind,
            mode,
            phase: Phase::Spinning,
            since: Some(Timestamp(slot.since)),
            owner_word: slot.word,
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
