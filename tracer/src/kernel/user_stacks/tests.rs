//! Page tables and trees of mappings made of words, and the frames of a function of our own.

use std::cell::RefCell;
use std::collections::HashMap;

use super::files::binary;
use super::mappings::MappedFile;
use super::*;
use crate::kernel::symbols::Symbols;

const BASE_VARIABLE: u64 = 0xffff_ffff_8300_0000;
/// Bases of the direct map with four and with five levels of page tables.
const FOUR: u64 = 0xffff_8880_0000_0000;
const FIVE: u64 = 0xff11_0000_0000_0000;
const MM: u64 = 0xffff_8880_0100_0000;
/// Present, writable, of user space.
const USER: u64 = 7;

#[derive(Default)]
struct Rig {
    words: HashMap<u64, u64>,
    asked: RefCell<usize>,
}

impl Memory for Rig {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        *self.asked.borrow_mut() += 1;
        Ok(addrs.iter().map(|addr| self.words.get(addr).copied()).collect())
    }
}

fn offsets() -> KernelOffsets {
    let mut o = KernelOffsets::default();
    (o.mm.pgd, o.mm.mappings) = (Some(0x50), Some(0x58));
    (o.maple.range_pivot, o.maple.range_slot) = (Some(8), Some(128));
    (o.maple.alloc_pivot, o.maple.alloc_slot) = (Some(8), Some(80));
    (o.vma.start, o.vma.end, o.vma.mm) = (Some(0), Some(8), Some(16));
    (o.vma.flags, o.vma.pgoff, o.vma.file) = (Some(32), Some(40), Some(48));
    (o.file.inode, o.file.path_dentry, o.file.path_mnt) = (Some(16), Some(32), Some(24));
    (o.file.inode_sb, o.file.inode_number, o.inode.device) = (Some(40), Some(64), Some(16));
    (o.file.dentry_parent, o.file.dentry_name, o.file.dentry_name_len) = (Some(24), Some(40), Some(36));
    (o.file.mount_mnt, o.file.mount_parent, o.file.mount_point) = (Some(32), Some(16), Some(24));
    o.file.mnt_root = Some(0);
    o
}

impl Rig {
    fn with_base(base: u64) -> Self {
        Self {
            words: HashMap::from([(BASE_VARIABLE, base)]),
            ..Self::default()
        }
    }

    fn put(&mut self, at: u64, words: &[(u64, u64)]) -> u64 {
        self.words
            .extend(words.iter().map(|(offset, word)| (at + offset, *word)));
        at
    }

    fn stack(&mut self, pgd: u64, from: u64, bytes: u64) -> Option<Vec<u64>> {
        let symbols = format!("{BASE_VARIABLE:x} D page_offset_base\n");
        let symbols = Symbols::parse(std::path::Path::new("kallsyms"), symbols.as_bytes()).unwrap();
        let pages = Pages::new(Some(&symbols), || Ok(None), &offsets()).unwrap();
        let mut words = Words::new(self);
        let answers = ask_all(&mut words, &[()], |(), ask| pages.words(pgd, from, bytes, ask)).unwrap();
        answers.into_iter().next().unwrap()
    }
}

/// Tables for one page of `addr`, in frames from `tables` on; the entry at `level` is `entry`.
fn map(rig: &mut Rig, base: u64, levels: u64, addr: u64, level: u64, entry: u64) -> u64 {
    let table = |level: u64| 0x10_0000 + 0x1000 * level;
    for above in (level..levels).rev() {
        let index = addr >> (12 + 9 * above) & 511;
        let value = if above == level { entry } else { table(above - 1) | USER };
        rig.put(base + table(above), &[(8 * index, value)]);
    }
    base + table(levels - 1)
}

