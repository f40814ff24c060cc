//! Pending waits: their begin, their phases, their re-reads and their end.

use super::Model;
use super::actors::ActorEntry;
use super::arena::{ActorIx, LockIx, WaitIx};
use super::locks::{LockKey, OwnerRead};
use super::stats::Contention;
use super::steady::{Span, Steady};
use crate::event::{Evidence, LockKind, LossCause, Mode, Owner, Phase, Queued, WaitEnd, WaitSample};
use crate::ids::{CpuId, Nanos, StackId, Timestamp};

/// One pending wait of one actor for one lock. Its phases (spin, sleep, spin again) are one wait.
#[derive(Debug)]
pub struct Wait {
    /// Who waits.
    pub waiter: ActorIx,
    /// What for.
    pub lock: LockIx,
    /// How it is wanted.
    pub mode: Mode,
    /// What the waiter does at present.
    pub phase: Phase,
    /// When it began; `None` when no source has told.
    pub since: Option<Timestamp>,
    /// First and last sample.
    pub seen: Span,
    /// Samples at different instants.
    pub reads: u32,
    /// Reads that found the waiter's own record on the lock's wait list, or the kernel's own pointer to the lock. The begin of
    /// the wait may be the first of them.
    pub checked: Option<Steady<()>>,
    /// `checked` starts with the begin event, not with a re-read.
    pub checked_from_begin: bool,
    /// The newest look at the wait list did not find the sleeping waiter: the wait is about to end.
    pub absent: bool,
    /// Place in the queue at the newest look.
    pub queued: Queued,
    /// Looks in a row, up to the newest, that found it first in the queue.
    pub first_in_queue: Option<Span>,
    /// CPU on which it was seen.
    pub cpu: Option<CpuId>,
    /// Stack of the waiter.
    pub stack: StackId,
    /// Who reported it last.
    pub evidence: Evidence,
    /// Best evidence of a validated read, where there was one.
    pub validated_by: Option<Evidence>,
    /// A probe saw it begin, or re-read it from the table of pending waits.
    pub probed: bool,
    /// A walk over all threads found it.
    pub scanned: bool,
    /// It was reported in a sampling round.
    pub in_rounds: bool,
    /// No other wait of the same waiter is nested in it: the waiter is stuck here.
    pub innermost: bool,
    slot: usize,
}

/// Whether `evidence` is a begin event, which a re-read is not.
#[must_use]
pub fn is_begin(evidence: Evidence) -> bool {
    matches!(evidence, Evidence::Tracepoint | Evidence::Kprobe)
}

/// Whether a walk over all threads gives such evidence. What a CPU does is seen by its own sampler.
fn is_scan(evidence: Evidence) -> bool {
    !is_begin(evidence) && !matches!(evidence, Evidence::Reread | Evidence::CpuSample)
}

/// Whether the kernel's own data ties this waiter to this lock at the instant of the sample.
fn is_validated(sample: &WaitSample) -> bool {
    let by_record = matches!(
        sample.evidence,
        Evidence::WaiterRecord | Evidence::BlockedOnField | Evidence::PiBlockedOn
    );
    match sample.queued {
        Queued::At(_) | Queued::Somewhere => !is_begin(sample.evidence),
        Queued::Unknown => by_record,
        Queued::Absent => false,
    }
}

/// Whether a thread that waits for a lock of kind `outer` may at the same time wait for an `inner` one: the slowpath of the
/// outer lock takes the inner one.
fn may_nest(outer: LockKind, inner: LockKind) -> bool {
    match inner {
        LockKind::Spinlock | LockKind::Rwlock | LockKind::RtSpinlock | LockKind::Unknown => true,
        LockKind::RtMutex => !matches!(outer, LockKind::Mutex | LockKind::WwMutex | LockKind::Semaphore),
        _ => outer == LockKind::Unknown,
    }
}

