//! The kernel's symbols, from `/proc/kallsyms`.
//!
//! A machine has 100,000 to 300,000 of them. All names go into one string, an entry is 16 bytes, and the index by name
//! (built on first use) takes eight more.

mod load;
mod lookup;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::OnceLock};

pub use lookup::Symbol;

use super::name_index::NameIndex;

/// Where the kernel lists its symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// All symbols of one kernel and its modules.
#[derive(Debug)]
pub struct Symbols {
    /// For each entry its type letter (as in nm(1)) followed by its name.
    text: String,
    /// Sorted by address; of several at one address the preferred name comes last.
    entries: Vec<Entry>,
    modules: Vec<Box<str>>,
    malformed: usize,
    by_base_name: OnceLock<NameIndex>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    text_at: u32,
    /// Of letter and name.
    text_len: u16,
    /// Index into the modules, plus one; zero is the core kernel.
    module: u16,
}

/// Why there are no symbols.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// The file cannot be read.
    #[error("cannot read the kernel's symbols from {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel gives names, but zeros for every address.
    #[error(
        "{path} hides all addresses (every one of {symbols} is zero): run holdup as root or with CAP_SYSLOG, and if \
         that does not help set `sysctl kernel.kptr_restrict=1` (2 hides them from root too)",
        path = path.display()
    )]
    Hidden {
        /// The file.
        path: PathBuf,
        /// Symbols listed.
        symbols: usize,
    },
    /// Not one line is a symbol.
    #[error("{path} lists no symbols ({malformed} lines were not understood): the kernel needs CONFIG_KALLSYMS=y", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Lines that are not symbols.
        malformed: usize,
    },
    /// More text than the compact index can address.
    #[error("{path} is larger than 4 GiB: that is no list of kernel symbols", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Symbols {
    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none. Loading refuses such a list, so this is false.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lines that were not understood and left out.
    pub fn malformed(&self) -> usize {
        self.malformed
    }

    /// Bytes held, without the index by name.
    pub fn heap_bytes(&self) -> usize {
        let modules: usize = self.modules.iter().map(|m| m.len() + size_of::<Box<str>>()).sum();
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>() + modules
    }
}
