//! Slots with stable small indices: the graph's nodes are looked up by index, never by pointer.

use std::marker::PhantomData;

/// An index into an [`Arena`] of one entity type.
pub trait Index: Copy {
    /// From the position of a slot.
    fn from_slot(slot: u32) -> Self;
    /// To the position of a slot.
    fn slot(self) -> usize;
}

macro_rules! index {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl Index for $name {
            fn from_slot(slot: u32) -> Self {
                Self(slot)
            }
            fn slot(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(
    /// A task or an interrupt context.
    ActorIx
);
index!(
    /// A lock.
    LockIx
);
index!(
    /// A pending wait.
    WaitIx
);

/// A growable table whose slots are reused.
#[derive(Debug)]
pub struct Arena<I, T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    index: PhantomData<I>,
}

impl<I, T> Default for Arena<I, T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: PhantomData,
        }
    }
}

impl<I: Index, T> Arena<I, T> {
    /// Puts `value` into a free slot.
    pub fn insert(&mut self, value: T) -> I {
        if let Some(slot) = self.free.pop() {
            if let Some(cell) = self.slots.get_mut(slot as usize) {
                *cell = Some(value);
            }
            return I::from_slot(slot);
        }
        // The eviction bounds keep every table far below u32::MAX slots.
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Some(value));
        I::from_slot(slot)
    }

    /// Takes the entity out and frees its slot.
    pub fn remove(&mut self, index: I) -> Option<T> {
        let value = self.slots.get_mut(index.slot())?.take()?;
        self.free.push(u32::try_from(index.slot()).unwrap_or(u32::MAX));
        Some(value)
    }

    /// The entity, if the slot is in use.
    #[must_use]
    pub fn get(&self, index: I) -> Option<&T> {
        self.slots.get(index.slot())?.as_ref()
    }

    /// The entity, if the slot is in use.
    pub fn get_mut(&mut self, index: I) -> Option<&mut T> {
        self.slots.get_mut(index.slot())?.as_mut()
    }

    /// All entities in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, cell)| Some((I::from_slot(u32::try_from(slot).ok()?), cell.as_ref()?)))
    }

    /// Number of entities.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no entity.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of slots, used or free: an upper bound of every index.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }
}
