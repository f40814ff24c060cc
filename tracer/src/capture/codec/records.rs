//! Records of the kernel as they came, and back.
//!
//! A record is written field by field, every field of it, so that the very bytes come out again: what repeats (threads, names,
//! stacks, addresses) by its place in a table as in events, numbers short. It does not matter to a capture in which order, at which
//! place or with which padding a later `tracer_common` lays the fields out in memory. **A new field** is written last and read only
//! from captures of the version that brought it; for older ones it has the value that means "not told". Codes in fields
//! ([`tracer_common::kind`]) keep their meaning for ever.
//!
//! Two things are not restored: room that the kernel reserved for more frames than there were, and with it the size that
//! the header gives.

use std::sync::Arc;

use tracer_common::kind::record_kind;
use tracer_common::record::{
    Header, MAX_FRAMES, ReinitRecord, ReleaseRecord, TaskRecord, TaskSampleRecord, WaitRecord,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::primitive::Wire;
use super::{CodecError, Decoder, Encoder};
use crate::ids::{KernelAddr, LockAddr, TaskKey, Tid, Timestamp};

/// Tag of a record: code 0, never carried over.
pub const TAG: u8 = 0;
/// Bytes of a frame.
const FRAME: usize = size_of::<u64>();

/// A record without its stack.
trait Layout: Sized + FromBytes + IntoBytes + Immutable {
    /// Number of frames that follow.
    fn frames(&self) -> u32;
    fn put(&self, out: &mut Encoder);
    fn take(header: Header, stack_len: u32, from: &mut Decoder) -> Result<Self, CodecError>;
}

/// Fields in the order in which they are written, all of them: a field that is missing here does not compile.
macro_rules! layout {
    ($name:ident { $($field:ident $(: $how:ident)?),* $(,)? }) => {
        impl Layout for $name {
            fn frames(&self) -> u32 {
                self.stack_len
            }
            fn put(&self, out: &mut Encoder) {
                let Self { header: _, stack_len: _, $($field),* } = *self;
                $(layout!(@put out, $field $(, $how)?);)*
            }
            fn take(header: Header, stack_len: u32, from: &mut Decoder) -> Result<Self, CodecError> {
                $(let $field = layout!(@take from $(, $how)?);)*
                Ok(Self { header, stack_len, $($field),* })
            }
        }
    };
    (@put $out:ident, $field:ident) => { $field.put($out) };
    (@put $out:ident, $field:ident, word) => { $out.word($field) };
    (@put $out:ident, $field:ident, lock) => { LockAddr($field).put($out) };
    (@put $out:ident, $field:ident, time) => { Timestamp($field).put($out) };
    (@put $out:ident, $field:ident, near) => { $field.cast_signed().put($out) };
    (@take $from:ident) => { Wire::take($from)? };
    (@take $from:ident, word) => { $from.word()? };
    (@take $from:ident, lock) => { LockAddr::take($from)?.0 };
    (@take $from:ident, time) => { Timestamp::take($from)?.0 };
    (@take $from:ident, near) => { i32::take($from)?.cast_unsigned() };
}

layout!(WaitRecord {
    lock: lock,
    since: time,
    owner_word: word,
    count_word: word,
    waiter,
    owner,
    result,
    // The largest numbers stand for "not known" and the like.
    queue: near,
    flags,
    kind,
    mode,
    phase,
    seen_by,
    pad,
});
layout!(TaskSampleRecord { task, pad });
layout!(ReleaseRecord {
    lock: lock,
    task,
    kind,
    pad
});
layout!(ReinitRecord {
    lock: lock,
    owner_word: word,
    count_word: word,
    task,
    owner,
    waiter,
    waiters,
    kind,
    object,
    pad,
});

impl Wire for u8 {
    fn put(&self, out: &mut Encoder) {
        out.byte(*self);
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        from.byte()
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Encoder) {
        out.bytes.extend_from_slice(self);
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        from.bytes(N)?.as_ref().try_into().map_err(|_| CodecError::Short)
    }
}

/// A thread is written once, as long as nothing about it changes.
impl Wire for TaskRecord {
    fn put(&self, out: &mut Encoder) {
        // A copy of its bytes: the type itself cannot be compared.
        let bytes: [u8; size_of::<Self>()] = zerocopy::transmute!(*self);
        if let Some(place) = out.threads.place(&bytes) {
            return out.number(place);
        }
        out.number(0);
        let Self {
            task,
            start,
            switches,
            cgroup,
            tid,
            tgid,
            comm,
            state,
            pf_flags,
            cpu,
            on_cpu,
            in_iowait,
            fields,
        } = *self;
        out.word(task);
        TaskKey {
            tid: Tid(tid),
            start: Timestamp(start),
        }
        .put(out);
        tgid.put(out);
        match out.comms.place(&comm) {
            Some(place) => out.number(place),
            None => {
                out.number(0);
                comm.put(out);
            }
        }
        [switches, cgroup].iter().for_each(|number| number.put(out));
        [state, pf_flags, cpu].iter().for_each(|number| number.put(out));
        [on_cpu, in_iowait].iter().for_each(|byte| out.byte(*byte));
        u32::from(fields).put(out);
    }

    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        let place = from.number()?;
        if place != 0 {
            return from.threads.get(place);
        }
        let task = from.word()?;
        let TaskKey { tid, start } = Wire::take(from)?;
        let record = Self {
            task,
            start: start.0,
            tid: tid.0,
            tgid: Wire::take(from)?,
            comm: match from.number()? {
                0 => {
                    let comm = Wire::take(from)?;
                    from.comms.add(comm)
                }
                place => from.comms.get(place)?,
            },
            switches: Wire::take(from)?,
            cgroup: Wire::take(from)?,
            state: Wire::take(from)?,
            pf_flags: Wire::take(from)?,
            cpu: Wire::take(from)?,
            on_cpu: Wire::take(from)?,
            in_iowait: Wire::take(from)?,
            fields: short(from)?,
        };
        Ok(from.threads.add(record))
    }
}

