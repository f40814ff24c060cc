//! CPUs that wait for another one to answer an inter-processor interrupt.

use std::collections::HashSet;

use super::super::percpu::{self, Running};
use super::super::spin::LongSpin;
use super::{Board, Sampled};
use crate::event::{Actor, Body, Dependency, DependencySample, Event, Evidence};
use crate::ids::{CpuId, Nanos, Timestamp};
use crate::wire;

/// An inter-processor interrupt is answered in microseconds; after this long it is told.
const UNANSWERED: Nanos = Nanos::from_millis(400);

impl Board {
    /// CPUs that wait for another one to answer.
    pub(super) fn answers(
        &mut self,
        running: &[Running],
        sampled: &[Sampled],
        long: &[LongSpin],
        now: Timestamp,
        out: &mut Vec<Event>,
    ) {
        let requests = || {
            running
                .iter()
                .flat_map(|r| r.requests.iter().map(move |&node| (r, node)))
        };
        let current: HashSet<(CpuId, u64)> = requests().map(|(r, node)| (r.cpu, node)).collect();
        self.unanswered.retain(|key, _| current.contains(key));
        for (target, node) in requests() {
            let since = *self.unanswered.entry((target.cpu, node)).or_insert(now);
            if now.since(since) < UNANSWERED {
                continue;
            }
            let area = self.places.as_ref().and_then(|p| p.area(target.cpu)).unwrap_or(0);
            let sender = percpu::sender(node, area, running).map(|sender| sender.cpu);
            let Some(asking) = sampled.iter().find(|s| Some(s.cpu) == sender && s.asks) else {
                continue;
            };
            let Some(waiter) = self.who(asking) else { continue };
            let time = Timestamp(asking.sample.time);
            let stack = self.stack(&asking.frames, time, out);
            out.extend(wire::task_event(&asking.sample.task, stack, time));
            let on = self.stands_on(target, long);
            out.push(Event {
                time: now,
                body: Body::Dependency(DependencySample {
                    waiter,
                    task: (asking.sample.task.tid != 0).then(|| wire::task_ref(&asking.sample.task)),
                    dependency: Dependency::Ipi { cpu: target.cpu },
                    on,
                    on_task: target.task.clone(),
                    since: None,
                    stack,
                    evidence: Evidence::CpuSample,
                }),
            });
        }
    }

    /// Who keeps a CPU: the interrupt that spins there, or else its thread.
    fn stands_on(&self, on: &Running, long: &[LongSpin]) -> Option<Actor> {
        if let Some(spinning) = self.spinning.get(&on.cpu) {
            return Some(spinning.who);
        }
        let in_interrupt = long.iter().any(|l| l.cpu == on.cpu && !l.in_task);
        on.task
            .as_ref()
            .filter(|_| !in_interrupt)
            .map(|task| Actor::Task(task.key))
    }
}
