//! Which kernel fields holdup reads, where this kernel has them, and what is lost where it has not.
//!
//! One table (`table.rs`) names every field once. From it come the typed offsets that the BPF programs get, and the lines
//! that `holdup doctor` prints: a field that a kernel lacks disables a feature by name, and never the program.

mod feature;
mod lookup;
#[macro_use]
mod rows;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub use feature::{Feature, Weight};
pub use lookup::BitOffset;
pub use table::*;

use super::btf::{Btf, BtfError};

/// The offsets of one kernel, and how each was found.
#[derive(Debug, Clone)]
pub struct ResolvedOffsets {
    /// What the BPF programs and the stack analysis use.
    pub offsets: KernelOffsets,
    /// One row for each field of the table, in its order.
    pub rows: Vec<OffsetRow>,
}

/// How one field of the table was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetRow {
    /// `group.field`, as in [`KernelOffsets`].
    pub field: &'static str,
    /// Where the kernel may keep it: `struct.member`, newest kernels first.
    pub places: &'static [&'static str],
    /// What needs it.
    pub needed_for: Feature,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of looking for one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Found.
    Found {
        /// Which of the places.
        place: &'static str,
        /// Offset, size or bit, as the field's kind has it; for printing.
        value: String,
    },
    /// This kernel has another design here (PREEMPT_RT or not), so nothing is lost.
    NotApplicable,
    /// Not found.
    Missing {
        /// Why the first place was refused.
        why: BtfError,
    },
}

/// A field this kernel does not have.
#[derive(Debug, Clone, Copy)]
pub struct Missing<'a> {
    /// The kernel's name for it, in newest kernels: `mutex.owner`.
    pub what: &'static str,
    /// What is disabled by that.
    pub needed_for: Feature,
    /// Why it was not found.
    pub why: &'a BtfError,
}

/// What `task_struct.blocked_on` points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum BlockedOnTarget {
    /// A `struct mutex_waiter` (up to 6.12, with CONFIG_DEBUG_MUTEXES).
    MutexWaiter,
    /// The `struct mutex` itself (6.17+, always).
    Mutex,
}

impl ResolvedOffsets {
    /// Looks up every field of the table.
    pub fn resolve(btf: &Btf) -> Self {
        let (offsets, rows) = table::resolve(btf);
        Self { offsets, rows }
    }

    /// The fields this kernel does not have, in the table's order.
    pub fn missing(&self) -> impl Iterator<Item = Missing<'_>> {
        self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Missing { why } => {
                let what = row.places.first().copied().unwrap_or(row.field);
                Some(Missing {
                    what,
                    needed_for: row.needed_for,
                    why,
                })
            }
            Outcome::Found { .. } | Outcome::NotApplicable => None,
        })
    }

    /// Whether every field that the feature needs is there.
    pub fn has(&self, feature: Feature) -> bool {
        !self.missing().any(|m| m.needed_for == feature)
    }

    /// Each disabled feature with the fields it lacks.
    pub fn disabled(&self) -> BTreeMap<Feature, Vec<&'static str>> {
        let mut features = BTreeMap::<_, Vec<_>>::new();
        for m in self.missing() {
            features.entry(m.needed_for).or_default().push(m.what);
        }
        features
    }
}

/// What `task_struct.blocked_on` points to on this kernel, if it has that field with a known meaning.
pub fn blocked_on_target(btf: &Btf) -> Option<BlockedOnTarget> {
    match btf.pointee("task_struct", "blocked_on").ok()?? {
        "mutex_waiter" => Some(BlockedOnTarget::MutexWaiter),
        "mutex" => Some(BlockedOnTarget::Mutex),
        _ => None,
    }
}
