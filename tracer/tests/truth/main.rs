//! Properties: whatever is lost, doubled or reordered, no deadlock is called proven that was not there; and when everything
//! arrives, every deadlock is found.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod anything;
mod simulator;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use simulator::{Action, Cycle, Kernel};
use tracer::diagnosis::{Certainty, Engine, Finding, FindingChange, Kind};
use tracer::event::Event;
use tracer::ids::Nanos;
use tracer::model::{Model, Settings};

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(task, lock)| Action::Take { task, lock }),
        2 => (any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(task, nth, hand_off)| Action::Release { task, nth, hand_off }),
        3 => any::<u8>().prop_map(|task| Action::Step { task }),
        1 => any::<u8>().prop_map(|task| Action::Spurious { task }),
        1 => any::<u8>().prop_map(|task| Action::Kill { task }),
        2 => (0..80_u8).prop_map(|ms| Action::Pass { ms }),
        2 => any::<u8>().prop_map(|task| Action::Read { task }),
        3 => Just(Action::Round),
    ]
}

/// What may happen to one event on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Doubled,
    /// Arrives after so many later ones.
    Late(u8),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Doubled),
        1 => (1..20_u8).prop_map(Fate::Late),
    ]
}

/// The stream after losses, duplication and reordering.
fn mangled(events: &[Event], fates: &[Fate]) -> Vec<Event> {
    let mut arrivals: Vec<(usize, &Event)> = Vec::new();
    for (i, event) in events.iter().enumerate() {
        match fates.get(i % fates.len().max(1)).copied().unwrap_or(Fate::Arrives) {
            Fate::Arrives => arrivals.push((i, event)),
            Fate::Lost => {}
            Fate::Doubled => arrivals.extend([(i, event), (i + 3, event)]),
            Fate::Late(by) => arrivals.push((i + usize::from(by), event)),
        }
    }
    arrivals.sort_by_key(|&(at, _)| at);
    arrivals.into_iter().map(|(_, event)| event.clone()).collect()
}

fn cycle(finding: &Finding) -> Option<Cycle> {
    matches!(finding.kind, Kind::SelfDeadlock | Kind::Cycle)
        .then(|| finding.tasks.iter().map(|t| t.name.tid.0).collect())
}

/// The shortest intervals: the logic must hold for itself, without the patience that the defaults add.
fn settings() -> Settings {
    Settings {
        proof_interval: Nanos(1),
        likely_interval: Nanos(1),
        ..Settings::default()
    }
}

/// Opened, changed and closed findings follow each other as they must.
#[derive(Default)]
struct Ledger(BTreeSet<String>);

impl Ledger {
    fn note(&mut self, changes: &[FindingChange]) {
        for change in changes {
            match change {
                FindingChange::Opened(f) => assert!(self.0.insert(f.id.to_string()), "{} opened twice", f.id),
                FindingChange::Changed(f) => assert!(self.0.contains(&f.id.to_string()), "{} changed unopened", f.id),
                FindingChange::Closed(c) => {
                    assert!(
                        self.0.remove(&c.finding.id.to_string()),
                        "{} closed unopened",
                        c.finding.id
                    );
                }
            }
        }
    }
}

/// What is open, without when it was opened.
fn open(engine: &Engine) -> BTreeMap<String, Finding> {
    let without = |f: &Finding| Finding {
        opened: f.since,
        ..f.clone()
    };
    engine
        .open()
        .into_iter()
        .map(|f| (f.id.to_string(), without(f)))
        .collect()
}

proptest! {
    /// Nothing proven, and nothing likely, that was never there; whatever happens to the events.
    #[test]
    fn no_deadlock_is_reported_that_never_was(
        actions in prop::collection::vec(action(), 1..250),
        fates in prop::collection::vec(fate(), 1..64),
    ) {
        let mut kernel = Kernel::new();
        for &action in &actions {
            kernel.act(action);
        }
        let (mut model, mut engine, mut ledger) = (Model::new(settings()), Engine::new(), Ledger::default());
        for event in mangled(&kernel.events, &fates) {
            model.apply(&event);
            ledger.note(&engine.update(&model));
            for finding in engine.open() {
                let Some(cycle) = cycle(finding).filter(|_| finding.certainty >= Certainty::Proven) else { continue };
                prop_assert!(kernel.ever.contains(&cycle), "{finding:#?} was never there: {:?}", kernel.ever);
            }
            anything::check_invariants(&model);
        }
        prop_assert_eq!(open(&engine), { let mut fresh = Engine::new(); fresh.update(&model); open(&fresh) });
    }

    /// With every event in order: what is reported as proven or likely is there at that time, and after some rounds every
    /// deadlock is proven.
    #[test]
    fn with_all_events_every_deadlock_is_found_and_none_is_invented(actions in prop::collection::vec(action(), 1..250)) {
        let mut kernel = Kernel::new();
        let (mut model, mut engine) = (Model::new(settings()), Engine::new());
        let mut told = 0;
        let rounds = [Action::Pass { ms: 120 }, Action::Round].repeat(7);
        for (i, &action) in actions.iter().chain(&rounds).enumerate() {
            kernel.act(action);
            for event in &kernel.events[told..] {
                model.apply(event);
            }
            told = kernel.events.len();
            engine.update(&model);
            let there = kernel.cycles();
            for finding in engine.open() {
                let Some(cycle) = cycle(finding) else { continue };
                prop_assert!(kernel.ever.contains(&cycle), "{finding:#?} was never there");
                // A wait that has begun but is not asleep for good yet is told by its end only.
                let told_over = finding.certainty >= Certainty::Proven;
                prop_assert!(!told_over || there.contains(&cycle), "action {i}: {finding:#?} is not there any more");
            }
        }
        let proven: BTreeSet<Cycle> =
            engine.open().into_iter().filter(|f| f.certainty == Certainty::Proven).filter_map(cycle).collect();
        prop_assert_eq!(proven, kernel.cycles());
    }
}
