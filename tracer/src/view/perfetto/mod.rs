//! A trace for ui.perfetto.dev: a track for each thread with its waits, a track for each lock with those who held it, arrows
//! from a release to the wait that it ended, findings as instants.
//!
//! A lock's owner is known only while somebody waits for it. A slice on its track goes from the first moment at which a
//! thread was seen to own it to the last moment at which it must still have: until it was seen to release it, until a waiter
//! got it, or until the last look. Where nobody looked, nothing is drawn.

mod holds;
mod proto;
mod tracks;

use std::collections::HashMap;
use std::io::{self, Write};

use prost::Message;

use self::holds::{Holds, Span};
use self::proto::{
    Clock, ClockSnapshot, DebugAnnotation, INCREMENTAL_STATE_CLEARED, TracePacket, TrackEvent, Type, clock,
};
use self::tracks::{Track, Tracks};
use crate::capture::Meta;
use crate::diagnosis::{Finding, FindingChange, lock_kind_name};
use crate::event::{Actor, Body, Event, LockKind, Owner, TaskRef, WaitEnd, WaitSample};
use crate::ids::{LockAddr, TaskKey, Timestamp};
use crate::model::Model;

/// All packets come from one writer.
const SEQUENCE: u32 = 1;

/// Writes a trace while events go by.
#[derive(Debug)]
pub struct Perfetto<W> {
    out: W,
    tracks: Tracks,
    holds: Holds,
    waits: HashMap<(Actor, LockAddr), Begun>,
    flows: u64,
    last: Timestamp,
}

#[derive(Debug)]
struct Begun {
    kind: LockKind,
    site: Option<String>,
}

