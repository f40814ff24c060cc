//! Sampling rounds: what a complete one does not report any more has ended. One that was cut short proves nothing.

use super::Model;
use super::actors::Actors;
use super::arena::{ActorIx, WaitIx};
use crate::event::{Evidence, LossCause, Round, RoundEdge, RoundScope};
use crate::ids::{Nanos, Timestamp};

/// Losses which may have swallowed a part of a round.
const TOUCHES_ROUND: [LossCause; 2] = [LossCause::Malformed, LossCause::Overrun];

/// What the CPU sampler has seen counts for this long.
const SAMPLED: Nanos = Nanos::from_secs(2);

/// State of the rounds of one scope.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounds {
    open: Option<(u64, Timestamp, u64)>,
    last: u64,
    /// Begin of the newest complete round.
    pub complete: Option<Timestamp>,
}

impl Model {
    pub(super) fn apply_round(&mut self, time: Timestamp, round: &Round) {
        let lost = self.lost_in_rounds();
        let state = match round.scope {
            RoundScope::Pending => &mut self.pending_rounds,
            RoundScope::AllTasks => &mut self.scan_rounds,
        };
        match round.edge {
            RoundEdge::Begin if round.number > state.last || state.complete.is_none() => {
                state.open = Some((round.number, time, lost));
            }
            RoundEdge::Begin => {}
            RoundEdge::Aborted => state.open = None,
            RoundEdge::End => {
                let Some((number, begin, lost_before)) = state.open.take() else {
                    return;
                };
                if number != round.number || time < begin || lost != lost_before {
                    return;
                }
                state.last = number;
                state.complete = Some(begin);
                match round.scope {
                    RoundScope::Pending => self.pending_round_done(begin, time),
                    RoundScope::AllTasks => self.scan_done(begin, time),
                }
            }
        }
    }

    fn lost_in_rounds(&self) -> u64 {
        self.losses
            .totals()
            .filter(|(cause, _)| TOUCHES_ROUND.contains(cause))
            .map(|(_, n)| n)
            .sum()
    }

    /// Ends the probed waits that this round should have reported and has not.
    fn pending_round_done(&mut self, begin: Timestamp, end: Timestamp) {
        let over: Vec<WaitIx> = self
            .waits
            .iter()
            .filter(|(_, wait)| {
                let reportable = wait.in_rounds
                    || begin.since(wait.since.unwrap_or(wait.seen.first)) >= self.settings.pending_threshold;
                wait.probed && wait.seen.last < begin && reportable
            })
            .map(|(ix, _)| ix)
            .collect();
        self.end_unreported(over, end);
    }

    /// Ends the scanned waits, dependencies and holder candidates that this walk over all threads has not found any more.
    fn scan_done(&mut self, begin: Timestamp, end: Timestamp) {
        let over: Vec<WaitIx> = self
            .waits
            .iter()
            .filter(|(_, wait)| {
                let not_run = self
                    .actors
                    .get(wait.waiter)
                    .and_then(|a| a.asleep)
                    .is_some_and(|asleep| asleep.span.first <= wait.seen.last && asleep.span.last >= begin);
                wait.scanned && wait.seen.last < begin && !not_run
            })
            .map(|(ix, _)| ix)
            .collect();
        self.end_unreported(over, end);
        let over = |actors: &Actors, ix| {
            let actor = actors.get(ix);
            let dependency = actor.and_then(|a| a.dependency.as_deref());
            // What was initialised again does not know its waiter any more: it waits as long as it has not run.
            if let Some(d) = dependency
                && let Some(addr) = d.dependency.object()
                && self.reinits.iter().any(|r| r.event.lock.0 == addr.0)
                && actor
                    .and_then(|a| a.asleep)
                    .is_some_and(|asleep| asleep.span.first <= d.seen.last && asleep.span.last >= begin)
            {
                return false;
            }
            // What a CPU waits for is seen by the sampler, not by this walk.
            dependency.is_none_or(|d| {
                let patience = if d.evidence == Evidence::CpuSample {
                    SAMPLED
                } else {
                    Nanos(0)
                };
                d.seen.last + patience < begin
            })
        };
        let depending: Vec<ActorIx> = self
            .depending
            .iter()
            .copied()
            .filter(|&ix| over(&self.actors, ix))
            .collect();
        for ix in depending {
            self.depending.remove(&ix);
            if let Some(actor) = self.actors.get_mut(ix) {
                actor.dependency = None;
            }
        }
        let locks: Vec<_> = self
            .locks
            .iter()
            // Walks over all threads do not look for the holders of spinning locks.
            .filter(|(_, l)| !l.candidates.is_empty() && !l.kind.spins())
            .map(|(ix, _)| ix)
            .collect();
        for ix in locks {
            if let Some(lock) = self.locks.get_mut(ix) {
                lock.candidates.retain(|c| {
                    c.seen.last >= begin || matches!(c.evidence, Evidence::Acquisition | Evidence::CpuSample)
                });
            }
        }
    }

    fn end_unreported(&mut self, over: Vec<WaitIx>, time: Timestamp) {
        for ix in over {
            self.unseen_ends += 1;
            if let Some((waiter, lock, seen)) = self
                .waits
                .get(ix)
                .and_then(|w| Some((w.waiter, self.locks.get(w.lock)?.key(), w.seen.last)))
                && let Some(actor) = self.actors.get_mut(waiter)
            {
                actor.remember_end(lock.addr, Some(lock.spins), seen);
            }
            self.end_wait(ix, time);
        }
    }
}
