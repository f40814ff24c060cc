//! Kernel words for many answers at once: each asks for what it needs next, and all are fetched together.

use std::collections::HashMap;

use anyhow::Result;

use crate::kernel::stackscan::Memory;

/// Lowest address that can be kernel memory with 57-bit paging on x86-64 and 52-bit on arm64.
const KERNEL_START: u64 = 0xff00_0000_0000_0000;

/// A word was asked for that has not been fetched yet: ask again after [`Reader::fetch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later;

/// An answer, or [`Later`].
pub type Soon<T> = Result<T, Later>;

/// Words fetched so far, and those that were asked for since.
#[derive(Debug, Default)]
pub struct Reader {
    known: HashMap<u64, Option<u64>>,
    wanted: Vec<u64>,
}

impl Reader {
    /// The word at an address; `None` inside where nothing is readable.
    pub fn word(&mut self, addr: u64) -> Soon<Option<u64>> {
        if addr < KERNEL_START {
            return Ok(None);
        }
        if let Some(known) = self.known.get(&addr) {
            return Ok(*known);
        }
        self.wanted.push(addr);
        Err(Later)
    }

    /// The lower half of a word.
    pub fn half(&mut self, addr: u64) -> Soon<Option<u32>> {
        Ok(self.word(addr)?.map(|word| (word & 0xffff_ffff) as u32))
    }

    /// A string of at most `max` bytes that ends with a zero byte, printable only; `None` where there is no such string.
    pub fn text(&mut self, addr: u64, max: usize) -> Soon<Option<String>> {
        let mut bytes = Vec::new();
        // All words at once: strings are short, and a round costs more than a word.
        let words: Vec<Soon<Option<u64>>> = (0..max.div_ceil(8) as u64)
            .map(|i| self.word(addr.wrapping_add(i * 8)))
            .collect();
        for word in words {
            let Some(word) = word? else { break };
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(max);
        let Some(end) = bytes.iter().position(|&b| b == 0) else {
            return Ok(None);
        };
        bytes.truncate(end);
        let text = String::from_utf8(bytes).ok();
        Ok(text.filter(|text| !text.is_empty() && !text.chars().any(char::is_control)))
    }

    /// Whether something was asked for that is not there yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Words fetched so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Fetches what was asked for.
    ///
    /// # Errors
    /// As for [`Memory::read`].
    pub fn fetch(&mut self, memory: &mut dyn Memory) -> Result<()> {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.sort_unstable();
        wanted.dedup();
        let values = memory.read(&wanted)?;
        self.known.extend(wanted.into_iter().zip(values));
        Ok(())
    }
}
