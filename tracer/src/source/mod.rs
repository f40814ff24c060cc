//! Where events come from.

pub mod live;
pub mod script;
