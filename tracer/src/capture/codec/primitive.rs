//! Numbers, texts, options, lists and identities.

use std::sync::Arc;

use super::{CodecError, Decoder, Encoder};
use crate::event::TaskRef;
use crate::ids::{CgroupId, CpuId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};

/// Something with a form in a block.
pub trait Wire: Sized {
    /// Appends it.
    fn put(&self, out: &mut Encoder);

    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are none.
    fn take(from: &mut Decoder) -> Result<Self, CodecError>;
}

/// Bits per byte of a number; the top bit says that more follow.
const BITS: u32 = 7;
const MORE: u8 = 0x80;

impl Encoder {
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= u64::from(MORE) {
            // Cut to the low byte on purpose.
            self.byte((value & 0x7f) as u8 | MORE);
            value >>= BITS;
        }
        self.byte(value as u8);
    }

    /// A difference, as the two's complement of what is to be added; small in either direction is short.
    pub(super) fn signed(&mut self, difference: u64) {
        let sign = if difference >> 63 == 1 { u64::MAX } else { 0 };
        self.number((difference << 1) ^ sign);
    }

    pub(super) fn word(&mut self, word: u64) {
        let place = self.words.place(&word);
        let last = std::mem::replace(&mut self.words.last, word);
        self.entry(place, word, last);
    }

    fn entry(&mut self, place: Option<u64>, value: u64, last: u64) {
        match place {
            Some(place) => self.number(place),
            None => {
                self.number(0);
                self.signed(value.wrapping_sub(last));
            }
        }
    }
}

impl Decoder {
    pub(super) fn number(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(BITS as usize) {
            let byte = self.byte()?;
            let bits = u64::from(byte & !MORE);
            if bits.leading_zeros() < shift {
                return Err(CodecError::Range {
                    what: "a number",
                    value: bits,
                });
            }
            value |= bits << shift;
            if byte & MORE == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Range {
            what: "a number",
            value,
        })
    }

    pub(super) fn signed(&mut self) -> Result<u64, CodecError> {
        let folded = self.number()?;
        Ok((folded >> 1) ^ (folded & 1).wrapping_neg())
    }

    pub(super) fn word(&mut self) -> Result<u64, CodecError> {
        let word = match self.number()? {
            0 => {
                let word = self.words.last.wrapping_add(self.signed()?);
                self.words.add(word)
            }
            place => self.words.get(place)?,
        };
        self.words.last = word;
        Ok(word)
    }

    /// The length of a list whose elements take at least a byte each.
    fn length(&mut self) -> Result<usize, CodecError> {
        let length = self.number()?;
        usize::try_from(length)
            .ok()
            .filter(|&length| length <= self.block.len())
            .ok_or(CodecError::Short)
    }
}

impl Wire for u64 {
    fn put(&self, out: &mut Encoder) {
        out.number(*self);
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        from.number()
    }
}

impl Wire for u32 {
    fn put(&self, out: &mut Encoder) {
        out.number((*self).into());
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        let value = from.number()?;
        Self::try_from(value).map_err(|_| CodecError::Range {
            what: "a 32-bit number",
            value,
        })
    }
}

impl Wire for i32 {
    fn put(&self, out: &mut Encoder) {
        out.signed(i64::from(*self).cast_unsigned());
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        let value = from.signed()?;
        Self::try_from(value.cast_signed()).map_err(|_| CodecError::Range {
            what: "a 32-bit number",
            value,
        })
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Encoder) {
        out.byte((*self).into());
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::Unknown {
                what: "truth value",
                code: other.into(),
            }),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Encoder) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Encoder) {
        out.number(self.len() as u64);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        (0..from.length()?).map(|_| T::take(from)).collect()
    }
}

impl Wire for Arc<[KernelAddr]> {
    fn put(&self, out: &mut Encoder) {
        out.number(self.len() as u64);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        (0..from.length()?).map(|_| KernelAddr::take(from)).collect()
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Encoder) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl Wire for Arc<str> {
    fn put(&self, out: &mut Encoder) {
        match out.texts.place(self) {
            Some(place) => out.number(place),
            None => {
                out.number(0);
                out.number(self.len() as u64);
                out.bytes.extend_from_slice(self.as_bytes());
            }
        }
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        match from.number()? {
            0 => {
                let length = from.length()?;
                let bytes = from.bytes(length)?;
                let text = std::str::from_utf8(&bytes).map_err(|_| CodecError::Text)?;
                Ok(from.texts.add(text.into()))
            }
            place => from.texts.get(place),
        }
    }
}

impl Wire for Timestamp {
    /// Relative to the time of the item.
    fn put(&self, out: &mut Encoder) {
        let time = out.time;
        out.signed(self.0.wrapping_sub(time.0));
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        Ok(Self(from.time.0.wrapping_add(from.signed()?)))
    }
}

macro_rules! plain {
    ($($name:ident),*) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Encoder) {
                self.0.put(out);
            }
            fn take(from: &mut Decoder) -> Result<Self, CodecError> {
                Wire::take(from).map(Self)
            }
        }
    )*};
}
plain!(Tid, Tgid, CpuId, CgroupId, Nanos);

/// Addresses: by number when seen before, else as the difference to the newest one of their table.
macro_rules! address {
    ($($name:ident in $table:ident),*) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Encoder) {
                let place = out.$table.place(&self.0);
                let last = std::mem::replace(&mut out.$table.last, self.0);
                out.entry(place, self.0, last);
            }
            fn take(from: &mut Decoder) -> Result<Self, CodecError> {
                let value = match from.number()? {
                    0 => {
                        let value = from.$table.last.wrapping_add(from.signed()?);
                        from.$table.add(value)
                    }
                    place => from.$table.get(place)?,
                };
                from.$table.last = value;
                Ok(Self(value))
            }
        }
    )*};
}
address!(LockAddr in locks, KernelAddr in code);

impl Wire for StackId {
    fn put(&self, out: &mut Encoder) {
        match out.stacks.place(self) {
            Some(place) => out.number(place),
            None => {
                out.number(0);
                // A hash: no number is shorter than its bytes.
                out.bytes.extend_from_slice(&self.0.to_le_bytes());
            }
        }
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        match from.number()? {
            0 => {
                let bytes = from.bytes(8)?.as_ref().try_into().map_err(|_| CodecError::Short)?;
                Ok(from.stacks.add(Self(u64::from_le_bytes(bytes))))
            }
            place => from.stacks.get(place),
        }
    }
}

impl Wire for TaskKey {
    fn put(&self, out: &mut Encoder) {
        match out.keys.place(self) {
            Some(place) => out.number(place),
            None => {
                out.number(0);
                self.tid.put(out);
                out.number(self.start.0);
            }
        }
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        match from.number()? {
            0 => {
                let key = Self {
                    tid: Wire::take(from)?,
                    start: Timestamp(from.number()?),
                };
                Ok(from.keys.add(key))
            }
            place => from.keys.get(place),
        }
    }
}

impl Wire for TaskRef {
    fn put(&self, out: &mut Encoder) {
        match out.tasks.place(self) {
            Some(place) => out.number(place),
            None => {
                out.number(0);
                self.key.put(out);
                self.tgid.put(out);
                self.comm.put(out);
            }
        }
    }
    fn take(from: &mut Decoder) -> Result<Self, CodecError> {
        match from.number()? {
            0 => {
                let task = Self {
                    key: Wire::take(from)?,
                    tgid: Wire::take(from)?,
                    comm: Wire::take(from)?,
                };
                Ok(from.tasks.add(task))
            }
            place => from.tasks.get(place),
        }
    }
}
