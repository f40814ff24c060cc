//! How long contended locks were held: from the end of a waiter's wait to its own release.
//!
//! A release shows only where somebody waits, so a holder may have let go, and taken the lock again, unseen. But not while somebody
//! waited: what counts is the time from which on the one who got the lock next has waited. So a hold is a lower bound.

use super::arena::ActorIx;
use crate::ids::{Nanos, Timestamp};

/// Holds of one lock that ended while somebody waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// How many.
    pub count: u64,
    /// Their summed time, at least.
    pub total: Nanos,
    /// The longest, at least.
    pub max: Nanos,
    current: Option<Hold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    holder: ActorIx,
    taken: Timestamp,
    released: Option<Timestamp>,
}

impl Holds {
    /// `holder` has waited for the lock since `began` and gets it now, alone; `None`: together with others.
    pub fn taken(&mut self, holder: Option<ActorIx>, began: Timestamp, now: Timestamp) {
        if let Some(Hold {
            taken,
            released: Some(released),
            ..
        }) = self.current.take()
            && began <= released
        {
            let held = released.since(taken.max(began));
            self.count = self.count.saturating_add(1);
            self.total = Nanos(self.total.0.saturating_add(held.0));
            self.max = self.max.max(held);
        }
        self.current = holder.map(|holder| Hold {
            holder,
            taken: now,
            released: None,
        });
    }

    /// `by` lets the lock go.
    pub fn released(&mut self, by: ActorIx, now: Timestamp) {
        match &mut self.current {
            Some(hold) if hold.holder == by && hold.taken <= now => hold.released = Some(now),
            // Somebody else held it: it was taken unseen.
            current => *current = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arena;

    fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    fn told(holds: &Holds) -> (u64, u64, u64) {
        (holds.count, holds.total.0 / 1_000_000, holds.max.0 / 1_000_000)
    }

    #[test]
    fn a_hold_lasts_from_the_end_of_its_wait_to_its_release_as_far_as_somebody_waited() {
        let mut actors: Arena<ActorIx, ()> = Arena::default();
        let (a, b) = (actors.insert(()), actors.insert(()));
        let mut holds = Holds::default();
        holds.taken(Some(a), ms(0), ms(10));
        holds.released(a, ms(40));
        assert_eq!(told(&holds), (0, 0, 0), "nobody has said since when it was waited for");
        holds.taken(Some(b), ms(5), ms(41));
        assert_eq!(told(&holds), (1, 30, 30), "b had waited all the time");
        holds.released(b, ms(100));
        holds.taken(Some(a), ms(90), ms(101));
        assert_eq!(told(&holds), (2, 40, 30), "b may have let go before a began to wait");
        holds.released(b, ms(120));
        holds.taken(Some(b), ms(110), ms(121));
        assert_eq!(told(&holds), (2, 40, 30), "a has let go unseen");
        holds.taken(Some(a), ms(130), ms(140));
        assert_eq!(told(&holds), (2, 40, 30), "no release was seen");
        holds.released(a, ms(150));
        holds.taken(None, ms(160), ms(170));
        assert_eq!(told(&holds), (2, 40, 30), "nobody waited when a let go");
    }
}
