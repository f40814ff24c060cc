//! The lock of an address space.

use super::{for_ever, say, system};
use anyhow::Result;

/// All threads map and unmap.
pub fn map_and_unmap() -> Result<()> {
    say(&format!("pid {}", std::process::id()))?;
    for_ever(|_| system::map_once(1 << 18))
}
