//! Who held which lock from when to when, as far as anybody saw.

use std::collections::HashMap;

use crate::event::LockKind;
use crate::ids::{LockAddr, TaskKey, Timestamp};

/// Locks remembered; beyond it those without an open hold are forgotten.
const MAX_LOCKS: usize = 65_536;

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// A hold that is over, with an arrow that starts at it.
pub type Held = Option<(TaskKey, Span, Option<u64>)>;

#[derive(Clone, Copy, Debug)]
struct Lock {
    kind: LockKind,
    /// Who, since when, and when it was last seen to.
    owner: Option<(TaskKey, Span)>,
    /// End of the last span that was given out: spans of one track must not overlap.
    ended: Timestamp,
    /// An arrow from a release that was seen.
    arrow: Option<u64>,
}

/// All locks.
#[derive(Debug, Default)]
pub struct Holds {
    locks: HashMap<LockAddr, Lock>,
}

impl Holds {
    /// The owner word was read. Returns the hold that this shows to be over.
    pub fn seen(&mut self, lock: LockAddr, kind: LockKind, owner: Option<TaskKey>, time: Timestamp) -> Held {
        if self.locks.len() >= MAX_LOCKS {
            self.locks.retain(|_, lock| lock.owner.is_some());
        }
        let entry = self.locks.entry(lock).or_insert(Lock {
            kind,
            owner: None,
            ended: Timestamp(0),
            arrow: None,
        });
        entry.kind = kind;
        match (&mut entry.owner, owner) {
            (Some((known, span)), Some(owner)) if *known == owner => {
                span.to = span.to.max(time);
                None
            }
            // An older look that comes late tells nothing about now.
            (Some((_, span)), _) if time < span.to => None,
            // Somebody else owns it: the one before let it go at some time in between. What was seen ends here.
            (_, owner) => {
                let before = entry.end(None);
                entry.owner = owner.map(|owner| {
                    (
                        owner,
                        Span {
                            from: time.max(entry.ended),
                            to: time,
                        },
                    )
                });
                before
            }
        }
    }

    /// The owner was seen to release it.
    pub fn released(&mut self, lock: LockAddr, by: TaskKey, time: Timestamp) -> Held {
        let entry = self.locks.get_mut(&lock)?;
        if entry.owner.is_some_and(|(owner, _)| owner == by) {
            entry.end(Some(time))
        } else {
            None
        }
    }

    /// The next one to get the lock gets this arrow.
    pub fn arrow(&mut self, lock: LockAddr, arrow: u64) {
        if let Some(entry) = self.locks.get_mut(&lock) {
            entry.arrow = Some(arrow);
        }
    }

    /// A waiter got it: whoever was seen to hold it did so until now at the latest.
    pub fn acquired(&mut self, lock: LockAddr, by: Option<TaskKey>, time: Timestamp) -> (Held, Option<u64>) {
        let Some(entry) = self.locks.get_mut(&lock) else {
            return (None, None);
        };
        let before = match entry.owner {
            Some((owner, _)) if Some(owner) == by => None,
            Some((_, span)) if time < span.to => None,
            _ => entry.end(Some(time)),
        };
        if entry.owner.is_none() {
            entry.owner = by.map(|by| {
                (
                    by,
                    Span {
                        from: time.max(entry.ended),
                        to: time,
                    },
                )
            });
        }
        (before, entry.arrow.take())
    }

    /// Kind of a lock.
    pub fn kind(&self, lock: LockAddr) -> LockKind {
        self.locks.get(&lock).map_or(LockKind::Unknown, |lock| lock.kind)
    }

    /// Holds that were not seen to end, up to the last look.
    pub fn finish(&mut self) -> Vec<(LockAddr, TaskKey, Span)> {
        let open = self
            .locks
            .iter()
            .filter_map(|(&addr, lock)| lock.owner.map(|(task, span)| (addr, task, span)));
        let mut open: Vec<_> = open.filter(|(.., span)| span.from < span.to).collect();
        open.sort_by_key(|(addr, _, span)| (span.from, *addr));
        open
    }
}

impl Lock {
    fn end(&mut self, at: Option<Timestamp>) -> Held {
        let (task, mut span) = self.owner.take()?;
        span.to = at.unwrap_or(span.to).max(span.to);
        self.ended = self.ended.max(span.to);
        (span.from < span.to).then_some((task, span, None))
    }
}
