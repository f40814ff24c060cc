//! What people and programs read: every view takes events or reports and writes to a stream.

pub mod json;
pub mod loss;
pub mod text;
pub mod tree;
pub mod tuple;
pub mod units;