#[test]
fn a_stack_is_read_through_the_page_tables_up_to_the_first_page_that_is_not_there() {
    for (base, levels) in [(FOUR, 4), (FIVE, 5)] {
        let mut rig = Rig::with_base(base);
        let addr = 0x7ffd_1234_5fe0;
        let frame = 0x7_7777_7000;
        // Not executable (bit 63), and bits that the hardware sets.
        let pgd = map(&mut rig, base, levels, addr, 0, 1 << 63 | frame | 0x60 | USER);
        for n in 0..4 {
            rig.put(base + frame, &[(0xfe0 + 8 * n, 100 + n)]);
        }
        assert_eq!(
            rig.stack(pgd, addr, 4096),
            Some(vec![100, 101, 102, 103]),
            "{levels} levels"
        );
        assert!(
            *rig.asked.borrow() <= levels as usize + 2,
            "{} runs",
            rig.asked.borrow()
        );
        assert_eq!(rig.stack(pgd, addr, 16), Some(vec![100, 101]));
        assert_eq!(rig.stack(pgd, addr + 4, 16), Some(vec![]), "no stack pointer");
    }
}

#[test]
fn where_no_variable_shows_the_direct_map_the_page_tables_do() {
    let addr = 0x7ffd_1234_5fe0;
    let mut rig = Rig::default();
    let pgd = map(&mut rig, FOUR, 4, addr, 0, 0x7000 | USER);
    rig.put(FOUR + 0x7000, &[(0xfe0, 5)]);
    let pages = Pages::new(None, || Ok(Some(FOUR)), &offsets()).unwrap();
    let mut words = Words::new(&mut rig);
    let answers = ask_all(&mut words, &[()], |(), ask| pages.words(pgd, addr, 8, ask)).unwrap();
    assert_eq!(answers, [Some(vec![5])]);
    let error = Pages::new(None, || Ok(None), &offsets()).unwrap_err().to_string();
    assert!(
        error.starts_with("user-space stacks need the variable page_offset_base"),
        "{error}"
    );
}

#[test]
fn large_pages_and_pages_that_are_not_the_processs_own() {
    let addr = 0x7ffd_1234_5fe0;
    let mut rig = Rig::with_base(FOUR);
    let pgd = map(&mut rig, FOUR, 4, addr, 1, 0x4000_0000 | 0x80 | USER);
    rig.put(FOUR + 0x4000_0000 + (addr & 0x1f_ffff), &[(0, 5), (8, 6)]);
    assert_eq!(rig.stack(pgd, addr, 16), Some(vec![5, 6]));
    for entry in [0x4000_0000 | 0x80 | 3, 0x4000_0000 | 0x80 | 6, 0] {
        let mut rig = Rig::with_base(FOUR);
        let pgd = map(&mut rig, FOUR, 4, addr, 1, entry);
        rig.put(FOUR + 0x4000_0000 + (addr & 0x1f_ffff), &[(0, 5)]);
        assert_eq!(rig.stack(pgd, addr, 16), Some(vec![]), "{entry:#x}");
    }
}

const NODE_LEAF: u64 = 1 << 3 | 4;
const NODE_ALLOC: u64 = 3 << 3 | 4;

fn node(rig: &mut Rig, at: u64, slots_at: u64, slots: usize, pivots: &[u64], values: &[u64]) {
    for n in 0..(slots as u64 - 1) {
        rig.put(at, &[(8 + 8 * n, 0)]);
    }
    for n in 0..slots as u64 {
        // What stands behind the last slot is left over from before.
        rig.put(at, &[(slots_at + 8 * n, 0xffff_8880_dead_0000)]);
    }
    for (n, &pivot) in (0u64..).zip(pivots) {
        rig.put(at, &[(8 + 8 * n, pivot)]);
    }
    for (n, &value) in (0u64..).zip(values) {
        rig.put(at, &[(slots_at + 8 * n, value)]);
    }
}

fn vma(rig: &mut Rig, at: u64, range: (u64, u64), mm: u64, flags: u64, file: u64) {
    let words = [(0, range.0), (8, range.1), (16, mm), (32, flags), (40, 3), (48, file)];
    rig.put(at, &words);
}

