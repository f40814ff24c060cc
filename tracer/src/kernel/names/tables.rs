//! Locks in arrays that the kernel allocates once and reaches through a variable: memory nodes with their zones, the hash tables of
//! futexes and sockets. They lie in boot-time memory or in whole pages, where nothing else tells what they are.

use anyhow::Result;

use super::objects::display;
use super::reader::{Reader, Soon};
use super::types::ends;
use super::{LockNamer, Named};
use crate::event::LockKind;
use crate::ids::KernelAddr;
use crate::kernel::btf::Btf;
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::Symbols;

const KERNEL_START: u64 = 0xff00_0000_0000_0000;
/// Memory nodes looked at. KERNEL: MAX_NUMNODES is 1 << CONFIG_NODES_SHIFT, at most 10 (include/linux/numa.h).
const MAX_NODES: u64 = 1 << 10;
/// More elements than any of the tables has: a count beyond it is no count.
const MAX_ELEMENTS: u64 = 1 << 28;
/// Pointers to the memory nodes. KERNEL: arch/x86/mm/numa.c, mm/numa.c, with CONFIG_NUMA.
const NODES: &str = "node_data";
const NODE: &str = "pglist_data";

/// Where the number of elements stands.
#[derive(Debug, Clone, Copy)]
enum Count {
    Member(&'static str),
    /// One less.
    Mask(&'static str),
}

/// A variable with a pointer to an array, and its length.
struct Row {
    variable: &'static str,
    /// Struct of the variable, and the pointer in it.
    holder: Option<(&'static str, &'static str, Count)>,
    element: &'static str,
    label: &'static str,
}

const fn sockets(pointer: &'static str, count: Count, element: &'static str, label: &'static str) -> Row {
    Row {
        variable: "tcp_hashinfo",
        holder: Some(("inet_hashinfo", pointer, count)),
        element,
        label,
    }
}

const fn datagrams(pointer: &'static str, label: &'static str) -> Row {
    Row {
        variable: "udp_table",
        holder: Some(("udp_table", pointer, Count::Mask("mask"))),
        element: "udp_hslot",
        label,
    }
}

/// KERNEL: include/net/inet_hashtables.h, include/net/udp.h; kernel/futex/core.c, where the struct has no name: pointer and length up to 6.15.
const TABLES: &[Row] = &[
    Row {
        variable: "__futex_data",
        holder: None,
        element: "futex_hash_bucket",
        label: "futex_queues",
    },
    sockets(
        "ehash_locks",
        Count::Mask("ehash_locks_mask"),
        "spinlock",
        "tcp_hashinfo.ehash_locks",
    ),
    sockets(
        "bhash",
        Count::Member("bhash_size"),
        "inet_bind_hashbucket",
        "tcp_hashinfo.bhash",
    ),
    sockets(
        "bhash2",
        Count::Member("bhash_size"),
        "inet_bind_hashbucket",
        "tcp_hashinfo.bhash2",
    ),
    sockets(
        "lhash2",
        Count::Mask("lhash2_mask"),
        "inet_listen_hashbucket",
        "tcp_hashinfo.lhash2",
    ),
    datagrams("hash", "udp_table.hash"),
    datagrams("hash2", "udp_table.hash2"),
];

/// An array that was found.
#[derive(Debug)]
struct Table {
    start: u64,
    end: u64,
    unit: u64,
    /// Index of the first element.
    first: u64,
    element: &'static str,
    label: &'static str,
}

/// A place in an element.
#[derive(Debug)]
struct Place {
    element: &'static str,
    label: &'static str,
    index: u64,
    start: u64,
    offset: u32,
}

/// Arrays of the running kernel.
#[derive(Debug, Default)]
pub struct Tables {
    known: Vec<Table>,
    read: bool,
}

/// A place where the address of an array stands, and one where its length stands.
struct Wanted {
    pointer: u64,
    count: Option<(u64, u32, u64)>,
    index: u64,
    element: &'static str,
    label: &'static str,
}

impl Tables {
    /// Reads where the arrays are, once: they stay where they are.
    ///
    /// # Errors
    /// As for [`Memory::read`].
    pub fn read(&mut self, symbols: Option<&Symbols>, btf: Option<&Btf>, memory: &mut dyn Memory) -> Result<()> {
        let (Some(symbols), Some(btf), false) = (symbols, btf, self.read) else {
            return Ok(());
        };
        self.read = true;
        let mut wanted: Vec<Wanted> = TABLES.iter().filter_map(|row| row.wanted(symbols, btf)).collect();
        wanted.extend(nodes(symbols));
        let addresses: Vec<u64> = wanted
            .iter()
            .flat_map(|one| [one.pointer, one.count.map_or(one.pointer, |(at, ..)| at)])
            .collect();
        let words = memory.read(&addresses)?;
        for (one, words) in wanted.iter().zip(words.chunks_exact(2)) {
            let &[Some(start), Some(length)] = words else { continue };
            let count = one.count.map_or(1, |(_, bits, more)| {
                let mask = u64::MAX >> (64 - bits);
                (length & mask).saturating_add(more)
            });
            let unit = btf.struct_size(one.element).map_or(0, u64::from);
            if start >= KERNEL_START && unit > 0 && (1..=MAX_ELEMENTS).contains(&count) {
                self.known.push(Table {
                    start,
                    end: start.saturating_add(unit * count),
                    unit,
                    first: one.index,
                    element: one.element,
                    label: one.label,
                });
            }
        }
        Ok(())
    }

    fn find(&self, addr: u64) -> Option<Place> {
        let table = self.known.iter().find(|t| (t.start..t.end).contains(&addr))?;
        let (index, offset) = ((addr - table.start) / table.unit, (addr - table.start) % table.unit);
        Some(Place {
            element: table.element,
            label: table.label,
            index: table.first + index,
            start: addr - offset,
            offset: u32::try_from(offset).ok()?,
        })
    }
}

impl Row {
    fn wanted(&self, symbols: &Symbols, btf: &Btf) -> Option<Wanted> {
        let at = variable(symbols, self.variable)?;
        let (pointer, count) = match self.holder {
            None => (at, (at + 8, 64, 0)),
            Some((holder, pointer, count)) => {
                let (length, more) = match count {
                    Count::Member(name) => (name, 0),
                    Count::Mask(name) => (name, 1),
                };
                let length = btf
                    .member_offset(holder, length)
                    .ok()
                    .filter(|m| matches!(m.size, 4 | 8))?;
                let pointer = btf.member_offset(holder, pointer).ok()?;
                (
                    at + u64::from(pointer.bytes),
                    (at + u64::from(length.bytes), length.size * 8, more),
                )
            }
        };
        Some(Wanted {
            pointer,
            count: Some(count),
            index: 0,
            element: self.element,
            label: self.label,
        })
    }
}

fn variable(symbols: &Symbols, name: &str) -> Option<u64> {
    Some(
        symbols
            .find(name)
            .find(|s| !s.is_code() && s.module.is_none())?
            .address
            .0,
    )
}

/// One pointer for each possible node.
fn nodes(symbols: &Symbols) -> Vec<Wanted> {
    let Some(at) = variable(symbols, NODES) else {
        return Vec::new();
    };
    let end = symbols.next_after(KernelAddr(at)).map_or(at, |next| next.0);
    (0..((end - at) / 8).min(MAX_NODES))
        .map(|index| Wanted {
            pointer: at + index * 8,
            count: None,
            index,
            element: NODE,
            label: NODES,
        })
        .collect()
}

impl LockNamer {
    /// A lock in one of the arrays.
    pub(super) fn in_table(&mut self, reader: &mut Reader, lock: u64, kind: LockKind) -> Soon<Option<Named>> {
        let (Some(place), Some(btf)) = (self.tables.find(lock), self.btf.clone()) else {
            return Ok(None);
        };
        let slot = format!("{}[{}]", place.label, place.index);
        let (name, class) = match self.types.paths(&btf, place.element, place.offset, kind).first() {
            Some(path) => {
                let class = display(path);
                let of = self.of_object(reader, place.start, path)?;
                let of = of.map_or_else(String::new, |of| format!("{of}, "));
                (format!("{class} of {of}{slot}"), class)
            }
            // The lock is the element.
            None if place.offset == 0 && ends(kind).contains(&place.element) => (slot, place.label.to_owned()),
            None => (format!("{slot}+{:#x}", place.offset), place.label.to_owned()),
        };
        Ok(Some(Named {
            name,
            source: "array that a kernel variable points to".to_owned(),
            class,
            firm: true,
            fixed: true,
            again: false,
        }))
    }
}
