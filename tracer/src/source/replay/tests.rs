use std::io::Write as _;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::capture::{Memory, Writer};
use crate::diagnosis::{FindingChange, Kind};
use crate::event::{
    Actor, Evidence, LockKind, LockName, Mode, Owner, Phase, Queued, Round, RoundEdge, RoundScope, TaskRef, TaskSample,
    TaskState, WaitSample,
};
use crate::ids::{CpuId, LockAddr, StackId, TaskKey, Tgid, Tid};
use crate::model::Settings;
use crate::pipeline::Pipeline;
use crate::player::{Change, Player, Reached};

const MS: u64 = 1_000_000;

fn task(tid: u32) -> TaskRef {
    let key = TaskKey {
        tid: Tid(tid),
        start: Timestamp(5),
    };
    TaskRef {
        key,
        tgid: Tgid(tid),
        comm: format!("task{tid}").into(),
    }
}

fn at(ms: u64, body: Body) -> Event {
    Event {
        time: Timestamp(ms * MS),
        body,
    }
}

fn waits(ms: u64, tid: u32, lock: u64, owner: u32, since: u64) -> [Event; 2] {
    let sample = TaskSample {
        cpu: Some(CpuId(1)),
        switches: Some(9),
        ..TaskSample::of(task(tid), TaskState::Uninterruptible)
    };
    let wait = WaitSample {
        waiter: Actor::Task(task(tid).key),
        task: Some(task(tid)),
        lock: LockAddr(lock),
        kind: LockKind::Mutex,
        mode: Mode::Exclusive,
        phase: Phase::Sleeping,
        since: Some(Timestamp(since * MS)),
        owner_word: 0xffff_8880_0000_1000 + u64::from(owner) * 64,
        owner: Owner::Task(task(owner)),
        queued: Queued::At(0),
        cpu: None,
        stack: StackId(0),
        evidence: Evidence::Reread,
    };
    [at(ms, Body::Task(sample)), at(ms, Body::Wait(wait))]
}

/// Four seconds: two tasks lock each other out after one second, a third waits behind them.
fn story() -> Vec<Event> {
    let name = LockName {
        lock: LockAddr(0x1000),
        name: "alpha".into(),
        source: Arc::from("kernel symbol"),
        class: None,
    };
    let mut events = vec![at(1, Body::LockName(name))];
    for number in 0..16 {
        let now = 250 * number;
        let round = |edge| {
            Body::Round(Round {
                number,
                edge,
                scope: RoundScope::Pending,
            })
        };
        events.push(at(now, round(RoundEdge::Begin)));
        if now >= 1000 {
            events.extend(waits(now, 1, 0x1000, 2, 900));
            events.extend(waits(now, 2, 0x2000, 1, 950));
        }
        if now >= 2000 {
            events.extend(waits(now, 3, 0x1000, 2, 1900));
        }
        events.push(at(now, round(RoundEdge::End)));
    }
    events
}

fn changes_of(events: &[Event]) -> Vec<Change> {
    let mut pipeline = Pipeline::new(Settings::default(), SourceFacts::default());
    let mut all = Vec::new();
    for event in events {
        let changes = pipeline.apply(event);
        all.extend(changes.into_iter().map(|change| Change {
            time: pipeline.now(),
            change,
        }));
    }
    let changes = pipeline.finish();
    all.extend(changes.into_iter().map(|change| Change {
        time: pipeline.now(),
        change,
    }));
    assert!(
        all.iter()
            .any(|c| matches!(&c.change, FindingChange::Opened(f) if f.kind == Kind::Cycle))
    );
    all
}

fn record(events: &[Event], max_size: Option<u64>) -> (TempDir, Vec<PathBuf>) {
    let meta = Meta {
        recording: "r".into(),
        kernel: "6.1".into(),
        ..Meta::default()
    };
    let mut writer = Writer::new(Memory::default(), meta, max_size).unwrap();
    let mut pipeline = Pipeline::new(Settings::default(), SourceFacts::default());
    for (n, event) in events.iter().enumerate() {
        let opened = pipeline
            .apply(event)
            .iter()
            .filter(|c| matches!(c, FindingChange::Opened(_)))
            .count();
        writer.event(event, pipeline.model()).unwrap();
        if opened > 0 || n % 8 == 7 {
            writer.found(opened as u32, pipeline.model()).unwrap();
        }
    }
    let (memory, _) = writer.finish().unwrap();
    let directory = TempDir::new().unwrap();
    let paths = memory.files.iter().enumerate().map(|(n, bytes)| {
        let path = directory.path().join(format!("part{n}"));
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    });
    let paths = paths.collect();
    (directory, paths)
}

