//! Bytes from the kernel become [`Event`]s here.
//!
//! Total: every input gives events or a [`WireError`]; no byte pattern panics, and a record that is too short is rejected rather
//! than filled up.

mod again;
mod code;
mod error;
mod thread;

use std::hash::Hasher;
use std::sync::Arc;

use fnv::FnvHasher;
use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::kind::{object, phase, queue, record_kind, seen_by, task_field};
use tracer_common::record::{
    Header, MAX_FRAMES, ReinitRecord, ReleaseRecord, TaskRecord, TaskSampleRecord, WaitRecord,
};
use zerocopy::FromBytes;

use self::code::{lock_kind_of, mode_of};
use self::error::{bad, short};
use self::thread::named_task;
use crate::event::{
    Actor, Body, Dependency, DependencySample, Event, Evidence, LockKind, Owner, Phase, Queued, Reinit, Release,
    StackFrames, TaskRef, WaitEnd, WaitSample,
};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId, Tid, Timestamp};
use crate::kernel::tasks::Met;
use crate::owner_word;

pub use self::again::Again;
pub use self::code::table_codes;
pub use self::error::WireError;
pub use self::thread::comm;
pub(crate) use self::thread::{task_event, task_ref, task_state};

/// Stacks remembered as already sent; beyond it they are sent again, which is harmless.
const MAX_SEEN_STACKS: usize = 65_536;
/// Names of threads remembered.
const MAX_COMMS: usize = 4_096;
/// Threads kept for [`Decoder::take_met`].
const MAX_MET: usize = 16_384;

/// Decodes records; remembers which stacks it has sent, and of which threads it has told.
#[derive(Debug, Default)]
pub struct Decoder {
    seen: FxHashSet<StackId>,
    /// Names of threads, which come again and again.
    comms: FxHashMap<[u8; 16], Arc<str>>,
    /// The newest initialisation of a percpu-rwsem in use: it initialises the wait queue inside, which is not told again.
    percpu: Option<(Tid, LockAddr, Timestamp)>,
    met: Vec<Met>,
    /// Whether records bring their stacks, instead of each stack the first time; see [`Again`].
    stacks: Option<bool>,
}

