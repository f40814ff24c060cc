//! Tables of what repeats within a block.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::CodecError;

/// The writer's side: value to position.
#[derive(Debug)]
pub struct Writing<T> {
    places: FxHashMap<T, u64>,
    /// The newest entry, which the next one is written as a difference to.
    pub last: u64,
}

impl<T> Default for Writing<T> {
    fn default() -> Self {
        Self {
            places: FxHashMap::default(),
            last: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Writing<T> {
    /// The value's number, counted from 1; `None` when it is new, and has one from now on.
    pub fn place(&mut self, value: &T) -> Option<u64> {
        if let Some(&place) = self.places.get(value) {
            return Some(place);
        }
        let next = self.places.len() as u64 + 1;
        self.places.insert(value.clone(), next);
        None
    }
}

/// The reader's side: position to value.
#[derive(Debug)]
pub struct Reading<T> {
    what: &'static str,
    values: Vec<T>,
    /// As in [`Writing`].
    pub last: u64,
}

impl<T: Clone> Reading<T> {
    /// Empty; `what` names its values in errors.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            values: Vec::new(),
            last: 0,
        }
    }

    /// The value with this number, counted from 1.
    pub fn get(&self, number: u64) -> Result<T, CodecError> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.values.get(number.checked_sub(1)?))
            .cloned()
            .ok_or(CodecError::Reference {
                what: self.what,
                index: number,
            })
    }

    /// Gives a new value the next number.
    pub fn add(&mut self, value: T) -> T {
        self.values.push(value.clone());
        value
    }
}
