//! Places in the source.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::KernelAddr;

/// Where in the source a code address comes from, as debug information tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLine {
    /// The address as it stands in a stack.
    pub addr: KernelAddr,
    /// The place within the function that the symbol names.
    pub place: Place,
    /// Functions that the compiler put into that one, outermost first: the code is the last one's.
    pub inlined: Vec<Inlined>,
}

/// A place in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// File, as the debug information spells it.
    pub file: Option<Arc<str>>,
    /// Line, from 1.
    pub line: Option<u32>,
}

/// A function that was put into another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inlined {
    /// Its name.
    pub name: Arc<str>,
    /// The place within it.
    pub place: Place,
}