impl Model {
    pub(super) fn apply_wait(&mut self, time: Timestamp, sample: &WaitSample) {
        let waiter = self.actor(time, sample.waiter, sample.task.as_ref());
        let lock = self.locks.resolve(sample.lock, sample.kind, time);
        let held = self.held(time, sample.kind, sample.owner_word, &sample.owner);
        if sample.owner != Owner::NotRecorded || sample.owner_word != 0 {
            self.read_owner(
                lock,
                time,
                OwnerRead {
                    word: sample.owner_word,
                    held,
                },
            );
        }
        let Some(actor) = self.actors.get_mut(waiter) else {
            return;
        };
        let key = LockKey {
            addr: sample.lock,
            spins: sample.kind.spins(),
        };
        if actor.has_ended(key, time) {
            return;
        }
        // Whatever was thought of it, it acts: it is not gone.
        actor.gone = None;
        let known = actor
            .waits
            .iter()
            .copied()
            .find(|&w| self.waits.get(w).is_some_and(|w| w.lock == lock));
        let wait = match known {
            Some(wait) => {
                self.continue_wait(wait, time, sample);
                wait
            }
            None => {
                if !self.make_way(waiter, sample.kind, time) {
                    return;
                }
                self.new_wait(waiter, lock, time, sample)
            }
        };
        self.note_orders(wait, time);
    }

    /// Ends the waits of `waiter` which the begin of another one shows to be over. Returns whether the new wait is news at all.
    fn make_way(&mut self, waiter: ActorIx, kind: LockKind, time: Timestamp) -> bool {
        let Some(actor) = self.actors.get(waiter) else {
            return false;
        };
        let mut over = Vec::new();
        for &ix in &actor.waits {
            let Some(wait) = self.waits.get(ix) else { continue };
            let outer = self.locks.get(wait.lock).map_or(LockKind::Unknown, |l| l.kind);
            if may_nest(outer, kind) || may_nest(kind, outer) {
                continue;
            }
            if time < wait.since.unwrap_or(wait.seen.first) {
                return false;
            }
            over.push(ix);
        }
        for ix in over {
            self.missed_ends += 1;
            self.end_wait(ix, time);
        }
        true
    }

    fn new_wait(&mut self, waiter: ActorIx, lock: LockIx, time: Timestamp, sample: &WaitSample) -> WaitIx {
        if self.waits.len() >= self.settings.max_waits {
            self.evict_waits();
        }
        let validated = is_validated(sample);
        let begin = is_begin(sample.evidence);
        let slot = self.locks.get(lock).map_or(0, |l| l.waiters.len());
        let ix = self.waits.insert(Wait {
            waiter,
            lock,
            mode: sample.mode,
            phase: sample.phase,
            since: sample.since,
            seen: Span::at(time),
            reads: 1,
            checked: (validated || begin).then(|| Steady::new((), time)),
            checked_from_begin: begin,
            absent: is_absent(sample),
            queued: sample.queued,
            first_in_queue: (sample.queued == Queued::At(0)).then(|| Span::at(time)),
            cpu: sample.cpu,
            stack: sample.stack,
            evidence: sample.evidence,
            validated_by: validated.then_some(sample.evidence),
            probed: begin || sample.evidence == Evidence::Reread,
            scanned: is_scan(sample.evidence),
            in_rounds: !begin,
            innermost: true,
            slot,
        });
        if let Some(lock) = self.locks.get_mut(lock) {
            lock.waiters.push(ix);
        }
        let since = sample.since.unwrap_or(time);
        let mut place = 0;
        if let Some(actor) = self.actors.get(waiter) {
            // Outermost first, also when the inner wait is reported before the outer one.
            place = actor
                .waits
                .iter()
                .take_while(|&&w| {
                    self.waits
                        .get(w)
                        .is_some_and(|w| w.since.unwrap_or(w.seen.first) <= since)
                })
                .count();
        }
        if let Some(actor) = self.actors.get_mut(waiter) {
            actor.waits.insert(place, ix);
        }
        self.mark_innermost(waiter);
        ix
    }

    fn mark_innermost(&mut self, waiter: ActorIx) {
        let Some(actor) = self.actors.get(waiter) else { return };
        let last = actor.innermost();
        for &ix in &actor.waits {
            if let Some(wait) = self.waits.get_mut(ix) {
                wait.innermost = Some(ix) == last;
            }
        }
    }

