//! The executable files that are mapped into a process, from the tree in which the kernel keeps its mappings.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;

use crate::kernel::offsets::KernelOffsets;
use crate::kernel::stackscan::{Words, is_pointer};
use crate::kernel::tasks::ask::{Asker, ask_all};
use crate::kernel::tasks::file;

/// Mappings of a process looked at.
const MAX_MAPPINGS: usize = 16_384;
/// Nodes of one level of the tree looked at.
const MAX_NODES: usize = 2_048;
/// Levels of the tree: each node has ten children or more.
const MAX_HEIGHT: usize = 8;
/// `maple_leaf_64`, `maple_range_64` and `maple_arange_64` of `enum maple_type`; the kind and flags of a node stand in the low bits of
/// a pointer to it (include/linux/maple_tree.h), 6.1 to 6.18.
const LEAF: u64 = 1;
const RANGE: u64 = 2;
const ALLOC_RANGE: u64 = 3;
const NODE_FLAGS: u64 = 0xff;
const NODE_KIND: u64 = 0xf;
const KIND_SHIFT: u32 = 3;
/// `VM_EXEC` (include/linux/mm.h).
const EXECUTABLE: u64 = 4;
const PAGE: u64 = 4096;

/// A part of a file that is mapped to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    /// Bytes into the file at the first address.
    pub offset: u64,
    /// The file.
    pub file: Arc<MappedFile>,
}

/// A file, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// Its path in the mount namespace of the process.
    pub path: Arc<str>,
    /// Major and minor number of its file system's device.
    pub device: (u32, u32),
    /// Number of its inode.
    pub inode: u64,
}

/// What is mapped where, and the `struct file`.
#[derive(Clone, Copy, Debug)]
struct Area {
    start: u64,
    end: u64,
    offset: u64,
    file: u64,
}

/// The executable mappings of these address spaces (`struct mm_struct`), by address.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn read(spaces: &[u64], o: &KernelOffsets, words: &mut Words<'_>) -> Result<Vec<(u64, Vec<Mapping>)>> {
    let trees = ask_all(words, spaces, |&mm, ask| areas_of(mm, o, ask))?;
    let places: Vec<(u64, u64)> = spaces
        .iter()
        .zip(trees)
        .flat_map(|(&mm, areas)| areas.into_iter().flatten().map(move |area| (mm, area)))
        .collect();
    let areas = ask_all(words, &places, |&(mm, area), ask| executable(mm, area, o, ask))?;
    let mut files: Vec<u64> = areas.iter().flatten().map(|area| area.file).collect();
    files.sort_unstable();
    files.dedup();
    let named = ask_all(words, &files, |&file, ask| mapped_file(file, o, ask))?;
    let named: HashMap<u64, Arc<MappedFile>> = files
        .into_iter()
        .zip(named)
        .filter_map(|(file, named)| Some((file, Arc::new(named?))))
        .collect();
    let mut found: HashMap<u64, Vec<Mapping>> = spaces.iter().map(|&mm| (mm, Vec::new())).collect();
    for (&(mm, _), area) in places.iter().zip(areas) {
        if let Some(area) = area
            && let Some(file) = named.get(&area.file)
            && let Some(mappings) = found.get_mut(&mm)
        {
            mappings.push(Mapping {
                start: area.start,
                end: area.end,
                offset: area.offset,
                file: Arc::clone(file),
            });
        }
    }
    Ok(found.into_iter().collect())
}

/// Every `struct vm_area_struct` of an address space.
fn areas_of(mm: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Vec<u64>> {
    let root = ask.field(mm, o.mm.mappings)?;
    // `xa_is_node`: with a single entry, that is the root.
    if root & 3 != 2 {
        return Some(is_pointer(root).then_some(root).into_iter().collect());
    }
    let mut areas = Vec::new();
    let mut level = vec![(root, u64::MAX)];
    for _ in 0..MAX_HEIGHT {
        let mut next = Vec::new();
        let mut waits = false;
        for &(node, max) in &level {
            let (slots, missing) = ask.part(|ask| slots(node, max, o, ask));
            waits |= missing;
            let below = slots.unwrap_or_default();
            if kind(node) == LEAF {
                areas.extend(below.into_iter().map(|(area, _)| area).filter(|&area| is_pointer(area)));
            } else {
                next.extend(below);
            }
        }
        if waits {
            return None;
        }
        areas.truncate(MAX_MAPPINGS);
        next.truncate(MAX_NODES);
        if next.is_empty() {
            break;
        }
        level = next;
    }
    Some(areas)
}

fn kind(node: u64) -> u64 {
    node >> KIND_SHIFT & NODE_KIND
}

/// What stands in a node, each with the last address below it.
///
/// KERNEL: `mas_data_end` and `mas_logical_pivot` (lib/maple_tree.c), 6.1 to 6.18: a pivot is the last address of its slot, and 0
/// behind the last one.
fn slots(node: u64, max: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Vec<(u64, u64)>> {
    let m = &o.maple;
    let (pivot, slot) = match kind(node) {
        LEAF | RANGE => (m.range_pivot?, m.range_slot?),
        ALLOC_RANGE => (m.alloc_pivot?, m.alloc_slot?),
        _ => return None,
    };
    let pivots = u64::from(slot.checked_sub(pivot)? / 8);
    let node = node & !NODE_FLAGS;
    let pivot_places: Vec<u64> = (0..pivots)
        .map(|n| node.wrapping_add(u64::from(pivot) + 8 * n))
        .collect();
    let slot_places: Vec<u64> = (0..=pivots)
        .map(|n| node.wrapping_add(u64::from(slot) + 8 * n))
        .collect();
    let all = [pivot_places, slot_places].concat();
    let words = ask.many(&all)?;
    let (pivots, slots) = words.split_at(usize::try_from(pivots).ok()?);
    let mut found = Vec::new();
    for (n, &value) in slots.iter().enumerate() {
        let last = match pivots.get(n).copied().flatten() {
            Some(0) if n > 0 => max,
            Some(last) => last,
            None => max,
        };
        found.push((value?, last.min(max)));
        if last >= max {
            break;
        }
    }
    Some(found)
}

/// A mapping that code runs from; it must say itself that it is one of this address space.
fn executable(mm: u64, area: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Area> {
    let v = &o.vma;
    let fields = [v.start?, v.end?, v.mm?, v.flags?, v.pgoff?, v.file?];
    let [start, end, of, flags, pgoff, file] = ask.words(fields.map(|field| area.wrapping_add(field.into())))?;
    (of == mm && start < end && flags & EXECUTABLE != 0 && is_pointer(file)).then_some(Area {
        start,
        end,
        offset: pgoff.wrapping_mul(PAGE),
        file,
    })
}

fn mapped_file(file: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<MappedFile> {
    let f = &o.file;
    let inode = ask.pointer(file, f.inode)?;
    let number = ask.field(inode, f.inode_number)?;
    let super_block = ask.pointer(inode, f.inode_sb)?;
    // `dev_t`: 12 bits of major, 20 of minor number (include/linux/kdev_t.h).
    let device = ask.field(super_block, o.inode.device)? & 0xffff_ffff;
    let path = file::path(
        ask.pointer(file, f.path_dentry)?,
        ask.pointer(file, f.path_mnt)?,
        o,
        ask,
    )?;
    Some(MappedFile {
        path: path.into(),
        device: ((device >> 20) as u32, (device & 0xf_ffff) as u32),
        inode: number,
    })
}
