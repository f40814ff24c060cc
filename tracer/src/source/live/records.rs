//! Records of the ring buffer and of iterators become events, and go along with them where a capture is made.

use bytes::Bytes;

use crate::event::{Body, Event, RawRecord};
use crate::ids::Timestamp;
use crate::wire::{Decoder, WireError};

/// The decoder of a live run.
#[derive(Debug)]
pub struct Records {
    decoder: Decoder,
    /// A record goes before its events.
    kept: bool,
}

impl Records {
    /// `kept`: each record goes before its events.
    #[must_use]
    pub fn new(kept: bool) -> Self {
        Self {
            decoder: Decoder::default(),
            kept,
        }
    }

    /// For what is no record of its own but brings stacks and threads.
    pub fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// As [`Decoder::decode`].
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<usize, WireError> {
        if !self.kept {
            return self.decoder.decode(bytes, out);
        }
        let at = out.len();
        out.push(Event {
            time: Timestamp(0),
            body: Body::Record(RawRecord(Bytes::new())),
        });
        let taken = self.decoder.decode(bytes, out);
        let record = taken.as_ref().ok().and_then(|&size| bytes.get(..size));
        match (record, out.get_mut(at..)) {
            (Some(record), Some([marker, first, ..])) => {
                marker.time = first.time;
                marker.body = Body::Record(RawRecord(Bytes::copy_from_slice(record)));
            }
            // Nothing was told, or nothing could be decoded.
            _ => out.truncate(at),
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_record_leaves_nothing_behind() {
        let mut out = Vec::new();
        assert!(Records::new(true).decode(&[9; 40], &mut out).is_err());
        assert_eq!(out, []);
    }
}