    fn continue_wait(&mut self, ix: WaitIx, time: Timestamp, sample: &WaitSample) {
        let Some(wait) = self.waits.get_mut(ix) else { return };
        let begin = is_begin(sample.evidence);
        if !begin && sample.since.is_some_and(|since| since > wait.seen.last) {
            // A re-read tells of a wait that began after the known one was last seen: its end was never told.
            self.missed_ends += 1;
            let (lock, slot, waiter) = (wait.lock, wait.slot, wait.waiter);
            let fresh = Wait {
                waiter,
                lock,
                mode: sample.mode,
                phase: sample.phase,
                since: sample.since,
                seen: Span::at(time),
                reads: 0,
                checked: None,
                checked_from_begin: false,
                absent: false,
                queued: sample.queued,
                first_in_queue: None,
                cpu: sample.cpu,
                stack: sample.stack,
                evidence: sample.evidence,
                validated_by: None,
                probed: wait.probed,
                scanned: wait.scanned,
                in_rounds: true,
                innermost: wait.innermost,
                slot,
            };
            *wait = fresh;
        }
        wait.since = match (wait.since, sample.since) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
        if time < wait.seen.last {
            return;
        }
        if time > wait.seen.last || wait.reads == 0 {
            wait.reads = wait.reads.saturating_add(1);
        }
        wait.seen.extend(time);
        wait.mode = sample.mode;
        wait.phase = sample.phase;
        wait.queued = sample.queued;
        wait.first_in_queue = (sample.queued == Queued::At(0)).then(|| {
            let mut first = wait.first_in_queue.unwrap_or(Span::at(time));
            first.extend(time);
            first
        });
        wait.cpu = sample.cpu.or(wait.cpu);
        wait.evidence = sample.evidence;
        wait.absent = is_absent(sample);
        wait.probed |= begin || sample.evidence == Evidence::Reread;
        wait.scanned |= is_scan(sample.evidence);
        wait.in_rounds |= !begin;
        if sample.stack.0 != 0 {
            wait.stack = sample.stack;
        }
        if is_validated(sample) {
            wait.validated_by = Some(sample.evidence);
            match &mut wait.checked {
                Some(checked) => {
                    checked.read((), time);
                }
                none => *none = Some(Steady::new((), time)),
            }
        } else if wait.absent {
            (wait.checked, wait.validated_by, wait.checked_from_begin) = (None, None, false);
        }
    }

    pub(super) fn apply_wait_end(&mut self, time: Timestamp, end: &WaitEnd) {
        let waiter = self.actor(time, end.waiter, None);
        let known = self.ended_wait(waiter, end, time);
        let lock = match known.and_then(|ix| self.waits.get(ix)) {
            Some(wait) => wait.lock,
            None => self.locks.resolve(end.lock, LockKind::Unknown, time),
        };
        let spins = known.and_then(|_| self.locks.get(lock)).map(|l| l.kind.spins());
        let Some(actor) = self.actors.get_mut(waiter) else {
            return;
        };
        if actor.knows_end(end.lock, spins, time) {
            return;
        }
        actor.remember_end(end.lock, spins, time);
        if let Some(entry) = self.locks.get_mut(lock) {
            entry.last_seen = entry.last_seen.max(time);
        }
        let mut exclusive = false;
        if let Some(ix) = known {
            self.note_orders(ix, time);
            exclusive = self.waits.get(ix).is_some_and(|w| w.mode == Mode::Exclusive);
            self.end_known_wait(ix, time);
        }
        if let Some(entry) = self.locks.get_mut(lock) {
            entry
                .contention
                .get_or_insert_with(|| Box::new(Contention::new(time)))
                .ended(time, end.waited);
        }
        if end.result == 0
            && known.is_some()
            && let Some(entry) = self.locks.get_mut(lock)
        {
            let began = Timestamp(time.0.saturating_sub(end.waited.0));
            entry.holds.taken(exclusive.then_some(waiter), began, time);
        }
        if end.result == 0 && known.is_some() {
            self.ownership_changed(lock, time, exclusive.then_some(waiter));
        }
    }

