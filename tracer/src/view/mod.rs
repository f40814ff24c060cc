//! What people and programs read: every view takes events or reports and writes to a stream.

pub mod dot;
pub mod folded;
pub mod json;
pub mod jsonl;
pub mod loss;
pub mod perfetto;
pub mod records;
pub mod stacks;
pub mod text;
pub mod tree;
pub mod tuple;
pub mod units;
