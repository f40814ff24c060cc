//! Rotation: each file can be read alone, all together are the recording.

use super::super::Known;
use super::*;
use crate::event::{LossCause, LossReport};
use crate::model::{Model, Settings};

fn recorded(events: &[Event], max_size: u64) -> Memory {
    let mut writer = Writer::new(Memory::default(), meta(), Some(max_size)).unwrap();
    let mut model = Model::new(Settings::default());
    for (n, event) in events.iter().enumerate() {
        model.apply(event);
        writer.event(event, &model).unwrap();
        if n % 50 == 49 {
            writer.found(0, &model).unwrap();
        }
    }
    writer.finish().unwrap().0
}

fn items(bytes: &[u8]) -> (Meta, Vec<Event>, Vec<Event>) {
    let mut items = Items::new(bytes);
    let (mut meta, mut carried, mut fresh) = (Meta::default(), Vec::new(), Vec::new());
    while let Some(content) = items.next_content().unwrap() {
        match content {
            Content::Meta(found) => meta = *found,
            Content::Item(item) if item.carried => carried.push(item.event),
            Content::Item(item) => fresh.push(item.event),
            Content::Record(_) => {}
            Content::Lost(_) => panic!("lost"),
        }
    }
    assert!(items.health().is_sound() && items.health().finished);
    (meta, carried, fresh)
}

#[test]
fn files_keep_their_size_and_together_hold_everything_once() {
    let events = contention(4000);
    let memory = recorded(&events, 4096);
    assert!(memory.files.len() > 5, "{}", memory.files.len());
    let mut all = Vec::new();
    for (part, file) in memory.files.iter().enumerate() {
        assert!(file.len() < 8192, "file {part} has {} bytes", file.len());
        let (meta, carried, fresh) = items(file);
        assert_eq!((meta.part as usize, meta.recording.as_str()), (part, "r"));
        assert_eq!(carried.is_empty(), part == 0);
        all.extend(fresh);
    }
    assert!(all == events);
}

#[test]
fn each_file_has_the_names_that_its_events_need() {
    let memory = recorded(&contention(4000), 4096);
    for (part, file) in memory.files.iter().enumerate() {
        let mut alone = Model::new(Settings::default());
        let mut checked = 0;
        let mut items = Items::new(file.as_ref());
        while let Some(content) = items.next_content().unwrap() {
            let Content::Item(item) = content else { continue };
            alone.apply(&item.event);
            if let Body::Wait(wait) = &item.event.body {
                let frames = alone
                    .stack(wait.stack)
                    .unwrap_or_else(|| panic!("file {part} lacks a stack"))
                    .frames;
                assert!(
                    frames.iter().all(|&frame| alone.symbol(frame).is_some()),
                    "file {part} lacks a symbol"
                );
                assert!(alone.lock_name(wait.lock).is_some(), "file {part} lacks a lock's name");
                checked += 1;
            }
        }
        assert!(checked > 0, "file {part} has no waits");
    }
}

#[test]
fn open_waits_and_losses_are_carried_over() {
    let lock = 0xffff_8880_4400_0000;
    let mut events = names(lock);
    let [begin, end] = wait(7, lock, 5_000, 100);
    let [open, _] = wait(8, lock, 6_000, 0);
    let loss = LossReport {
        by_cause: vec![(LossCause::RingFull, 4)],
    };
    let loss = Event {
        time: Timestamp(6_500),
        body: Body::Loss(loss),
    };
    events.extend([begin, end, open.clone(), loss.clone()]);
    events.extend(contention(300));
    let memory = recorded(&events, 4096);
    assert!(memory.files.len() > 1);
    let (_, carried, _) = items(memory.files.last().unwrap());
    let waits: Vec<&Event> = carried.iter().filter(|event| event.time < Timestamp(10_000)).collect();
    assert!(waits.contains(&&open), "{waits:?}");
    let ended = |event: &&&Event| matches!(&event.body, Body::Wait(wait) if wait.task == Some(task(7)));
    assert_eq!(waits.iter().find(ended), None);
    let losses: Vec<&Body> = carried
        .iter()
        .map(|event| &event.body)
        .filter(|b| matches!(b, Body::Loss(_)))
        .collect();
    assert_eq!(losses, [&loss.body]);
}
