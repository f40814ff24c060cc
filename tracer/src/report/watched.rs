//! Watched locks: who holds them, and for how long they were held.

use std::sync::Arc;

use serde::Serialize;

use crate::diagnosis::{LockRef, Name, phrase, stack_id};
use crate::event::Mode;
use crate::ids::{Nanos, StackId};
use crate::model::{Model, WatchedLock};

/// Holders listed of one lock.
const MAX_HOLDERS: usize = 16;

/// A watched lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchedRow {
    /// Address, kind, name, direct waiters.
    #[serde(flatten)]
    pub lock: LockRef,
    /// Acquisitions seen.
    pub acquisitions: u64,
    /// Holds of which both ends were seen.
    pub holds: u64,
    /// Acquisitions and releases whose other end was not seen.
    pub unmatched: u64,
    /// Summed time of the holds.
    #[serde(rename = "held_total_ns")]
    pub held_total: Nanos,
    /// The longest of them.
    pub longest: Option<LongestRow>,
    /// Who holds it now, the longest holding first.
    pub holders: Vec<HolderRow>,
}

/// The longest hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LongestRow {
    /// Who.
    pub name: Name,
    /// How long.
    #[serde(rename = "held_ns")]
    pub held: Nanos,
    /// Where it was acquired.
    pub site: Option<Arc<str>>,
    /// The stack there.
    #[serde(serialize_with = "stack_id")]
    pub stack: StackId,
}

/// A present holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HolderRow {
    /// Who.
    pub name: Name,
    /// How.
    pub mode: Mode,
    /// For how long already.
    #[serde(rename = "held_ns")]
    pub held: Nanos,
    /// Where it was acquired.
    pub site: Option<Arc<str>>,
    /// The stack there.
    #[serde(serialize_with = "stack_id")]
    pub stack: StackId,
}

impl WatchedRow {
    /// Every watched lock, by address.
    #[must_use]
    pub fn of(model: &Model) -> Vec<Self> {
        model
            .watched()
            .iter()
            .filter_map(|(&addr, watched)| {
                Some(row(
                    model,
                    phrase::lock_ref(model, model.locks().at(addr).next()?),
                    watched,
                ))
            })
            .collect()
    }

    /// Stacks that the row names.
    pub fn stacks(&self) -> impl Iterator<Item = StackId> + '_ {
        let longest = self.longest.iter().map(|longest| longest.stack);
        longest.chain(self.holders.iter().map(|holder| holder.stack))
    }
}

fn row(model: &Model, lock: LockRef, watched: &WatchedLock) -> WatchedRow {
    let site = |stack| model.names().site(stack).map(Arc::from);
    let mut holding = watched.holding.clone();
    holding.sort_by_key(|held| held.since);
    WatchedRow {
        lock,
        acquisitions: watched.acquisitions,
        holds: watched.holds,
        unmatched: watched.unmatched,
        held_total: watched.total,
        longest: watched.longest.map(|longest| LongestRow {
            name: phrase::name(model, longest.holder),
            held: longest.held,
            site: site(longest.stack),
            stack: longest.stack,
        }),
        holders: holding
            .iter()
            .take(MAX_HOLDERS)
            .map(|held| HolderRow {
                name: phrase::name(model, held.holder),
                mode: held.mode,
                held: model.now().since(held.since),
                site: site(held.stack),
                stack: held.stack,
            })
            .collect(),
    }
}