fn player(paths: &[PathBuf]) -> Player {
    Player::new(Replay::open(paths).unwrap())
}

fn played(player: &mut Player) -> Vec<Change> {
    let mut changes = Vec::new();
    while player.advance(Timestamp(u64::MAX), 7, &mut changes).unwrap() != Reached::End {}
    changes
}

#[test]
fn a_replay_finds_what_the_live_run_found_at_the_same_times() {
    let live = changes_of(&story());
    let (_directory, paths) = record(&story(), None);
    assert_eq!(played(&mut player(&paths)), live);
}

#[test]
fn all_files_of_a_recording_together_find_the_same_in_any_order() {
    let live = changes_of(&story());
    let (_directory, mut paths) = record(&story(), Some(700));
    assert!(paths.len() > 2, "{}", paths.len());
    paths.reverse();
    assert_eq!(played(&mut player(&paths)), live);
    // The last half knows the cycle, too, and that it is not the whole story.
    let mut late = player(&paths[..paths.len() / 2]);
    let cycle =
        |change: &Change| matches!(&change.change, FindingChange::Opened(finding) if finding.kind == Kind::Cycle);
    assert!(played(&mut late).iter().any(cycle));
    let limits = late.replay().facts().limits;
    assert!(limits.iter().any(|limit| limit.contains("first")), "{limits:?}");
}

#[test]
fn seeking_gives_the_state_of_that_time_from_either_side() {
    let (_directory, paths) = record(&story(), None);
    let state_at = |ms: u64| {
        let mut player = player(&paths);
        player.seek(Timestamp(ms * MS)).unwrap();
        player.pipeline().report()
    };
    let mut player = player(&paths);
    for ms in [500, 3000, 1250, 1251, 0, 9000, 2000] {
        player.seek(Timestamp(ms * MS)).unwrap();
        assert_eq!(player.pipeline().report(), state_at(ms), "at {ms} ms");
        assert_eq!(player.ended(), ms == 9000);
    }
}

#[test]
fn the_next_finding_is_found_by_playing_and_in_the_index() {
    let (_directory, paths) = record(&story(), None);
    let mut player = player(&paths);
    let mut times = Vec::new();
    loop {
        let changes = player.next_finding().unwrap();
        let Some(first) = changes.first() else { break };
        times.push(first.time);
    }
    assert!(!times.is_empty());
    assert_eq!(player.replay().findings(), times);
    assert_eq!(player.replay().events(), Some(story().len() as u64));
    assert_eq!(player.replay().span(), Some((Timestamp(0), Timestamp(3750 * MS))));
}

#[test]
fn damage_becomes_a_loss_that_weakens_what_follows() {
    let (_directory, paths) = record(&story(), None);
    let mut bytes = std::fs::read(&paths[0]).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 0x10;
    std::fs::write(&paths[0], bytes).unwrap();
    let mut player = player(&paths);
    let mut losses = Vec::new();
    while player
        .step(|played| {
            if let Some(Event {
                body: Body::Loss(report),
                ..
            }) = played.event
            {
                losses.push(report.by_cause.clone());
            }
            Ok(())
        })
        .unwrap()
    {}
    let [by_cause] = losses.as_slice() else {
        panic!("{losses:?}")
    };
    assert!(
        matches!(by_cause.as_slice(), [(LossCause::Malformed, 1..=8)]),
        "{by_cause:?}"
    );
    let [line] = player.replay().damage().try_into().unwrap();
    assert!(line.contains("1 damaged") && line.contains("part0"), "{line}");
    // What the recording counted later goes on from there.
    let report = LossReport {
        by_cause: vec![(LossCause::RingFull, 2), (LossCause::Malformed, 1)],
    };
    let item = Item {
        event: Event {
            time: Timestamp(9),
            body: Body::Loss(report),
        },
        carried: false,
    };
    let event = player.replay_mut().item(item).unwrap();
    let Body::Loss(report) = event.body else {
        panic!("{event:?}")
    };
    assert_eq!(
        report.by_cause,
        [(LossCause::RingFull, 2), (LossCause::Malformed, 1 + by_cause[0].1)]
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (_one, first) = record(&story(), None);
    let (_two, second) = record(&story(), None);
    let error = Replay::open(&[first[0].clone(), second[0].clone()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("same part"), "{error}");
    let missing = Replay::open(&[PathBuf::from("/no/such/file")]).unwrap_err();
    assert!(format!("{missing:#}").contains("/no/such/file"), "{missing:#}");
}