impl<W: Write> Perfetto<W> {
    /// Starts a trace of this recording.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn new(out: W, meta: &Meta) -> io::Result<Self> {
        let mut trace = Self {
            out,
            tracks: Tracks::default(),
            holds: Holds::default(),
            waits: HashMap::new(),
            flows: 0,
            last: Timestamp(0),
        };
        let clocks = meta.clock.map_or_else(Vec::new, |anchor| {
            let reading = |clock, time| Clock {
                clock_id: Some(clock),
                timestamp: Some(time),
            };
            vec![
                reading(clock::MONOTONIC, anchor.monotonic.0),
                reading(clock::REALTIME, anchor.realtime_ns),
                reading(clock::BOOTTIME, anchor.boottime_ns),
            ]
        });
        trace.packet(TracePacket {
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            // Times in the trace are those that holdup shows.
            clock_snapshot: Some(ClockSnapshot {
                clocks,
                primary_trace_clock: Some(clock::MONOTONIC),
            }),
            ..TracePacket::default()
        })?;
        Ok(trace)
    }

    /// Takes in one event with what it changed; `model` has taken it already and knows the names.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn event(&mut self, event: &Event, changes: &[FindingChange], model: &Model) -> io::Result<()> {
        self.last = self.last.max(event.time);
        match &event.body {
            Body::Wait(wait) => self.wait(event.time, wait, model)?,
            Body::WaitEnd(end) => self.wait_end(event.time, end, model)?,
            Body::Release(release) => {
                let span = self.holds.released(release.lock, release.task.key, event.time);
                self.held(release.lock, span, model)?;
                let track = self.thread(&release.task)?;
                self.flows += 1;
                self.holds.arrow(release.lock, self.flows);
                let name = format!("releases {}", lock_name(release.lock, release.kind, model));
                self.instant(event.time, track, name, vec![self.flows], Vec::new(), Vec::new())?;
            }
            _ => {}
        }
        self.changes(model.now(), changes)
    }

    /// What findings became of.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn changes(&mut self, now: Timestamp, changes: &[FindingChange]) -> io::Result<()> {
        for change in changes {
            let (verb, finding) = match change {
                FindingChange::Opened(finding) => ("", finding),
                FindingChange::Changed(finding) => ("now ", finding),
                FindingChange::Closed(closed) => ("over: ", &closed.finding),
            };
            let track = self.track(Track::Findings)?;
            let title = format!("{verb}[{}] {}", finding.certainty, finding.title);
            self.instant(now, track, title, Vec::new(), Vec::new(), annotations(finding))?;
        }
        Ok(())
    }

    /// Ends the trace with the waits that still last.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn finish(mut self, model: &Model) -> io::Result<()> {
        let pending = pending(model);
        let begun = std::mem::take(&mut self.waits).into_iter();
        let mut open: Vec<_> = begun
            .filter_map(|((actor, lock), begun)| Some((*pending.get(&(actor, lock))?, actor, lock, begun)))
            .collect();
        open.sort_by_key(|(since, actor, lock, _)| (*since, *actor, *lock));
        for (from, actor, lock, begun) in open {
            let track = self.actor(actor)?;
            let name = format!("{}, not over", lock_name(lock, begun.kind, model));
            let to = self.last.max(model.now());
            self.slice(track, Span { from, to }, name, begun.site, None)?;
        }
        for (lock, holder, span) in self.holds.finish() {
            self.held(lock, Some((holder, span, None)), model)?;
        }
        self.out.flush()
    }

    fn wait(&mut self, time: Timestamp, wait: &WaitSample, model: &Model) -> io::Result<()> {
        if let Some(task) = &wait.task
            && matches!(wait.waiter, Actor::Task(_))
        {
            self.thread(task)?;
        }
        let begun = self
            .waits
            .entry((place(wait.waiter), wait.lock))
            .or_insert_with(|| Begun {
                kind: wait.kind,
                site: None,
            });
        if begun.site.is_none() {
            begun.site = model.names().site(wait.stack);
        }
        let owner = match &wait.owner {
            Owner::Task(owner) => Some(owner),
            _ => None,
        };
        if let Some(owner) = owner {
            self.thread(owner)?;
        }
        let before = self
            .holds
            .seen(wait.lock, wait.kind, owner.map(|owner| owner.key), time);
        self.held(wait.lock, before, model)
    }

    fn wait_end(&mut self, time: Timestamp, end: &WaitEnd, model: &Model) -> io::Result<()> {
        let Some(begun) = self.waits.remove(&(place(end.waiter), end.lock)) else {
            return Ok(());
        };
        let track = self.actor(end.waiter)?;
        let name = lock_name(end.lock, begun.kind, model);
        let from = time - end.waited;
        if end.result != 0 {
            let failed = format!("{name}: gave up ({})", end.result);
            return self.slice(track, Span { from, to: time }, failed, begun.site, None);
        }
        let waiter = if let Actor::Task(key) = end.waiter {
            Some(key)
        } else {
            None
        };
        let (before, mut arrow) = self.holds.acquired(end.lock, waiter, time);
        if let Some((holder, span, _)) = before {
            // Without a release that was seen, the arrow comes from whoever held it until then.
            let flow = arrow.is_none().then(|| {
                self.flows += 1;
                self.flows
            });
            self.held(end.lock, Some((holder, span, flow)), model)?;
            arrow = arrow.or(flow);
        }
        self.slice(track, Span { from, to: time }, name.clone(), begun.site, None)?;
        if let Some(arrow) = arrow {
            self.instant(time, track, format!("got {name}"), Vec::new(), vec![arrow], Vec::new())?;
        }
        Ok(())
    }

    /// A span of ownership on the lock's track.
    fn held(&mut self, lock: LockAddr, held: Option<(TaskKey, Span, Option<u64>)>, model: &Model) -> io::Result<()> {
        let Some((holder, span, flow)) = held.filter(|(_, span, _)| span.from < span.to) else {
            return Ok(());
        };
        let name = lock_name(lock, self.holds.kind(lock), model);
        let track = self.track(Track::Lock(lock, name))?;
        let holder = match self.tracks.comm(holder) {
            Some(comm) => format!("{comm} ({})", holder.tid),
            None => format!("task {}", holder.tid),
        };
        self.slice(track, span, holder, None, flow)
    }

    fn actor(&mut self, actor: Actor) -> io::Result<u64> {
        match actor {
            Actor::Task(key) => self.track(Track::Thread(key)),
            Actor::Interrupt { cpu, context, .. } => self.track(Track::Interrupt(cpu, context)),
        }
    }

    fn thread(&mut self, task: &TaskRef) -> io::Result<u64> {
        self.tracks.name(task);
        self.track(Track::Thread(task.key))
    }

    fn track(&mut self, track: Track) -> io::Result<u64> {
        let (uuid, descriptors) = self.tracks.uuid(track);
        for descriptor in descriptors {
            self.packet(TracePacket {
                track_descriptor: Some(descriptor),
                ..TracePacket::default()
            })?;
        }
        Ok(uuid)
    }

    fn slice(
        &mut self,
        track: u64,
        span: Span,
        name: String,
        site: Option<String>,
        flow: Option<u64>,
    ) -> io::Result<()> {
        let begin = TrackEvent {
            r#type: Some(Type::SliceBegin.into()),
            track_uuid: Some(track),
            name: Some(name),
            categories: vec!["lock".to_owned()],
            debug_annotations: site.into_iter().map(|site| annotation("call site", site)).collect(),
            flow_ids: flow.into_iter().collect(),
            ..TrackEvent::default()
        };
        let end = TrackEvent {
            r#type: Some(Type::SliceEnd.into()),
            track_uuid: Some(track),
            ..TrackEvent::default()
        };
        self.at(span.from, begin)?;
        self.at(span.to, end)
    }

    fn instant(
        &mut self,
        time: Timestamp,
        track: u64,
        name: String,
        from: Vec<u64>,
        to: Vec<u64>,
        annotations: Vec<DebugAnnotation>,
    ) -> io::Result<()> {
        let event = TrackEvent {
            r#type: Some(Type::Instant.into()),
            track_uuid: Some(track),
            name: Some(name),
            categories: vec!["lock".to_owned()],
            debug_annotations: annotations,
            flow_ids: from,
            terminating_flow_ids: to,
        };
        self.at(time, event)
    }

    fn at(&mut self, time: Timestamp, event: TrackEvent) -> io::Result<()> {
        self.packet(TracePacket {
            timestamp: Some(time.0),
            timestamp_clock_id: Some(clock::MONOTONIC),
            track_event: Some(event),
            ..TracePacket::default()
        })
    }

    /// A trace is a message with nothing but packets: they can be written one by one.
    fn packet(&mut self, packet: TracePacket) -> io::Result<()> {
        let trace = proto::Trace {
            packet: vec![TracePacket {
                trusted_packet_sequence_id: Some(SEQUENCE),
                ..packet
            }],
        };
        self.out.write_all(&trace.encode_to_vec())
    }
}

