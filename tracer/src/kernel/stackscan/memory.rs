//! Words of kernel memory, fetched many at a time.

use std::collections::HashMap;

use anyhow::Result;
use tracer_common::snapshot::UserRecord;

/// Lowest address that can be kernel memory with 57-bit paging on x86-64 and 52-bit on arm64.
const KERNEL_START: u64 = 0xff00_0000_0000_0000;
/// Above the highest: the last page holds error pointers (`ERR_PTR`).
const KERNEL_END: u64 = u64::MAX - 0xfff;

/// Whether a word can be a pointer to an object in kernel memory.
#[must_use]
pub fn is_pointer(word: u64) -> bool {
    (KERNEL_START..KERNEL_END).contains(&word) && word.is_multiple_of(8)
}

/// Reads words of kernel memory.
pub trait Memory {
    /// One answer for each address; `None` where nothing is readable.
    ///
    /// # Errors
    /// When the kernel does not answer at all.
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>>;

    /// Every thread with what it uses.
    ///
    /// # Errors
    /// When the kernel does not answer at all.
    fn users(&mut self) -> Result<Vec<UserRecord>> {
        Ok(Vec::new())
    }
}

/// The words known so far. What is fetched once is not fetched again: all words of a round are to be of one time.
pub struct Words<'m> {
    memory: &'m mut dyn Memory,
    known: HashMap<u64, Option<u64>>,
}

impl<'m> Words<'m> {
    /// Knows nothing yet.
    pub fn new(memory: &'m mut dyn Memory) -> Self {
        Self {
            memory,
            known: HashMap::new(),
        }
    }

    /// Fetches words, in as few runs as possible. Addresses that cannot be kernel memory count as unreadable.
    ///
    /// # Errors
    /// As for [`Memory::read`].
    pub fn fetch(&mut self, addrs: impl IntoIterator<Item = u64>) -> Result<()> {
        let mut wanted: Vec<u64> = addrs
            .into_iter()
            .filter(|&addr| (KERNEL_START..KERNEL_END).contains(&addr) && !self.known.contains_key(&addr))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let values = self.memory.read(&wanted)?;
        self.known.extend(wanted.into_iter().zip(values));
        Ok(())
    }

    /// Fetches words anew, without remembering them.
    ///
    /// # Errors
    /// As for [`Memory::read`].
    pub fn again(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        if addrs.is_empty() {
            return Ok(Vec::new());
        }
        self.memory.read(addrs)
    }

    /// Whether the word was fetched, or can never be.
    #[must_use]
    pub fn is_known(&self, addr: u64) -> bool {
        !(KERNEL_START..KERNEL_END).contains(&addr) || self.known.contains_key(&addr)
    }

    /// A word that was fetched; `None` if it was not, or cannot be read.
    #[must_use]
    pub fn get(&self, addr: u64) -> Option<u64> {
        self.known.get(&addr).copied().flatten()
    }

    /// The lower half of a word that was fetched.
    #[must_use]
    pub fn low(&self, addr: u64) -> Option<u32> {
        self.get(addr).map(|word| (word & 0xffff_ffff) as u32)
    }
}
