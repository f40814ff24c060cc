//! Where the direct map and the array of `struct page` begin on x86-64 kernels that do not show the variables that say so: told by the page
//! tables of a process, whose address is one in the direct map.
//!
//! KERNEL: Documentation/arch/x86/x86_64/mm.rst. Both begin at a multiple of 1 GiB (`kernel_randomize_memory`, arch/x86/mm/kaslr.c). Page
//! tables hold physical addresses, so each candidate for the beginning is tried by translating the table's own address: only for the right one
//! the result is the address itself, less the beginning. The first page of a thread's stack, which `vmalloc` has mapped, then gives the other.

use anyhow::Result;
use tracer_common::snapshot::UserRecord;

use super::reader::{Later, Reader, Soon};
use crate::kernel::btf::Btf;
use crate::kernel::stackscan::Memory;

const KERNEL_HALF: u64 = 0xff00_0000_0000_0000;
const PAGE_SHIFT: u32 = 12;
const GIB: u64 = 1 << 30;
/// Candidates: the table lies in the first TiB of physical memory.
const MAX_GIB: u64 = 1 << 10;
/// Bits of an entry. KERNEL: arch/x86/include/asm/pgtable_types.h.
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits of a physical address in it: those above 64 TiB may say that memory is encrypted.
const ADDRESS: u64 = 0x0000_3fff_ffff_f000;
/// Processes tried.
const MAX_TRIES: usize = 8;
/// Rounds of fetching for one process.
const MAX_ROUNDS: usize = 32;

/// Beginnings of the direct map and of the array of `struct page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bases {
    pub direct: u64,
    pub pages: u64,
}

/// Offsets of what is read.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    pgd: u64,
    owner: u64,
    stack: u64,
    stack_area: u64,
    area_pages: u64,
    page_size: u64,
}

impl Fields {
    /// `None` where the kernel lacks one: then this way is closed.
    pub fn new(btf: &Btf) -> Option<Self> {
        let member = |of, path| Some(u64::from(btf.member_offset(of, path).ok()?.bytes));
        Some(Self {
            pgd: member("mm_struct", "pgd")?,
            owner: member("mm_struct", "owner")?,
            stack: member("task_struct", "stack")?,
            stack_area: member("task_struct", "stack_vm_area")?,
            area_pages: member("vm_struct", "pages")?,
            page_size: btf.struct_size("page").ok().filter(|&size| size > 0)?.into(),
        })
    }

    /// Tries a few processes.
    ///
    /// # Errors
    /// As for [`Memory::read`].
    pub fn find(self, users: &[UserRecord], memory: &mut dyn Memory) -> Result<Option<Bases>> {
        let mms = users.iter().filter_map(|user| user.objects.first().copied());
        for mm in mms.filter(|&mm| mm >= KERNEL_HALF).take(MAX_TRIES) {
            let mut reader = Reader::default();
            for _ in 0..MAX_ROUNDS {
                match self.of_process(&mut reader, mm) {
                    Ok(Some(bases)) => return Ok(Some(bases)),
                    Ok(None) => break,
                    Err(Later) => reader.fetch(memory)?,
                }
            }
        }
        Ok(None)
    }

    fn of_process(self, reader: &mut Reader, mm: u64) -> Soon<Option<Bases>> {
        let (pgd, owner) = (reader.word(mm + self.pgd), reader.word(mm + self.owner));
        let (Some(pgd), Some(owner)) = (pgd?, owner?) else {
            return Ok(None);
        };
        if pgd < KERNEL_HALF || owner < KERNEL_HALF {
            return Ok(None);
        }
        let begins = (0..MAX_GIB).map(|n| (pgd & !(GIB - 1)).wrapping_sub(n * GIB));
        let begins = begins.take_while(|&begin| begin >= KERNEL_HALF && top(begin) == top(pgd));
        // All of them, so that all words are fetched at once.
        let tried: Vec<(u64, Soon<Option<u64>>)> =
            begins.map(|begin| (begin, physical(reader, begin, pgd, pgd))).collect();
        let mut right = Vec::new();
        for (begin, found) in tried {
            if found? == Some(pgd - begin) {
                right.push(begin);
            }
        }
        let &[direct] = right.as_slice() else { return Ok(None) };
        let (stack, area) = (reader.word(owner + self.stack), reader.word(owner + self.stack_area));
        let (Some(stack), Some(area)) = (stack?, area?) else {
            return Ok(None);
        };
        let Some(array) = reader.word(area.wrapping_add(self.area_pages))? else {
            return Ok(None);
        };
        let (page, at) = (reader.word(array), physical(reader, direct, pgd, stack));
        let (Some(page), Some(at)) = (page?, at?) else {
            return Ok(None);
        };
        let pages = page.wrapping_sub((at >> PAGE_SHIFT) * self.page_size);
        Ok((pages >= KERNEL_HALF && pages % GIB == 0).then_some(Bases { direct, pages }))
    }
}

/// Bits of an address below the index into the uppermost table: an address of four levels has its upper 17 bits set.
fn top(addr: u64) -> u32 {
    if addr >> 47 == 0x1_ffff { 39 } else { 48 }
}

/// The physical address behind a virtual one, by the page tables at `pgd`, if the direct map begins at `direct`.
fn physical(reader: &mut Reader, direct: u64, pgd: u64, addr: u64) -> Soon<Option<u64>> {
    let mut table = pgd;
    for shift in (PAGE_SHIFT..=top(addr)).rev().step_by(9) {
        let entry = reader.word(table.wrapping_add((addr >> shift & 511) * 8))?;
        let Some(entry) = entry.filter(|entry| entry & PRESENT != 0) else {
            return Ok(None);
        };
        let below = (1 << shift) - 1;
        if shift == PAGE_SHIFT || entry & LARGE != 0 {
            return Ok(Some(entry & ADDRESS & !below | addr & below));
        }
        table = direct.wrapping_add(entry & ADDRESS);
    }
    Ok(None)
}
