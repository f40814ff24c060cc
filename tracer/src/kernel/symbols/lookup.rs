//! Address to name, and name to address.

use std::fmt;

use super::{Entry, Symbols};
use crate::{ids::KernelAddr, kernel::name_index::NameIndex};

/// Kernel addresses begin here with 57-bit paging on x86-64 and 52-bit on arm64. What lies below is a per-CPU offset or
/// an absolute constant, which names nothing.
const KERNEL_START: u64 = 0xff00_0000_0000_0000;
/// No function or lock object is larger. Without this bound the last symbol before a gap (between modules, or all of the
/// data where the kernel was built without CONFIG_KALLSYMS_ALL) would claim it.
const MAX_SPAN: u64 = 1 << 20;
/// Symbols that only say that something ends there.
const ENDS: [&str; 6] = ["_etext", "_einittext", "_edata", "_end", "__bss_stop", "__init_end"];
/// Suffixes under which compilers keep a function's calling point: it can be probed in place of the plain name.
/// `.cold` is not among them: that is the unlikely half of a function, split off.
const SUFFIXES: [&str; 5] = ["isra", "constprop", "part", "lto_priv", "llvm"];

/// A symbol, and possibly an address inside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Symbol<'a> {
    /// As the kernel spells it, with any compiler suffix.
    pub name: &'a str,
    /// The module that has it; `None` for the kernel itself.
    pub module: Option<&'a str>,
    /// Where the symbol begins.
    pub address: KernelAddr,
    /// Bytes into the symbol.
    pub offset: u64,
    /// Type letter as nm(1) prints it: `T`/`t` code, `D`/`d` data, `B`/`b` zeroed data, `R`/`r` constants, `W`/`w` weak.
    pub letter: char,
}

impl Symbol<'_> {
    /// Whether the symbol is code.
    pub fn is_code(&self) -> bool {
        matches!(self.letter, 'T' | 't' | 'W' | 'w')
    }

    /// Whether it marks a bound of a section and names nothing (include/asm-generic/vmlinux.lds.h).
    fn is_bound(&self) -> bool {
        let table = self.name.starts_with("__start_") || self.name.starts_with("__stop_");
        ENDS.contains(&self.name) || (table && !self.is_code())
    }
}

/// `name+0x12 [module]`, without the parts that are zero or absent.
impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.offset != 0 {
            write!(f, "+{:#x}", self.offset)?;
        }
        self.module.map_or(Ok(()), |m| write!(f, " [{m}]"))
    }
}

impl Symbols {
    /// The symbol in which an address lies: at or after its start, before the next symbol, and not absurdly far.
    pub fn resolve(&self, KernelAddr(address): KernelAddr) -> Option<Symbol<'_>> {
        let after = self.entries.partition_point(|e| e.address <= address);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        let offset = address - entry.address;
        if entry.address < KERNEL_START || offset >= MAX_SPAN {
            return None;
        }
        let symbol = self.symbol(entry);
        (!symbol.is_bound()).then_some(Symbol { offset, ..symbol })
    }

    /// Every symbol of exactly this name, in address order. Static functions and data may have several.
    pub fn find<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Symbol<'a>> {
        self.with_base(name).filter(move |s| s.name == name)
    }

    /// Code under this name or under a name the compiler made from it (`.isra.0`, `.constprop.0`, `.part.0`, ...): what
    /// a probe for the function can attach to. The plain name comes first, then by address.
    pub fn find_code<'a>(&'a self, name: &'a str) -> Vec<Symbol<'a>> {
        let mut found: Vec<_> = self
            .with_base(name)
            .filter(|s| s.is_code() && s.name.strip_prefix(name).is_some_and(keeps_calling_point))
            .collect();
        found.sort_by_key(|s| (s.name != name, s.address));
        found
    }

    /// Where the next symbol begins: the end of what the symbol at `address` names.
    pub fn next_after(&self, KernelAddr(address): KernelAddr) -> Option<KernelAddr> {
        let after = self.entries.partition_point(|e| e.address <= address);
        self.entries.get(after).map(|e| KernelAddr(e.address))
    }

    /// All symbols in address order.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.entries.iter().map(|e| self.symbol(e))
    }

    fn with_base<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Symbol<'a>> {
        let index = self.by_base_name.get_or_init(|| {
            NameIndex::build(
                (0..)
                    .zip(&self.entries)
                    .map(|(i, e)| (base(self.name(e)).as_bytes(), i)),
            )
        });
        index
            .candidates(base(name).as_bytes())
            .filter_map(|i| self.entries.get(i as usize))
            .map(|e| self.symbol(e))
    }

    fn symbol(&self, entry: &Entry) -> Symbol<'_> {
        let module = usize::from(entry.module)
            .checked_sub(1)
            .and_then(|i| self.modules.get(i));
        Symbol {
            name: self.name(entry),
            module: module.map(|m| &**m),
            address: KernelAddr(entry.address),
            offset: 0,
            letter: self.letter_and_name(entry).chars().next().unwrap_or('?'),
        }
    }

    fn name(&self, entry: &Entry) -> &str {
        self.letter_and_name(entry).get(1..).unwrap_or_default()
    }

    fn letter_and_name(&self, entry: &Entry) -> &str {
        let start = entry.text_at as usize;
        self.text
            .get(start..start + usize::from(entry.text_len))
            .unwrap_or_default()
    }
}

/// A name without its compiler suffixes. Names that begin with a dot are their own base.
fn base(name: &str) -> &str {
    match name.find('.') {
        Some(0) | None => name,
        Some(dot) => name.split_at(dot).0,
    }
}

/// Whether what follows a function's name is nothing, or only suffixes of [`SUFFIXES`] with their numbers.
fn keeps_calling_point(suffix: &str) -> bool {
    let mut parts = suffix.split('.');
    if parts.next() != Some("") {
        return false;
    }
    let mut known = true;
    let mut any_word = false;
    for part in parts {
        let number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        any_word |= !number;
        known &= (number && any_word) || SUFFIXES.contains(&part);
    }
    known
}
