//! Stacks in user space.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Inlined, Place};
use crate::ids::TaskKey;

/// Where a sleeping thread came from in user space. It holds until the thread runs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStack {
    /// Who.
    pub task: TaskKey,
    /// Its context switches in that sleep.
    pub switches: u64,
    /// Whether the outermost frame is the thread's first one; otherwise there are more that were not found.
    pub whole: bool,
    /// Innermost first.
    pub frames: Vec<UserFrame>,
}

/// A frame of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFrame {
    /// Address in the process: where it goes on.
    pub address: u64,
    /// The file that is mapped there, where one is.
    pub file: Option<UserFile>,
    /// The function, where the file could be read and names it.
    pub function: Option<UserFunction>,
    /// Place in the source, where the file or its debug file tells it.
    pub place: Place,
    /// Functions that the compiler put into this one and that the address belongs to, outermost first.
    pub inlined: Vec<Inlined>,
}

/// A file mapped into a process, and a place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFile {
    /// Its path from the root of the process's mount namespace.
    pub path: Arc<str>,
    /// Build id in hexadecimal digits, where this very file could be read and has one.
    pub build_id: Option<Arc<str>>,
    /// Bytes into the file.
    pub offset: u64,
}

/// A function, and a place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFunction {
    /// Its name.
    pub name: Arc<str>,
    /// Bytes into it.
    pub offset: u64,
}
