//! Truncation and flipped bits: what is intact is read, nothing else is believed.

use super::super::frame::HEADER;
use super::super::scan::{Frames, Piece};
use super::*;

/// Offset and length of each frame, with the events in it.
fn layout(bytes: &[u8]) -> Vec<(usize, usize, Vec<Event>)> {
    let mut frames = Frames::new(bytes, 0);
    let mut layout = Vec::new();
    while let Some(piece) = frames.next_piece().unwrap() {
        let Piece::Frame { offset, head, stored } = piece else {
            panic!("{piece:?}")
        };
        let (at, length) = (offset as usize, HEADER + stored.len());
        let frame = &bytes[at..at + length];
        let events = read(frame).map(|(events, ..)| events).unwrap_or_default();
        assert_eq!(events.len(), head.items as usize);
        layout.push((at, length, events));
    }
    layout
}

#[test]
fn cut_at_every_offset_it_gives_exactly_the_whole_frames_before() {
    cut(&capture(&contention(300), 40));
}

#[test]
fn records_cut_at_every_offset_give_exactly_the_whole_frames_before() {
    cut(&capture(&records::stream(150), 30));
}

fn cut(bytes: &[u8]) {
    let layout = layout(bytes);
    assert!(layout.len() > 10);
    for end in 0..bytes.len() {
        let whole: Vec<_> = layout.iter().take_while(|(at, length, _)| at + length <= end).collect();
        match read(&bytes[..end]) {
            Err(ReadError::NoCapture(_)) => assert!(whole.is_empty(), "cut at {end}"),
            Err(other) => panic!("cut at {end}: {other}"),
            Ok((events, lost, health)) => {
                let expected: Vec<Event> = whole.iter().flat_map(|(.., events)| events.clone()).collect();
                assert!(events == expected, "cut at {end}");
                assert_eq!(health.intact, whole.len() as u64, "cut at {end}");
                let border = whole.last().map_or(0, |(at, length, _)| at + length) == end;
                assert_eq!(
                    (lost, health.damaged, health.torn, health.finished),
                    (0, 0, !border, false),
                    "cut at {end}"
                );
            }
        }
    }
}

#[test]
fn a_hundred_thousand_flipped_bits_cost_the_frames_they_hit_and_no_other() {
    flip(&capture(&contention(12), 8));
}

#[test]
fn a_hundred_thousand_flipped_bits_cost_no_record_of_another_frame() {
    flip(&capture(&records::stream(8), 6));
}

fn flip(bytes: &[u8]) {
    let layout = layout(bytes);
    let mut rng = Rng(0xfeed);
    let mut damaged = bytes.to_vec();
    for _ in 0..100_000 {
        let bit = rng.below(bytes.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        let hit = layout
            .iter()
            .position(|(at, length, _)| (*at..at + length).contains(&(bit / 8)))
            .unwrap();
        let (events, lost, health) = read(&damaged).unwrap();
        let rest = layout.iter().enumerate().filter(|&(n, _)| n != hit);
        let expected: Vec<Event> = rest.flat_map(|(_, (.., events))| events.clone()).collect();
        assert!(events == expected, "bit {bit}");
        assert!(!health.is_sound(), "bit {bit}: {health:?}");
        assert_eq!(health.intact, layout.len() as u64 - 1, "bit {bit}");
        assert_eq!(
            health.intact + health.damaged,
            layout.len() as u64,
            "bit {bit}: {health}"
        );
        assert!(lost >= u64::from(!layout[hit].2.is_empty()), "bit {bit}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn missing_and_inserted_bytes_cost_one_frame() {
    let events = contention(120);
    let bytes = capture(&events, 40);
    let frames = layout(&bytes);
    let (at, length, _) = frames[2];
    for (from, to, insert) in [
        (at + 60, at + 70, 0),
        (at + 3, at + 9, 0),
        (at + 60, at + 60, 500),
        (at, at, 3),
        (at, at + length, 0),
    ] {
        let damaged = [&bytes[..from], &vec![0x55; insert], &bytes[to..]].concat();
        let (read, lost, health) = read(&damaged).unwrap();
        // Bytes between two frames harm neither.
        let hit = usize::from(from != to || from != at);
        assert_eq!(
            health.intact as usize,
            frames.len() - hit,
            "{from} {to} {insert}: {health}"
        );
        assert_eq!(health.damaged as usize, hit, "{from} {to} {insert}: {health}");
        assert_eq!(read.len(), events.len() - hit * 40, "{from} {to} {insert}");
        assert_eq!(lost > 0, hit > 0);
    }
}

#[test]
fn captures_one_after_the_other_are_one() {
    let (one, two) = (contention(20), contention(30));
    let bytes = [capture(&one, 16), capture(&two, 16)].concat();
    let (events, lost, health) = read(&bytes).unwrap();
    assert!(events == [one, two].concat());
    assert_eq!((lost, health.is_sound()), (0, true));
}
