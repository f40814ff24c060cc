//! Kernel memory, read by a BPF program into shared slots.

use anyhow::{Context, Result, bail};
use aya::{Btf, Ebpf};
use tracer_common::snapshot::{PEEK_SLOTS, PeekSlot, UserRecord, peek_state};
use zerocopy::FromBytes as _;

use crate::bpf::iterators;
use crate::bpf::shared::SharedArray;
use crate::kernel::stackscan::Memory;

const ITERATOR: &str = "iter_peek";
const USERS: &str = "iter_users";
/// 64-bit words of a [`PeekSlot`].
const ADDR_WORD: usize = 0;
const VALUE_WORD: usize = 1;
const STATE_WORD: usize = 2;

/// The slots.
pub struct Peeks {
    slots: SharedArray<PeekSlot>,
}

impl Peeks {
    /// Takes the map and loads the program.
    ///
    /// # Errors
    /// When the map is missing or the program is refused.
    pub fn new(ebpf: &mut Ebpf, btf: &Btf) -> Result<Self> {
        let map = ebpf.take_map("PEEKS").context("the BPF object has no map PEEKS")?;
        iterators::load_over(ebpf, ITERATOR, "bpf_map", btf)?;
        iterators::load(ebpf, USERS, btf)?;
        Ok(Self {
            slots: SharedArray::new(map, "PEEKS", PEEK_SLOTS)?,
        })
    }

    /// Kernel memory, as long as the BPF object is at hand.
    pub fn memory<'e>(&'e self, ebpf: &'e mut Ebpf) -> PeekMemory<'e> {
        PeekMemory { peeks: self, ebpf }
    }

    fn run(&self, ebpf: &mut Ebpf, addrs: &[u64], out: &mut Vec<Option<u64>>) -> Result<()> {
        let mut pending = addrs;
        while !pending.is_empty() {
            let batch = pending.get(..PEEK_SLOTS.min(pending.len())).unwrap_or_default();
            for (slot, &addr) in batch.iter().enumerate() {
                self.slots.set_word(slot, STATE_WORD, peek_state::PENDING);
                self.slots.set_word(slot, ADDR_WORD, addr);
            }
            // Ends the list; beyond the last slot this does nothing, and nothing is needed.
            self.slots.set_word(batch.len(), ADDR_WORD, 0);
            iterators::run(ebpf, ITERATOR, &mut Vec::new())?;
            let served = (0..batch.len()).map_while(|slot| match self.slots.word(slot, STATE_WORD) {
                Some(peek_state::READ) => Some(self.slots.word(slot, VALUE_WORD)),
                Some(peek_state::FAULT) => Some(None),
                _ => None,
            });
            let before = out.len();
            out.extend(served);
            let served = out.len() - before;
            if served == 0 {
                bail!(
                    "the BPF program {ITERATOR} read none of {} words of kernel memory",
                    batch.len()
                );
            }
            pending = pending.get(served..).unwrap_or_default();
        }
        Ok(())
    }
}

/// See [`Peeks::memory`].
pub struct PeekMemory<'e> {
    peeks: &'e Peeks,
    ebpf: &'e mut Ebpf,
}

impl Memory for PeekMemory<'_> {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        let mut values = Vec::with_capacity(addrs.len());
        // Address 0 ends a list of slots, and is never readable.
        for part in addrs.split_inclusive(|&addr| addr == 0) {
            match part {
                [wanted @ .., 0] => {
                    self.peeks.run(self.ebpf, wanted, &mut values)?;
                    values.push(None);
                }
                wanted => self.peeks.run(self.ebpf, wanted, &mut values)?,
            }
        }
        Ok(values)
    }

    fn users(&mut self) -> Result<Vec<UserRecord>> {
        let mut bytes = Vec::new();
        iterators::run(self.ebpf, USERS, &mut bytes)?;
        // A part of a record at the end is one thread less.
        let records = bytes.chunks_exact(size_of::<UserRecord>());
        Ok(records
            .filter_map(|record| UserRecord::read_from_bytes(record).ok())
            .collect())
    }
}

const _: () = {
    assert!(std::mem::offset_of!(PeekSlot, addr) == ADDR_WORD * 8);
    assert!(std::mem::offset_of!(PeekSlot, value) == VALUE_WORD * 8);
    assert!(std::mem::offset_of!(PeekSlot, state) == STATE_WORD * 8);
};
