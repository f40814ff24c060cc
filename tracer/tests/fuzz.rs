//! Mutated captures and mutated kernel records: no panic, no wild claim, bounded work.
//!
//! Runs for a few seconds with the same mutations each time. `HOLDUP_FUZZ_SECONDS=600 cargo test -p tracer --test fuzz` goes
//! on for longer and starts elsewhere; a failure names the seed, and `HOLDUP_FUZZ_SEED` goes back to it.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails shall fail the test")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tracer::capture::codec::{Decoder, Encoder};
use tracer::capture::frame::{HEADER, Head, Kind, MAX_RAW};
use tracer::capture::{Content, Items, VERSION};
use tracer::wire;
use tracer_common::record::{ReinitRecord, ReleaseRecord, TaskSampleRecord, WaitRecord};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Gives seeds until the time is up.
fn for_a_while(mut one: impl FnMut(&mut Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("HOLDUP_FUZZ_SECONDS");
    let elsewhere = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(1, |t| t.as_nanos() as u64);
    let first = number("HOLDUP_FUZZ_SEED").unwrap_or(if seconds.is_some() {
        elsewhere
    } else {
        0x9e37_79b9_7f4a_7c15
    });
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(3));
    let mut rounds = 0u64;
    while Instant::now() < until {
        let seed = first.wrapping_add(rounds).max(1);
        let told = Told(seed);
        one(&mut Rng(seed));
        std::mem::forget(told);
        rounds += 1;
    }
    assert!(rounds > 50, "only {rounds} rounds");
}

/// Names the seed when a round panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("HOLDUP_FUZZ_SEED={}", self.0);
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(6) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len());
        let length = (1 + rng.below(64)).min(bytes.len() - at);
        match rng.below(8) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
            3 => {
                let number = [0, 1, u64::MAX, 1 << 31, u64::from(u32::MAX), rng.next()][rng.below(6)].to_le_bytes();
                let length = length.min(8);
                bytes[at..at + length].copy_from_slice(&number[..length]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..at + length)),
            6 => {
                let piece = bytes[at..at + length].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes[at..at + length].fill(rng.next() as u8),
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "holdup"));
    paths.sort();
    assert!(paths.len() > 2, "{paths:?}");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Payloads of the items frames of a capture.
fn blocks(capture: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut blocks) = (capture, Vec::new());
    while let Some(head) = Head::parse(rest) {
        let end = HEADER + head.stored;
        if head.kind == Kind::Items {
            blocks.push(head.open(&rest[HEADER..end]).unwrap());
        }
        rest = &rest[end..];
    }
    assert!(!blocks.is_empty());
    blocks
}

/// Reads everything; what is counted must be what is given.
fn read(bytes: &[u8]) {
    let mut items = Items::new(bytes).with_records();
    let (mut given, mut lost) = (0u64, 0u64);
    loop {
        match items.next_content() {
            Ok(Some(Content::Item(_))) => given += 1,
            Ok(Some(Content::Lost(count))) => {
                assert!(count > 0);
                lost += 1;
            }
            Ok(Some(Content::Record(_) | Content::Meta(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let health = items.health();
    assert!(
        given <= (bytes.len() as u64).saturating_mul(1000) + MAX_RAW as u64,
        "{given} items of {} bytes",
        bytes.len()
    );
    assert!(
        lost == 0 || !health.is_sound(),
        "{lost} losses, and all is said to be well: {health:?}"
    );
    assert!(health.skipped <= bytes.len() as u64, "{health:?}");
}

#[test]
fn mutated_captures() {
    let seeds = seeds();
    for_a_while(|rng| {
        for _ in 0..20 {
            let mut bytes = seeds[rng.below(seeds.len())].clone();
            mutate(&mut bytes, rng);
            read(&bytes);
        }
    });
}

#[test]
fn mutated_blocks_behind_sound_checksums() {
    let seeds: Vec<Vec<u8>> = seeds().iter().flat_map(|capture| blocks(capture)).collect();
    for_a_while(|rng| {
        for _ in 0..20 {
            let mut block = seeds[rng.below(seeds.len())].clone();
            mutate(&mut block, rng);
            let mut decoder = Decoder::new(block.clone().into(), VERSION);
            while let Ok(Some(_)) = decoder.next_item() {}
            let mut head = Head::new(Kind::Items, rng.next() as u32);
            head.items = rng.next() as u32;
            read(&head.seal(&block).unwrap());
        }
    });
}

/// A record means in a capture what it means alone.
fn stored(record: &[u8]) {
    let mut events = Vec::new();
    wire::Again::default().decode(record, true, &mut events).unwrap();
    let mut encoder = Encoder::default();
    assert!(encoder.record(record, true, false));
    let mut decoder = Decoder::new(encoder.take().into(), VERSION);
    for event in events {
        assert_eq!(
            decoder.next_item().map(|item| item.map(|item| item.event)),
            Ok(Some(event))
        );
    }
    assert_eq!(decoder.next_item(), Ok(None));
}

#[test]
fn mutated_kernel_records() {
    let sizes = [
        size_of::<WaitRecord>(),
        size_of::<TaskSampleRecord>(),
        size_of::<ReleaseRecord>(),
        size_of::<ReinitRecord>(),
    ];
    let kinds: [(u16, usize); 6] = [
        (1, sizes[0]),
        (2, sizes[0]),
        (3, sizes[0]),
        (4, sizes[1]),
        (5, sizes[2]),
        (7, sizes[3]),
    ];
    for_a_while(|rng| {
        for _ in 0..200 {
            // A record that is right in kind and size, then made wrong.
            let (kind, size) = kinds[rng.below(kinds.len())];
            let mut bytes: Vec<u8> = (0..size)
                .map(|_| if rng.below(3) == 0 { rng.next() as u8 } else { 0 })
                .collect();
            bytes[..2].copy_from_slice(&kind.to_le_bytes());
            bytes[2..4].copy_from_slice(&(size as u16).to_le_bytes());
            if rng.below(2) == 0 {
                mutate(&mut bytes, rng);
            }
            let (mut decoder, mut events) = (wire::Decoder::default(), Vec::new());
            match decoder.decode(&bytes, &mut events) {
                Ok(taken) => {
                    assert!(taken > 0 && taken <= bytes.len(), "{taken} of {} bytes", bytes.len());
                    stored(&bytes[..taken]);
                }
                Err(_) => assert!(events.is_empty(), "a rejected record gave {events:?}"),
            }
        }
    });
}
