//! What was written is what is read.

use std::io::Write as _;

use super::super::frame::{HEADER, MAX_RAW};
use super::super::{Overview, WriteError};
use super::*;

#[test]
fn every_event_survives_in_frames_of_every_size() {
    let events = every_event();
    assert!(events.len() > 100, "{}", events.len());
    for size in [1, 2, 7, events.len()] {
        let (read, lost, health) = read(&capture(&events, size)).unwrap();
        assert!(read == events, "frames of {size}");
        assert_eq!((lost, health.is_sound(), health.finished), (0, true, true));
    }
}

#[test]
fn random_streams_survive() {
    let pool = every_event();
    let mut rng = Rng(99);
    for _ in 0..200 {
        let mut events: Vec<Event> = (0..rng.below(300))
            .map(|_| pool[rng.below(pool.len())].clone())
            .collect();
        events
            .iter_mut()
            .for_each(|event| event.time = Timestamp(rng.next() >> rng.below(64)));
        let bytes = capture(&events, 1 + rng.below(100));
        assert!(read(&bytes).unwrap().0 == events);
    }
}

#[test]
fn contention_takes_few_bytes() {
    let events = contention(20_000);
    let bytes = capture(&events, events.len());
    let per_event = bytes.len() as f64 / events.len() as f64;
    assert!(per_event < 8.0, "{per_event} bytes per event");
    assert!(read(&bytes).unwrap().0 == events);
}

#[test]
fn the_index_tells_what_the_frames_hold() {
    let events = contention(500);
    let mut writer = Writer::new(Memory::default(), meta(), None).unwrap();
    for (n, event) in events.iter().enumerate() {
        writer.event(event, &()).unwrap();
        if n % 100 == 99 {
            writer.found(u32::from(n == 299), &()).unwrap();
        }
    }
    let (memory, totals) = writer.finish().unwrap();
    let bytes = &memory.files[0];
    assert_eq!((totals.events, totals.lost, totals.files), (events.len() as u64, 0, 1));
    assert_eq!(totals.bytes, bytes.len() as u64);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let finished = Overview::of(file.path()).unwrap();
    assert!(finished.indexed);
    assert_eq!((finished.meta.clone(), finished.items()), (meta(), events.len() as u64));
    let (first, last) = (events.iter().map(|e| e.time).min(), events.iter().map(|e| e.time).max());
    assert_eq!(finished.span(), first.zip(last));
    assert_eq!(finished.findings().count(), 1);
    let opened = events[200..300].iter().map(|e| e.time).max();
    assert_eq!(finished.findings().next(), opened);
    // Without its end the same index comes from the headers.
    file.as_file().set_len(bytes.len() as u64 - 1).unwrap();
    let rebuilt = Overview::of(file.path()).unwrap();
    assert!(!rebuilt.indexed);
    assert_eq!(
        rebuilt,
        Overview {
            indexed: false,
            ..finished
        }
    );
}

#[test]
fn an_event_larger_than_a_frame_is_an_error() {
    let mut writer = Writer::new(Memory::default(), meta(), None).unwrap();
    let mut rng = Rng(5);
    let name: String = (0..MAX_RAW).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
    let body = Body::LockName(LockName {
        lock: LockAddr(8),
        name: name.into(),
        source: "".into(),
        class: None,
    });
    let result = writer.event(
        &Event {
            time: Timestamp(1),
            body,
        },
        &(),
    );
    assert!(matches!(result, Err(WriteError::Seal(_))), "{result:?}");
}

#[test]
fn an_empty_recording_is_a_capture() {
    let bytes = capture(&[], 1);
    assert!(bytes.len() > HEADER);
    let (events, lost, health) = read(&bytes).unwrap();
    assert!(events.is_empty() && lost == 0 && health.is_sound() && health.finished);
}

#[test]
fn what_the_disk_did_not_take_is_a_counted_loss() {
    use super::super::{Sink, SinkError};
    use crate::event::{LossCause, LossReport};

    /// Refuses the frames with these numbers.
    struct Slow(Memory, Vec<u32>, u32);
    impl Sink for Slow {
        fn frame(&mut self, frame: Bytes) -> Result<bool, SinkError> {
            self.2 += 1;
            if self.1.contains(&self.2) {
                Ok(false)
            } else {
                self.0.frame(frame)
            }
        }
        fn file(&mut self, header: Bytes) -> Result<(), SinkError> {
            self.0.file(header)
        }
    }

    let mut writer = Writer::new(Slow(Memory::default(), vec![2], 0), meta(), None).unwrap();
    let events = contention(20);
    let report = |count| {
        let by_cause = vec![(LossCause::RingFull, count)];
        Event {
            time: Timestamp(5),
            body: Body::Loss(LossReport { by_cause }),
        }
    };
    for part in [&events[..10], &events[10..20], &events[20..30]] {
        part.iter().for_each(|event| writer.event(event, &()).unwrap());
        writer.event(&report(3), &()).unwrap();
        writer.found(0, &()).unwrap();
    }
    let (slow, totals) = writer.finish().unwrap();
    assert_eq!(totals.lost, 11, "ten events and a report");
    let (read, lost, health) = read(&slow.0.files[0]).unwrap();
    assert_eq!((lost, health.damaged), (1, 1), "the frame is missing");
    let reports: Vec<&LossReport> = read
        .iter()
        .filter_map(|event| {
            if let Body::Loss(report) = &event.body {
                Some(report)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(reports[0].by_cause, [(LossCause::RingFull, 3)]);
    assert!(
        reports[1..]
            .iter()
            .all(|r| r.by_cause == [(LossCause::RingFull, 3), (LossCause::Overrun, 11)])
    );
    assert!(reports.len() > 1);
}
