//! Frames: how messages survive a byte stream.
//!
//! ```text
//! magic "HUv1" | kind u8 | zero u8 | id u16 | seq u32 | len u32 | payload (len bytes) | crc32 of all before it
//! ```
//! All integers are little-endian. `seq` counts frames from 0, so a lost frame is seen even when the bytes around it are
//! whole. The decoder is total: whatever the bytes, it gives frames and [`Malformed`] items and never panics.

/// First bytes of every frame; the digit is the version of the format.
pub const MAGIC: [u8; 4] = *b"HUv1";
/// Bytes before the payload.
pub const HEADER: usize = 16;
/// Bytes after the payload.
pub const TRAILER: usize = 4;
/// Largest payload of one frame; longer data is cut into several.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// One frame as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is; [`crate::message`] gives the meaning.
    pub kind: u8,
    /// Which command or job it belongs to.
    pub id: u16,
    /// Position in the stream of frames, from 0.
    pub seq: u32,
    /// The message's own bytes.
    pub payload: Vec<u8>,
}

/// What was wrong with a piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Bytes that belong to no frame were skipped.
    Garbage { bytes: usize },
    /// A header announced more than [`MAX_PAYLOAD`].
    TooLong { len: usize },
    /// The reserved byte was not zero.
    Reserved { value: u8 },
    /// The checksum did not match.
    Checksum { computed: u32, received: u32 },
    /// Frames are missing between two good ones.
    Gap { expected: u32, got: u32 },
    /// The stream ended inside a frame.
    Truncated { bytes: usize },
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Garbage { bytes } => write!(f, "{bytes} bytes belong to no frame"),
            Self::TooLong { len } => write!(f, "a frame announces {len} bytes, more than {MAX_PAYLOAD}"),
            Self::Reserved { value } => write!(f, "the reserved byte of a frame is {value}, not 0"),
            Self::Checksum { computed, received } => {
                write!(f, "checksum {received:#010x} received, {computed:#010x} computed")
            }
            Self::Gap { expected, got } => write!(f, "frame {expected} was expected, {got} came"),
            Self::Truncated { bytes } => write!(f, "the stream ends {bytes} bytes into a frame"),
        }
    }
}

/// What the decoder found next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A whole frame with the right checksum.
    Frame(Frame),
    /// A defect; decoding goes on at the next magic.
    Malformed(Malformed),
}

/// Bytes of one frame. The caller keeps `payload` within [`MAX_PAYLOAD`]; a longer one is cut there.
#[must_use]
pub fn encode(kind: u8, id: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let mut out = Vec::with_capacity(HEADER + payload.len() + TRAILER);
    out.extend_from_slice(&MAGIC);
    out.push(kind);
    out.push(0);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Turns a stream of bytes back into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    skipped: usize,
    next_seq: u32,
    ready: Option<Frame>,
}

