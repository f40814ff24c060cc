//! Files that somebody made on purpose: bounded memory, no panic, a clear error.

use super::super::VERSION;
use super::super::codec::{CodecError, Decoder};
use super::super::frame::{Head, Kind};
use super::*;

#[test]
fn other_files_are_no_captures() {
    for bytes in [
        &b""[..],
        b"x",
        b"\x89HOLDUP",
        b"\x89HOLDUP\n",
        &[0; 100_000],
        &[0x89; 5000],
        b"# a text file\n",
    ] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, ReadError::NoCapture(_)), "{error}");
        assert!(error.to_string().contains("no capture of holdup"), "{error}");
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let newer = |kind, payload: &[u8]| {
        let mut head = Head::new(kind, 0);
        head.version = VERSION + 1;
        head.seal(payload).unwrap()
    };
    let meta = serde_json::to_vec(&Meta {
        tool: "9.8.7".into(),
        ..Meta::default()
    })
    .unwrap();
    let text = read(&newer(Kind::Meta, &meta)).unwrap_err().to_string();
    assert!(
        text.contains(&format!("format version {}", VERSION + 1)) && text.contains("9.8.7"),
        "{text}"
    );
    // Behind an older file, too, and without a readable header.
    let text = read(&[capture(&contention(3), 2), newer(Kind::Items, b"?")].concat())
        .unwrap_err()
        .to_string();
    assert!(text.contains(&format!("format version {}", VERSION + 1)), "{text}");
}

#[test]
fn blocks_with_sound_checksums_and_wild_contents_are_damage() {
    let mut encoder = super::super::codec::Encoder::default();
    every_event().iter().for_each(|event| encoder.event(event, false));
    let events = encoder.take();
    for event in records::stream(60) {
        match &event.body {
            Body::Record(record) => assert!(encoder.record(&record.0, true, event.time.0 % 3 == 0)),
            _ if event.time.0 % 2 == 0 => encoder.next(),
            _ => encoder.left_out(),
        }
    }
    let blocks = [events, encoder.take()];
    let mut rng = Rng(0xabcdef);
    let (mut good, mut bad) = (0, 0);
    for round in 0..10_000 {
        let mut wild = blocks[rng.below(2)].clone();
        if round % 4 == 0 {
            wild = (0..rng.below(200)).map(|_| rng.next() as u8).collect();
        }
        for _ in 0..1 + rng.below(4) {
            if wild.is_empty() {
                break;
            }
            let at = rng.below(wild.len());
            match rng.below(4) {
                0 => wild[at] = rng.next() as u8,
                1 => wild[at] ^= 1 << rng.below(8),
                2 => wild.truncate(at),
                _ => wild.insert(at, 0xff),
            }
        }
        let mut decoder = Decoder::new(wild.clone().into(), VERSION);
        let mut items = 0;
        let failed = loop {
            match decoder.next_item() {
                Ok(Some(_)) => items += 1,
                Ok(None) => break false,
                Err(CodecError::Refused(_)) => {}
                Err(_) => break true,
            }
        };
        assert!(items <= wild.len(), "an item takes at least a byte");
        assert_eq!(decoder.next_item(), Ok(None), "an error ends the block");
        if failed { bad += 1 } else { good += 1 }
    }
    assert!(bad > 300 && good > 300, "{bad} bad and {good} good ones");
}

#[test]
fn a_bad_item_ends_its_block_and_is_counted() {
    let events = contention(10);
    let mut encoder = super::super::codec::Encoder::default();
    events.iter().take(4).for_each(|event| encoder.event(event, false));
    let mut block = encoder.take();
    block.extend([126 << 1, 0]);
    let mut head = Head::new(Kind::Items, 1);
    head.items = 10;
    let bytes = [capture(&[], 1), head.seal(&block).unwrap()].concat();
    let (read, lost, health) = read(&bytes).unwrap();
    assert!(read == events[..4]);
    assert_eq!((lost, health.damaged), (6, 1));
}

#[test]
fn lengths_beyond_the_block_are_refused_before_anything_is_allocated() {
    // A stack of 2^60 frames, a text of 2^60 bytes, a number of eleven bytes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    let stack = [&[10 << 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8][..], &huge].concat();
    let name = [&[12 << 1, 0, 0, 0, 0][..], &huge].concat();
    let number = [&[2 << 1][..], &[0xff; 11]].concat();
    for block in [stack, name, number] {
        assert!(
            Decoder::new(block.clone().into(), VERSION).next_item().is_err(),
            "{block:?}"
        );
    }
}
