//! Where events come from.

pub mod live;
pub mod replay;
pub mod script;
pub mod snapshot;