impl Decoder {
    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item, or `None` until more bytes come.
    pub fn next_item(&mut self) -> Option<Item> {
        if let Some(frame) = self.ready.take() {
            return Some(Item::Frame(frame));
        }
        loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            let matching = rest.iter().zip(MAGIC).take_while(|(a, b)| **a == *b).count();
            if matching < MAGIC.len() {
                if matching == rest.len() {
                    return None;
                }
                self.start += 1;
                self.skipped += 1;
                continue;
            }
            if self.skipped > 0 {
                return Some(Item::Malformed(Malformed::Garbage {
                    bytes: std::mem::take(&mut self.skipped),
                }));
            }
            let header = rest.first_chunk::<HEADER>()?;
            let [_, _, _, _, kind, reserved, i0, i1, s0, s1, s2, s3, l0, l1, l2, l3] = *header;
            let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            if reserved != 0 {
                self.resynchronise();
                return Some(Item::Malformed(Malformed::Reserved { value: reserved }));
            }
            if len > MAX_PAYLOAD {
                self.resynchronise();
                return Some(Item::Malformed(Malformed::TooLong { len }));
            }
            let covered = rest.get(..HEADER + len)?;
            let received = u32::from_le_bytes(*rest.get(HEADER + len..)?.first_chunk::<TRAILER>()?);
            let computed = crc32fast::hash(covered);
            if computed != received {
                self.resynchronise();
                return Some(Item::Malformed(Malformed::Checksum { computed, received }));
            }
            let seq = u32::from_le_bytes([s0, s1, s2, s3]);
            let payload = covered[HEADER..].to_vec();
            let frame = Frame {
                kind,
                id: u16::from_le_bytes([i0, i1]),
                seq,
                payload,
            };
            self.start += HEADER + len + TRAILER;
            let expected = std::mem::replace(&mut self.next_seq, seq.wrapping_add(1));
            if expected != seq {
                self.ready = Some(frame);
                return Some(Item::Malformed(Malformed::Gap { expected, got: seq }));
            }
            return Some(Item::Frame(frame));
        }
    }

    /// What is left when the stream has ended: `None` if it ended between two frames.
    #[must_use]
    pub fn finish(self) -> Option<Malformed> {
        let bytes = self.buffer.len().saturating_sub(self.start) + self.skipped;
        (bytes > 0).then_some(Malformed::Truncated { bytes })
    }

    /// Steps over a magic that began no frame. The step is part of the defect just reported, not extra garbage.
    fn resynchronise(&mut self) {
        self.start += MAGIC.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], chunk: usize) -> (Vec<Item>, Option<Malformed>) {
        let mut decoder = Decoder::default();
        let mut items = Vec::new();
        for part in bytes.chunks(chunk.max(1)) {
            decoder.push(part);
            while let Some(item) = decoder.next_item() {
                items.push(item);
            }
        }
        (items, decoder.finish())
    }

    fn frame(kind: u8, id: u16, seq: u32, payload: &[u8]) -> Item {
        Item::Frame(Frame {
            kind,
            id,
            seq,
            payload: payload.to_vec(),
        })
    }

    #[test]
    fn round_trip_in_chunks_of_every_size() {
        let mut stream = encode(1, 2, 0, b"first");
        stream.extend(encode(3, 65535, 1, b""));
        stream.extend(encode(9, 0, 2, b"HUv1 inside a payload is data"));
        let expected = vec![
            frame(1, 2, 0, b"first"),
            frame(3, 65535, 1, b""),
            frame(9, 0, 2, b"HUv1 inside a payload is data"),
        ];
        for chunk in 1..=stream.len() {
            assert_eq!(decode(&stream, chunk), (expected.clone(), None), "chunks of {chunk}");
        }
    }

    #[test]
    fn longest_payload_passes() {
        let payload = vec![0x5a; MAX_PAYLOAD];
        assert_eq!(
            decode(&encode(1, 1, 0, &payload), 4096),
            (vec![frame(1, 1, 0, &payload)], None)
        );
    }

    /// Each row damages a stream of two good frames (seq 0 and 1) in one way.
    #[test]
    fn malformed_bytes_are_named_and_skipped() {
        let first = encode(1, 7, 0, b"abc");
        let second = encode(1, 7, 1, b"def");
        let good = [first.clone(), second.clone()].concat();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        let gap = Item::Malformed(Malformed::Gap { expected: 0, got: 1 });
        let tail = frame(1, 7, 1, b"def");
        let crc = crc32fast::hash(&first[..first.len() - 4]);

        let (items, end) = decode(&[b"xyz".to_vec(), good.clone()].concat(), 3);
        assert_eq!(
            items[0],
            Item::Malformed(Malformed::Garbage { bytes: 3 }),
            "garbage before"
        );
        assert_eq!((items.len(), end), (3, None));

        let (items, _) = decode(&with(0, b'h'), 64);
        assert_eq!(
            items,
            vec![
                Item::Malformed(Malformed::Garbage { bytes: first.len() }),
                gap.clone(),
                tail.clone()
            ]
        );

        let (items, _) = decode(&with(5, 9), 64);
        assert_eq!(
            items[0],
            Item::Malformed(Malformed::Reserved { value: 9 }),
            "reserved byte"
        );
        assert_eq!(items.last(), Some(&tail));

        let (items, _) = decode(&with(15, 0xff), 64);
        assert_eq!(
            items[0],
            Item::Malformed(Malformed::TooLong { len: 0xff00_0003 }),
            "length"
        );
        assert_eq!(items.last(), Some(&tail));

        let (items, _) = decode(&with(HEADER, b'z'), 64);
        assert!(
            matches!(items[0], Item::Malformed(Malformed::Checksum { received, .. }) if received == crc),
            "payload"
        );
        assert_eq!(items.last(), Some(&tail));

        let (items, end) = decode(&second, 64);
        assert_eq!((items, end), (vec![gap, tail], None), "a frame is missing");

        let cut = good.len() - 1;
        let (items, end) = decode(&good[..cut], 64);
        assert_eq!(items, vec![frame(1, 7, 0, b"abc")], "truncated");
        assert_eq!(
            end,
            Some(Malformed::Truncated {
                bytes: second.len() - 1
            })
        );

        assert_eq!(
            decode(b"noise", 1),
            (vec![], Some(Malformed::Truncated { bytes: 5 })),
            "nothing but noise"
        );
    }
}