/// Who waits, for comparisons: an interrupt is known by its CPU and context, whomever it interrupted as far as was seen.
fn place(actor: Actor) -> Actor {
    match actor {
        Actor::Interrupt { cpu, context, .. } => Actor::Interrupt {
            cpu,
            context,
            interrupted: None,
        },
        task @ Actor::Task(_) => task,
    }
}

/// Waits that last, and since when.
fn pending(model: &Model) -> HashMap<(Actor, LockAddr), Timestamp> {
    let entry = |wait: &crate::model::Wait| {
        let key = (
            place(model.actors().get(wait.waiter)?.id),
            model.locks().get(wait.lock)?.addr,
        );
        Some((key, model.wait_since(wait).0))
    };
    model.waits().iter().filter_map(|(_, wait)| entry(wait)).collect()
}

fn lock_name(lock: LockAddr, kind: LockKind, model: &Model) -> String {
    match model.names().lock_name(lock) {
        Some(name) => format!("{} {}", lock_kind_name(kind), name.name),
        None => format!("{} {lock}", lock_kind_name(kind)),
    }
}

fn annotation(name: &str, value: String) -> DebugAnnotation {
    DebugAnnotation {
        name: Some(name.to_owned()),
        string_value: Some(value),
    }
}

fn annotations(finding: &Finding) -> Vec<DebugAnnotation> {
    let mut all = vec![
        annotation("id", finding.id.to_string()),
        annotation("kind", finding.kind.to_string()),
        annotation("severity", finding.severity.to_string()),
        annotation("certainty", finding.certainty.to_string()),
        annotation("victims", finding.victims.count.to_string()),
    ];
    all.extend(
        finding
            .evidence
            .iter()
            .map(|line| annotation(&format!("evidence: {}", line.source), line.text.clone())),
    );
    all
}

#[cfg(test)]
mod tests;