impl Decoder {
    /// Decodes the record at the start of `bytes` and appends its events; returns how many bytes it took.
    ///
    /// # Errors
    /// When the record is malformed; nothing is appended then.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<usize, WireError> {
        let (header, _) = Header::read_from_prefix(bytes).map_err(|_| short(0, bytes.len(), size_of::<Header>()))?;
        match header.kind {
            record_kind::WAIT_BEGIN | record_kind::WAIT_END | record_kind::WAIT_PENDING => self.wait(bytes, out)?,
            record_kind::TASK => self.task(bytes, out)?,
            record_kind::RELEASE => self.release(bytes, out)?,
            record_kind::REINIT => self.reinit(bytes, out)?,
            other => return Err(WireError::UnknownKind(other)),
        }
        Ok(usize::from(header.size))
    }

    fn wait(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), WireError> {
        let (record, stack) = split::<WaitRecord>(bytes, |r| (r.header, r.stack_len))?;
        let kind = record.header.kind;
        let lock_kind = lock_kind_of(kind, record.kind)?;
        let wanted = mode_of(kind, record.mode)?;
        let phase = match record.phase {
            phase::SPINNING => Phase::Spinning,
            phase::SLEEPING => Phase::Sleeping,
            other => return Err(bad(kind, "phase", other)),
        };
        let probe = match record.seen_by {
            seen_by::TRACEPOINT => Evidence::Tracepoint,
            seen_by::KPROBE => Evidence::Kprobe,
            other => return Err(bad(kind, "seen_by", other)),
        };
        let waiter = named_task(&record.waiter, self.comm(&record.waiter.comm));
        let owner = (record.owner.tid != 0).then(|| named_task(&record.owner, self.comm(&record.owner.comm)));
        let now = Timestamp(record.header.time);
        let since = Timestamp(record.since);
        let pending = kind == record_kind::WAIT_PENDING;
        let stack = self.stack(stack, now, out);
        if pending {
            self.meet(&record.waiter);
            self.meet(&record.owner);
            out.extend(task_event(&record.waiter, stack, now));
            // Of a reader-owned rwsem the word is a hint that may be stale: its state would be taken for a holder's.
            out.extend(task_event(&record.owner, StackId(0), now));
        }
        let actor = Actor::Task(waiter.key);
        out.push(Event {
            // A begin or end record carries the owner word that was read when the wait began.
            time: if pending { now } else { since },
            body: Body::Wait(WaitSample {
                waiter: actor,
                task: Some(waiter),
                lock: LockAddr(record.lock),
                kind: lock_kind,
                mode: wanted,
                phase,
                since: Some(since),
                owner_word: record.owner_word,
                owner: owner_of(lock_kind, &record, owner.as_ref()),
                queued: match record.queue {
                    queue::UNKNOWN => Queued::Unknown,
                    queue::ABSENT => Queued::Absent,
                    queue::SOMEWHERE => Queued::Somewhere,
                    position => Queued::At(position),
                },
                cpu: (!pending).then_some(CpuId(record.header.cpu)),
                stack,
                evidence: if pending { Evidence::Reread } else { probe },
            }),
        });
        if kind == record_kind::WAIT_END {
            out.push(Event {
                time: now,
                body: Body::WaitEnd(WaitEnd {
                    waiter: actor,
                    lock: LockAddr(record.lock),
                    result: record.result,
                    waited: now.since(since),
                }),
            });
        }
        Ok(())
    }

    fn task(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), WireError> {
        let (record, stack) = split::<TaskSampleRecord>(bytes, |r| (r.header, r.stack_len))?;
        let now = Timestamp(record.header.time);
        let stack = self.stack(stack, now, out);
        self.meet(&record.task);
        out.extend(task_event(&record.task, stack, now));
        Ok(())
    }

    fn release(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), WireError> {
        let (record, stack) = split::<ReleaseRecord>(bytes, |r| (r.header, r.stack_len))?;
        let kind = lock_kind_of(record.header.kind, record.kind)?;
        let now = Timestamp(record.header.time);
        let stack = self.stack(stack, now, out);
        let task = task_ref(&record.task);
        out.push(Event {
            time: now,
            body: Body::Release(Release {
                task,
                lock: LockAddr(record.lock),
                kind,
                stack,
            }),
        });
        Ok(())
    }

    fn reinit(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), WireError> {
        let (record, stack) = split::<ReinitRecord>(bytes, |r| (r.header, r.stack_len))?;
        let kind = lock_kind_of(record.header.kind, record.kind)?;
        let addr = KernelAddr(record.lock);
        let awaited = match record.object {
            object::LOCK => None,
            object::WAIT_QUEUE => Some(Dependency::WaitQueueHead { queue: addr }),
            object::COMPLETION => Some(Dependency::Completion { completion: addr }),
            other => return Err(bad(record.header.kind, "object", other)),
        };
        let time = Timestamp(record.header.time);
        if self.is_told(&record, kind, time) {
            return Ok(());
        }
        let stack = self.stack(stack, time, out);
        out.extend(task_event(&record.waiter, StackId(0), time));
        out.push(Event {
            time,
            body: Body::Reinit(Reinit {
                lock: LockAddr(record.lock),
                kind,
                task: task_ref(&record.task),
                stack,
                waiters: record.waiters,
                owner: owner_word::meaning(kind, record.owner_word, record.count_word, false, || {
                    named(&record.owner, Some(task_ref(&record.owner)))
                }),
            }),
        });
        // A lock's waiters are known by its probes; who waits for what is no lock was just seen.
        if let Some(dependency) = awaited.filter(|_| record.waiter.fields & task_field::IDENTITY != 0) {
            let waiter = task_ref(&record.waiter);
            out.push(Event {
                time,
                body: Body::Dependency(DependencySample {
                    waiter: Actor::Task(waiter.key),
                    task: Some(waiter),
                    dependency,
                    on: None,
                    on_task: None,
                    since: None,
                    stack: StackId(0),
                    evidence: Evidence::WaiterRecord,
                }),
            });
        }
        Ok(())
    }

    /// Whether this is the wait queue inside of a percpu-rwsem whose initialisation was told just before.
    ///
    /// KERNEL: `__percpu_init_rwsem` (kernel/locking/percpu-rwsem.c), 5.10 to 6.18.
    fn is_told(&mut self, record: &ReinitRecord, kind: LockKind, time: Timestamp) -> bool {
        const SIZE: u64 = 512;
        /// Between the two memory is allocated.
        const WITHIN: Nanos = Nanos::from_millis(10_000);
        let who = Tid(record.task.tid);
        if kind == LockKind::PercpuRwsem {
            self.percpu = Some((who, LockAddr(record.lock), time));
        }
        let inside = record.object == object::WAIT_QUEUE
            && self.percpu.is_some_and(|(by, rwsem, at)| {
                by == who && record.lock.wrapping_sub(rwsem.0) < SIZE && time.since(at) < WITHIN
            });
        if inside {
            // It has one.
            self.percpu = None;
        }
        inside
    }

    /// Takes note of a thread whose state an event tells.
    pub(crate) fn meet(&mut self, record: &TaskRecord) {
        if self.met.len() < MAX_MET {
            self.met.extend(Met::of(record));
        }
    }

    /// The threads whose states events have told since the last call.
    pub(crate) fn take_met(&mut self) -> Vec<Met> {
        std::mem::take(&mut self.met)
    }

    /// [`comm`] without a new allocation for every record.
    fn comm(&mut self, bytes: &[u8; 16]) -> Arc<str> {
        if self.comms.len() >= MAX_COMMS {
            self.comms.clear();
        }
        Arc::clone(self.comms.entry(*bytes).or_insert_with(|| comm(bytes)))
    }

    fn stack(&mut self, frames: &[u8], time: Timestamp, out: &mut Vec<Event>) -> StackId {
        let words = frames.chunks_exact(8).filter_map(|word| word.try_into().ok());
        self.announce(words.map(u64::from_ne_bytes), time, out)
    }

    /// Announces a stack the first time it is seen. Zero words are no frames.
    pub(crate) fn announce(
        &mut self,
        frames: impl Iterator<Item = u64> + Clone,
        time: Timestamp,
        out: &mut Vec<Event>,
    ) -> StackId {
        let frames = frames.filter(|&frame| frame != 0).map(KernelAddr);
        if frames.clone().next().is_none() {
            return StackId(0);
        }
        // Most stacks have been seen: those are hashed where they lie.
        let id = hash_of(frames.clone());
        if self.seen.len() >= MAX_SEEN_STACKS {
            self.seen.clear();
        }
        if self.stacks.unwrap_or_else(|| self.seen.insert(id)) {
            let frames = frames.collect();
            out.push(Event {
                time,
                body: Body::Stack(StackFrames {
                    id,
                    frames,
                    pieced: false,
                }),
            });
        }
        id
    }
}

