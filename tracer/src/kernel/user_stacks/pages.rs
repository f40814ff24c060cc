//! From an address of a process to the place where the kernel's direct map shows it.

use anyhow::{Context, Result, bail};

use crate::kernel::offsets::KernelOffsets;
use crate::kernel::symbols::Symbols;
use crate::kernel::tasks::ask::Asker;

const PAGE: u64 = 4096;
/// `_PAGE_PRESENT`, `_PAGE_USER`, `_PAGE_PSE` (arch/x86/include/asm/pgtable_types.h), 5.10 to 6.18.
const PRESENT: u64 = 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
/// Bits of an entry that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits of an address that each level of the tables takes.
const LEVEL_BITS: u64 = 9;
/// Lowest base of the direct map with four levels of tables (`__PAGE_OFFSET_BASE_L4`, page_64_types.h); with five it is lower, also
/// where the base is random.
const FOUR_LEVELS: u64 = 0xffff_8000_0000_0000;
/// The variable that holds that base (arch/x86/kernel/head64.c).
const PAGE_OFFSET: &str = "page_offset_base";

/// Walks page tables.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    base: Base,
}

/// The base of the direct map.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// In the variable at this address.
    Variable(u64),
    Known(u64),
}

impl Pages {
    /// For one kernel. `hidden` finds the base of the direct map where no variable shows it.
    ///
    /// # Errors
    /// When that is not found, or a field is missing.
    pub fn new(
        symbols: Option<&Symbols>,
        hidden: impl FnOnce() -> Result<Option<u64>>,
        o: &KernelOffsets,
    ) -> Result<Self> {
        if o.mm.pgd.is_none() || o.mm.mappings.is_none() {
            bail!(
                "user-space stacks need mm_struct.pgd and mm_struct.mm_mt, which this kernel's BTF does not have (6.1 and newer do)"
            );
        }
        let mut variables = symbols.into_iter().flat_map(|symbols| symbols.find(PAGE_OFFSET));
        let base = match variables.find(|symbol| !symbol.is_code()) {
            Some(variable) => Base::Variable(variable.address.0),
            None => Base::Known(hidden()?.with_context(|| {
                format!(
                    "user-space stacks need the variable {PAGE_OFFSET}, which is not in /proc/kallsyms, and the page tables do not tell \
                     what is in it"
                )
            })?),
        };
        Ok(Self { base })
    }

    /// Words from `from` upward, up to the first page that is not in memory; at most `bytes`.
    pub fn words(&self, pgd: u64, from: u64, bytes: u64, ask: &mut Asker<'_, '_>) -> Option<Vec<u64>> {
        if !from.is_multiple_of(8) || from == 0 {
            return Some(Vec::new());
        }
        let base = match self.base {
            Base::Variable(at) => ask.words([at])?[0],
            Base::Known(base) => base,
        };
        let end = from.saturating_add(bytes);
        let mut places = Vec::new();
        let mut at = from;
        let mut waits = false;
        while at < end {
            let page_end = (at & !(PAGE - 1)).saturating_add(PAGE);
            let (page, missing) = ask.part(|ask| place(base, pgd, at, ask));
            waits |= missing;
            match page {
                Some(first) => places.extend((0..page_end.min(end) - at).step_by(8).map(|n| first.wrapping_add(n))),
                None if missing => {}
                None => break,
            }
            at = page_end;
        }
        if waits {
            return None;
        }
        let words = ask.many(&places)?;
        Some(words.into_iter().map_while(|word| word).collect())
    }
}

/// Where the direct map shows an address; `None` where no page is present, or it is not the process's own.
///
/// KERNEL: arch/x86/mm/pgtable.c; the tables of user space are in the kernel's own set also with page table isolation.
fn place(base: u64, pgd: u64, addr: u64, ask: &mut Asker<'_, '_>) -> Option<u64> {
    let levels = if base >= FOUR_LEVELS { 4 } else { 5 };
    let mut table = pgd;
    for level in (0..levels).rev() {
        let shift = 12 + LEVEL_BITS * level;
        let index = addr >> shift & ((1 << LEVEL_BITS) - 1);
        let [entry] = ask.words([table.wrapping_add(8 * index)])?;
        if entry & (PRESENT | USER) != PRESENT | USER {
            return None;
        }
        let inside = (1 << shift) - 1;
        let large = (1..=2).contains(&level) && entry & LARGE != 0;
        if level == 0 || large {
            return Some(base.wrapping_add(entry & ADDRESS & !inside).wrapping_add(addr & inside));
        }
        table = base.wrapping_add(entry & ADDRESS);
    }
    None
}
