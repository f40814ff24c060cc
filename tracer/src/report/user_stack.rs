//! Stacks in user space, as every output reads them.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::InlinedRow;
use crate::event::{UserFrame, UserStack};

/// Where a task came from in user space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserStackRow {
    /// Whether the outermost frame is the thread's first one.
    pub whole: bool,
    /// Innermost first.
    pub frames: Vec<UserFrameRow>,
}

/// A frame in user space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserFrameRow {
    /// Address in the process.
    #[serde(serialize_with = "hexadecimal")]
    pub address: u64,
    /// Function, where known.
    pub function: Option<Arc<str>>,
    /// Bytes into the function.
    pub function_offset: Option<u64>,
    /// Source file, where debug information was at hand.
    pub source: Option<Arc<str>>,
    /// Line in that file.
    pub line: Option<u32>,
    /// Functions that the compiler put into this one, outermost first.
    pub inlined: Vec<InlinedRow>,
    /// File that is mapped there.
    pub file: Option<Arc<str>>,
    /// Build id of that file.
    pub build_id: Option<Arc<str>>,
    /// Bytes into that file.
    pub file_offset: Option<u64>,
}

impl From<&UserStack> for UserStackRow {
    fn from(stack: &UserStack) -> Self {
        Self {
            whole: stack.whole,
            frames: stack.frames.iter().map(UserFrameRow::from).collect(),
        }
    }
}

impl From<&UserFrame> for UserFrameRow {
    fn from(frame: &UserFrame) -> Self {
        let (function, file) = (frame.function.as_ref(), frame.file.as_ref());
        Self {
            address: frame.address,
            function: function.map(|function| Arc::clone(&function.name)),
            function_offset: function.map(|function| function.offset),
            source: frame.place.file.clone(),
            line: frame.place.line,
            inlined: frame.inlined.iter().map(InlinedRow::from).collect(),
            file: file.map(|file| Arc::clone(&file.path)),
            build_id: file.and_then(|file| file.build_id.clone()),
            file_offset: file.map(|file| file.offset),
        }
    }
}

fn hexadecimal<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}