fn short(from: &mut Decoder) -> Result<u16, CodecError> {
    let value = u32::take(from)?;
    u16::try_from(value).map_err(|_| CodecError::Range {
        what: "a 16-bit number",
        value: value.into(),
    })
}

/// Appends a record with how it was decoded: `flags`, its kind, its CPU, its stack and what its kind has. False when it is no
/// record of a known kind and size: then nothing is appended.
pub fn put(record: &[u8], flags: u8, out: &mut Encoder) -> bool {
    let Ok((header, _)) = Header::read_from_prefix(record) else {
        return false;
    };
    match header.kind {
        record_kind::WAIT_BEGIN | record_kind::WAIT_END | record_kind::WAIT_PENDING => {
            write::<WaitRecord>(header, record, flags, out)
        }
        record_kind::TASK => write::<TaskSampleRecord>(header, record, flags, out),
        record_kind::RELEASE => write::<ReleaseRecord>(header, record, flags, out),
        record_kind::REINIT => write::<ReinitRecord>(header, record, flags, out),
        _ => false,
    }
}

fn write<T: Layout>(header: Header, record: &[u8], flags: u8, out: &mut Encoder) -> bool {
    let Ok((body, rest)) = T::read_from_prefix(record) else {
        return false;
    };
    let stack = usize::try_from(body.frames())
        .ok()
        .filter(|&frames| frames <= MAX_FRAMES)
        .and_then(|frames| rest.get(..frames * FRAME));
    let Some(stack) = stack else { return false };
    out.byte(TAG);
    out.at(Timestamp(header.time));
    out.byte(flags);
    u32::from(header.kind).put(out);
    header.cpu.put(out);
    let words = stack.chunks_exact(FRAME).filter_map(|word| word.try_into().ok());
    let frames: Arc<[u64]> = words.map(u64::from_ne_bytes).collect();
    match out.traces.place(&frames) {
        Some(place) => out.number(place),
        None => {
            out.number(0);
            out.number(frames.len() as u64);
            frames.iter().for_each(|&frame| KernelAddr(frame).put(out));
        }
    }
    body.put(out);
    true
}

/// Reads what stands behind a record's tag, time and flags, and puts its bytes into `into`.
pub fn take(from: &mut Decoder, into: &mut Vec<u8>) -> Result<(), CodecError> {
    into.clear();
    let header = Header {
        kind: short(from)?,
        size: 0,
        cpu: Wire::take(from)?,
        time: from.time.0,
    };
    match header.kind {
        record_kind::WAIT_BEGIN | record_kind::WAIT_END | record_kind::WAIT_PENDING => {
            read::<WaitRecord>(header, from, into)
        }
        record_kind::TASK => read::<TaskSampleRecord>(header, from, into),
        record_kind::RELEASE => read::<ReleaseRecord>(header, from, into),
        record_kind::REINIT => read::<ReinitRecord>(header, from, into),
        other => Err(CodecError::Unknown {
            what: "kind of record",
            code: other.into(),
        }),
    }
}

fn read<T: Layout>(header: Header, from: &mut Decoder, into: &mut Vec<u8>) -> Result<(), CodecError> {
    let frames = match from.number()? {
        0 => {
            let count = from.number()?;
            if count > MAX_FRAMES as u64 {
                return Err(CodecError::Range {
                    what: "the frames of a record",
                    value: count,
                });
            }
            let frames: Result<Arc<[u64]>, CodecError> = (0..count).map(|_| Ok(KernelAddr::take(from)?.0)).collect();
            from.traces.add(frames?)
        }
        place => from.traces.get(place)?,
    };
    // Both fit: there are no more than MAX_FRAMES.
    let size = u16::try_from(size_of::<T>() + frames.len() * FRAME).unwrap_or(u16::MAX);
    let stack_len = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let body = T::take(Header { size, ..header }, stack_len, from)?;
    into.extend_from_slice(body.as_bytes());
    frames
        .iter()
        .for_each(|frame| into.extend_from_slice(&frame.to_ne_bytes()));
    Ok(())
}