    /// The wait which this end belongs to. A sleeper on a semaphore or an rt_mutex may at the same time spin for the lock at the same
    /// address that protects it: the one that began when the end says, else the inner one.
    fn ended_wait(&self, waiter: ActorIx, end: &WaitEnd, time: Timestamp) -> Option<WaitIx> {
        let began = time - end.waited;
        let at_address = |w: &Wait| self.locks.get(w.lock).is_some_and(|l| l.addr == end.lock);
        let waits = self.actors.get(waiter)?.waits.iter().rev();
        waits
            .filter_map(|&ix| self.waits.get(ix).filter(|w| at_address(w)).map(|w| (ix, w)))
            .min_by_key(|(_, w)| w.since.unwrap_or(w.seen.first).0.abs_diff(began.0))
            .map(|(ix, _)| ix)
    }

    /// Ends a wait of which the end was told, unless the end belongs to an earlier wait for the same lock.
    fn end_known_wait(&mut self, ix: WaitIx, time: Timestamp) {
        let Some(wait) = self.waits.get_mut(ix) else { return };
        if wait.since.is_some_and(|since| since > time) || wait.seen.first > time {
            return;
        }
        if wait.seen.last > time {
            // It was seen after this end: by then it was another wait, of which only that is known.
            wait.since = None;
            wait.seen = Span::at(wait.seen.last);
            wait.reads = 1;
            (wait.checked, wait.validated_by, wait.checked_from_begin) = (None, None, false);
            return;
        }
        self.end_wait(ix, time);
    }

    /// Takes a wait out of the graph.
    pub(super) fn end_wait(&mut self, ix: WaitIx, _time: Timestamp) {
        let Some(wait) = self.waits.remove(ix) else { return };
        if let Some(actor) = self.actors.get_mut(wait.waiter) {
            actor.waits.retain(|&w| w != ix);
        }
        self.mark_innermost(wait.waiter);
        let mut moved = None;
        if let Some(lock) = self.locks.get_mut(wait.lock) {
            if wait.slot < lock.waiters.len() {
                lock.waiters.swap_remove(wait.slot);
                moved = lock.waiters.get(wait.slot).copied();
            }
            if lock.waiters.is_empty() {
                // Who was seen to take it has it until it is seen to give it back.
                lock.candidates.retain(|c| c.evidence == Evidence::Acquisition);
            }
        }
        if let Some(moved) = moved.and_then(|m| self.waits.get_mut(m)) {
            moved.slot = wait.slot;
        }
    }

    /// Makes room by giving up the waits that were not seen for longest; each is counted as lost.
    fn evict_waits(&mut self) {
        let mut by_age: Vec<(Timestamp, WaitIx)> = self.waits.iter().map(|(ix, w)| (w.seen.last, ix)).collect();
        let quarter = (by_age.len() / 4).max(1).min(by_age.len().saturating_sub(1));
        if quarter > 0 {
            by_age.select_nth_unstable(quarter);
        }
        for &(time, ix) in by_age.iter().take(quarter.max(1)) {
            self.losses.count(LossCause::WaitTableFull, self.now);
            self.end_wait(ix, time);
        }
    }

    /// Since when an actor waits, and whether that is exact (`false`: at least since then).
    #[must_use]
    pub fn wait_since(&self, wait: &Wait) -> (Timestamp, bool) {
        if let Some(since) = wait.since {
            return (since, true);
        }
        // A sleeper was already waiting when it fell asleep.
        let asleep = self.actors.get(wait.waiter).and_then(ActorEntry::asleep_since);
        (asleep.map_or(wait.seen.first, |a| a.min(wait.seen.first)), false)
    }

    /// How long a wait was seen to last: one that began and was never looked at again may be long over.
    #[must_use]
    pub fn lasted(&self, wait: &Wait) -> Nanos {
        wait.seen.last.since(self.wait_since(wait).0)
    }

    /// How long a wait lasts by now.
    #[must_use]
    pub fn waited(&self, wait: &Wait) -> Nanos {
        self.now.since(self.wait_since(wait).0)
    }
}

fn is_absent(sample: &WaitSample) -> bool {
    sample.queued == Queued::Absent && sample.phase == Phase::Sleeping && !is_begin(sample.evidence)
}
