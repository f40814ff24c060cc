//! What the samples say: which CPUs have stood still on a lock, and since when.

use super::super::standstill::{self, Spin};
use super::{Board, STILL, STREAK, Sampled, Spinning};
use crate::event::{Actor, Body, Context, Event, Evidence, Phase, Queued, StackFrames, WaitEnd, WaitSample};
use crate::ids::{KernelAddr, StackId, Timestamp};
use crate::wire;

impl Board {
    pub(super) fn look(&mut self, sampled: &[Sampled], now: Timestamp, out: &mut Vec<Event>) {
        // A CPU that spins has counted its own attempt, if attempts are counted at all.
        self.counted |= sampled
            .iter()
            .any(|s| s.spin.is_some() && standstill::spinlocks(&s.sample).is_some_and(|n| n > 0));
        for s in sampled {
            if standstill::is_free(&s.sample, self.counted) {
                self.free.insert(s.cpu, Timestamp(s.sample.time));
            }
        }
        for s in sampled {
            let still = Timestamp(s.sample.time).since(standstill::still_since(&s.sample));
            if let Some(spin) = &s.spin
                && s.sample.streak >= STREAK
                && still >= STILL
            {
                self.spins(s, spin, out);
            }
        }
        self.ended(now, sampled, out);
    }

    /// Who runs on a sampled CPU; `None` for the idle thread.
    pub(super) fn who(&self, s: &Sampled) -> Option<Actor> {
        let context = standstill::context(&s.sample, &s.frames, self.symbols.as_deref());
        // The idle thread is no thread that could be named or held to account.
        let thread = (s.sample.task.tid != 0).then(|| wire::task_ref(&s.sample.task).key);
        match (context, thread) {
            (Context::Task, thread) => thread.map(Actor::Task),
            (context, interrupted) => Some(Actor::Interrupt {
                cpu: s.cpu,
                context,
                interrupted,
            }),
        }
    }

    /// A CPU has stood still in a lock's slowpath for long.
    fn spins(&mut self, s: &Sampled, spin: &Spin, out: &mut Vec<Event>) {
        let time = Timestamp(s.sample.time);
        let Some(who) = self.who(s) else { return };
        let stack = self.stack(&s.frames, time, out);
        // The stack of an interrupted thread begins below the interrupt: it goes with the interrupt's wait.
        out.extend(wire::task_event(&s.sample.task, StackId(0), time));
        let since = standstill::still_since(&s.sample);
        // It goes on only if the CPU has stood still since it was last looked at.
        let known = self
            .spinning
            .get(&s.cpu)
            .filter(|k| k.who == who && k.lock == spin.lock && since <= k.seen)
            .copied();
        if known.is_none() {
            out.extend(self.spinning.remove(&s.cpu).map(|over| end(over, since)));
        }
        let since = known.map_or(since, |k| k.since);
        let wait = |time| Event {
            time,
            body: Body::Wait(WaitSample {
                waiter: who,
                task: (s.sample.task.tid != 0).then(|| wire::task_ref(&s.sample.task)),
                lock: spin.lock,
                kind: spin.kind,
                mode: spin.mode,
                phase: Phase::Spinning,
                since: None,
                owner_word: spin.word.into(),
                owner: spin.owner.clone(),
                queued: Queued::Unknown,
                cpu: Some(s.cpu),
                stack,
                evidence: Evidence::CpuSample,
            }),
        };
        if known.is_none() {
            out.push(wait(since));
        }
        out.push(wait(time));
        self.spinning.insert(
            s.cpu,
            Spinning {
                who,
                lock: spin.lock,
                kind: spin.kind,
                since,
                seen: time,
                behind: Some(spin.behind),
            },
        );
    }

    /// Says of CPUs which do something else by now that their wait is over.
    fn ended(&mut self, now: Timestamp, sampled: &[Sampled], out: &mut Vec<Event>) {
        for s in sampled {
            let Some(&spinning) = self.spinning.get(&s.cpu) else {
                continue;
            };
            // The wait of this round's sample was reported just now.
            if spinning.seen >= Timestamp(s.sample.time) {
                continue;
            }
            self.spinning.remove(&s.cpu);
            out.push(end(spinning, now));
        }
    }

    pub(super) fn stack(&mut self, frames: &[KernelAddr], time: Timestamp, out: &mut Vec<Event>) -> StackId {
        if frames.is_empty() {
            return StackId(0);
        }
        let id = wire::stack_id(frames);
        if self.stacks.insert(id) {
            out.push(Event {
                time,
                body: Body::Stack(StackFrames {
                    id,
                    frames: frames.into(),
                    pieced: false,
                }),
            });
        }
        id
    }
}

/// The event that tells of a stack which was pieced together, and its identity: never that of a stack that was unwound.
pub(super) fn pieced(frames: &[KernelAddr], time: Timestamp) -> (StackId, Event) {
    let id = StackId(!wire::stack_id(frames).0);
    let body = Body::Stack(StackFrames {
        id,
        frames: frames.into(),
        pieced: true,
    });
    (id, Event { time, body })
}

pub(super) fn end(over: Spinning, time: Timestamp) -> Event {
    Event {
        time,
        body: Body::WaitEnd(WaitEnd {
            waiter: over.who,
            lock: over.lock,
            result: 0,
            waited: time.since(over.since),
        }),
    }
}