/// Identity of a stack: FNV-1a of its frames, never 0. Stable across runs, so captures can use it.
#[must_use]
pub fn stack_id(frames: &[KernelAddr]) -> StackId {
    hash_of(frames.iter().copied())
}

fn hash_of(frames: impl Iterator<Item = KernelAddr>) -> StackId {
    let mut hasher = FnvHasher::default();
    frames.for_each(|frame| hasher.write(&frame.0.to_le_bytes()));
    StackId(hasher.finish().max(1))
}

/// Splits a record into its body and the bytes of its stack, checking both sizes against the header's.
fn split<T: FromBytes>(bytes: &[u8], facts: impl Fn(&T) -> (Header, u32)) -> Result<(T, &[u8]), WireError> {
    let kind = bytes
        .get(..2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_ne_bytes);
    let (body, rest) = T::read_from_prefix(bytes).map_err(|_| short(kind, bytes.len(), size_of::<T>()))?;
    let (header, frames) = facts(&body);
    let bad_size = WireError::BadSize {
        kind,
        size: header.size,
        frames,
    };
    let size = usize::from(header.size);
    let stack = frames as usize * 8;
    // A ring record reserves room for every frame, an iterator record has just those it needs.
    if frames as usize > MAX_FRAMES || size < size_of::<T>() + stack || size > size_of::<T>() + MAX_FRAMES * 8 {
        return Err(bad_size);
    }
    if bytes.len() < size {
        return Err(short(kind, bytes.len(), size));
    }
    let stack = rest.get(..stack).ok_or(bad_size)?;
    Ok((body, stack))
}

/// The meaning of the owner word in a record; see [`owner_word::meaning`].
fn owner_of(kind: LockKind, record: &WaitRecord, owner: Option<&TaskRef>) -> Owner {
    let is_waiter = record.owner.task == record.waiter.task;
    owner_word::meaning(kind, record.owner_word, record.count_word, is_waiter, || {
        named(&record.owner, owner.cloned())
    })
}

/// The thread that an owner word names.
fn named(owner: &TaskRecord, task: Option<TaskRef>) -> Owner {
    match task {
        Some(task) if owner.fields & task_field::UNREADABLE == 0 && owner.tid != 0 => Owner::Task(task),
        _ => Owner::Unreadable(KernelAddr(owner.task)),
    }
}

#[cfg(test)]
mod tests;