#[test]
fn executable_mappings_are_found_in_a_tree_of_two_levels() {
    let mut rig = Rig::default();
    let at = |n: u64| 0xffff_8880_0200_0000 + 0x1000 * n;
    // `/bin` is not a mount of its own: /bin/prog.
    rig.put(
        at(30),
        &[(0, u64::from_le_bytes(*b"prog\0\0\0\0")), (8, 0), (16, 0), (24, 0)],
    );
    rig.put(
        at(31),
        &[(0, u64::from_le_bytes(*b"bin\0\0\0\0\0")), (8, 0), (16, 0), (24, 0)],
    );
    let root = rig.put(at(20), &[(24, at(20))]);
    let bin = rig.put(at(21), &[(24, root), (36, 3), (40, at(31))]);
    let prog = rig.put(at(22), &[(24, bin), (36, 4), (40, at(30))]);
    let mount = rig.put(at(23), &[(16, at(23)), (32, root)]);
    let super_block = rig.put(at(24), &[(16, 254 << 20 | 3)]);
    let inode = rig.put(at(25), &[(40, super_block), (64, 4711)]);
    let file = rig.put(at(26), &[(16, inode), (24, mount + 32), (32, prog)]);
    vma(&mut rig, at(10), (0x40_0000, 0x40_2000), MM, 5, file);
    vma(&mut rig, at(11), (0x50_0000, 0x50_1000), MM, 3, file);
    vma(&mut rig, at(12), (0x7000_0000, 0x7000_1000), MM, 5, 0);
    vma(&mut rig, at(13), (0x7100_0000, 0x7100_1000), MM + 8, 5, file);
    vma(&mut rig, at(14), (0x7f00_0000, 0x7f00_1000), MM, 0x75, file);
    // The last pivot of a leaf that is not full is 0.
    node(
        &mut rig,
        at(1),
        128,
        16,
        &[0x3f_ffff, 0x40_1fff, 0x4f_ffff, 0x50_0fff, 0x6fff_ffff],
        &[0, at(10), 0, at(11), 0],
    );
    node(
        &mut rig,
        at(2),
        128,
        16,
        &[0x7000_0fff, 0x7100_0fff, 0x7f00_0fff],
        &[at(12), at(13), at(14), 0],
    );
    node(
        &mut rig,
        at(0),
        80,
        10,
        &[0x6fff_ffff],
        &[at(1) | NODE_LEAF, at(2) | NODE_LEAF],
    );
    rig.put(MM, &[(0x58, at(0) | NODE_ALLOC | 2)]);
    let mut words = Words::new(&mut rig);
    let found = mappings::read(&[MM], &offsets(), &mut words).unwrap();
    let file = Arc::new(MappedFile {
        path: "/bin/prog".into(),
        device: (254, 3),
        inode: 4711,
    });
    let mapping = |start, end| Mapping {
        start,
        end,
        offset: 3 * 4096,
        file: Arc::clone(&file),
    };
    assert_eq!(
        found,
        [(
            MM,
            vec![mapping(0x40_0000, 0x40_2000), mapping(0x7f00_0000, 0x7f00_1000)]
        )]
    );
}

#[test]
fn a_tree_that_leads_into_itself_ends() {
    let mut rig = Rig::default();
    let at = 0xffff_8880_0200_0000;
    node(&mut rig, at, 80, 10, &[0x1000, 0x2000], &[at | NODE_ALLOC; 3]);
    rig.put(MM, &[(0x58, at | NODE_ALLOC | 2)]);
    let mut words = Words::new(&mut rig);
    assert_eq!(mappings::read(&[MM], &offsets(), &mut words).unwrap(), [(MM, vec![])]);
}

#[test]
fn a_file_is_believed_only_if_it_is_the_one_that_is_mapped() {
    use std::os::unix::fs::MetadataExt as _;
    let path = std::env::current_exe().unwrap();
    let meta = path.metadata().unwrap();
    let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let file = |device, inode| {
        Arc::new(MappedFile {
            path: path.to_str().unwrap().into(),
            device,
            inode,
        })
    };
    let mut files = files::Files::new();
    let found = files.binary(&file(device, meta.ino())).expect("this program");
    assert!(
        found.eh_frame.is_some() && found.segments.len() == 1,
        "{:?}",
        found.segments
    );
    assert!(files.binary(&file(device, meta.ino() + 1)).is_none());
    assert!(files.binary(&file((device.0, device.1 + 1), meta.ino())).is_none());
}

#[test]
fn what_is_no_elf_file_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("empty", &b""[..]),
        ("text", b"#!/bin/sh\n"),
        ("cut", b"\x7fELF\x02\x01\x01\0\0\0\0\0"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        assert!(binary(std::fs::File::open(path).unwrap()).is_none(), "{name}");
    }
}
