//! A kernel made of words.

mod places;
mod users;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tracer_common::snapshot::UserRecord;
use zerocopy::FromZeros as _;

use super::*;
use crate::kernel::btf::tests::blob::Blob;
use crate::kernel::offsets::ResolvedOffsets;
use crate::kernel::testing::Tree;

const DIRECT: u64 = 0xffff_8880_0000_0000;
const PAGES: u64 = 0xffff_ea00_0000_0000;
const SLAB: u64 = DIRECT + 0x4000;
const CPU0: u64 = 0xffff_8880_7e00_0000;
const TASKS: u64 = 0xffff_8880_0060_0000;
const SYMBOLS: &str = "\
0000000000000000 A __per_cpu_start
ffffffff81000000 T code
ffffffff81000100 T callback
ffffffff82000000 D rtnl_mutex
ffffffff82000100 D page_offset_base
ffffffff82000108 D vmemmap_base
ffffffff82000110 D vmalloc_base
ffffffff82000200 D __per_cpu_offset
ffffffff82000300 D init_mm
ffffffff82001000 D node_data
ffffffff82001010 D __futex_data
ffffffff82001020 D vmap_area_root
ffffffff82001028 D file_operations
ffffffff82001068 D kernfs_locks
ffffffff82001070 D behind
ffffffffc0000000 d driver_lock\t[driver]
ffffffffc0000100 d other\t[driver]
ffffffffc0000200 d heap\t[driver]
ffffffffc0000208 d pair\t[driver]
ffffffffc0000218 d behind\t[driver]
";

#[derive(Default)]
struct Kernel {
    words: HashMap<u64, u64>,
    reads: usize,
    users: Vec<UserRecord>,
}

impl Memory for Kernel {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        self.reads += 1;
        // Words need not be aligned.
        let one = |addr: &u64| {
            let (base, bits) = (addr & !7, addr % 8 * 8);
            let low = self.words.get(&base)? >> bits;
            let high = if bits == 0 {
                0
            } else {
                self.words.get(&(base + 8))? << (64 - bits)
            };
            Some(low | high)
        };
        Ok(addrs.iter().map(one).collect())
    }

    fn users(&mut self) -> Result<Vec<UserRecord>> {
        Ok(self.users.clone())
    }
}

impl Kernel {
    fn new() -> Self {
        let mut kernel = Self::default();
        kernel.put(0xffff_ffff_8200_0100, &[DIRECT, PAGES, 0xffff_c900_0000_0000]);
        kernel.put(0xffff_ffff_8200_0200, &[CPU0, CPU0 + 0x10_0000]);
        kernel
    }

    fn put(&mut self, at: u64, words: &[u64]) {
        for (i, &word) in (0..).zip(words) {
            self.words.insert(at + i * 8, word);
        }
    }

    fn text(&mut self, at: u64, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(64, 0);
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        self.put(at, &words);
    }

    /// A thread with its stack and what it uses.
    fn user(&mut self, tid: u32, tgid: u32, comm: &str, stack: u64, signals: u64) {
        let mut record = UserRecord::new_zeroed();
        (record.tid, record.tgid, record.stack) = (tid, tgid, stack);
        let task = |tid: u32| TASKS + u64::from(tid) * 0x100;
        record.task = task(tid);
        self.text(record.task + 8, comm);
        self.put(record.task, &[tid.into()]);
        self.put(record.task + 32, &[task(tgid), stack, signals]);
        record.objects[2] = signals;
        record.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        self.users.push(record);
    }

    /// A slab of one page at [`SLAB`]: flags, head, cache, type; and its cache: name, size and object size, merged or not.
    fn slab(&mut self, name: &str, size: u64, merged: bool) {
        let page = PAGES + 4 * 64;
        self.put(page, &[1 << 9, 0, 0xffff_8880_0010_0000, 0]);
        let (cache, text) = (0xffff_8880_0010_0000, 0xffff_8880_0010_1000);
        self.put(cache, &[text, size << 32 | size, if merged { 3 } else { 1 }]);
        self.text(text, name);
    }
}

/// mm_struct: owner@0, mmap_lock@8; ext4_inode_info: inode@16 {i_ino@0, i_sb@8, i_rwsem@16}; pipe_inode_info: mutex@0, two lists.
fn types() -> Blob {
    let mut b = Blob::new();
    let word = b.int("unsigned long", 8, 64);
    let half = b.int("unsigned int", 4, 32);
    let char = b.int("char", 1, 8);
    let comm = b.array(char, 16);
    let id = b.array(char, 32);
    let pointer = b.ptr(word);
    let function = b.add("", 13, false, 0, 0, &[]);
    let call = b.ptr(function);
    let list = b.strukt("list_head", 16, &[("next", word, 0, 0), ("prev", word, 64, 0)]);
    let mutex = b.strukt("mutex", 32, &[("owner", word, 0, 0), ("wait_list", list, 128, 0)]);
    let rwsem = b.strukt("rw_semaphore", 40, &[("count", word, 0, 0)]);
    b.strukt(
        "task_struct",
        64,
        &[
            ("pid", half, 0, 0),
            ("comm", comm, 64, 0),
            ("group_leader", pointer, 256, 0),
            ("stack", pointer, 320, 0),
            ("sighand", pointer, 384, 0),
        ],
    );
    b.strukt(
        "mm_struct",
        48,
        &[("owner", pointer, 0, 0), ("mmap_lock", rwsem, 64, 0)],
    );
    let inode = b.strukt(
        "inode",
        56,
        &[
            ("i_ino", word, 0, 0),
            ("i_sb", pointer, 64, 0),
            ("i_rwsem", rwsem, 128, 0),
        ],
    );
    b.strukt(
        "ext4_inode_info",
        72,
        &[("i_data", word, 0, 0), ("vfs_inode", inode, 128, 0)],
    );
    b.strukt(
        "super_block",
        64,
        &[("s_dev", half, 0, 0), ("s_type", pointer, 64, 0), ("s_id", id, 128, 0)],
    );
    b.strukt("file_system_type", 8, &[("name", pointer, 0, 0)]);
    let qstr = b.strukt("qstr", 8, &[("name", pointer, 0, 0)]);
    b.strukt("dentry", 72, &[("d_name", qstr, 0, 0), ("d_sb", pointer, 64, 0)]);
    b.strukt(
        "page",
        64,
        &[
            ("flags", word, 0, 0),
            ("compound_head", word, 64, 0),
            ("page_type", half, 192, 0),
        ],
    );
    b.strukt("slab", 64, &[("slab_cache", pointer, 128, 0)]);
    b.strukt(
        "kmem_cache",
        32,
        &[
            ("name", pointer, 0, 0),
            ("size", half, 64, 0),
            ("object_size", half, 96, 0),
            ("refcount", half, 128, 0),
        ],
    );
    for name in ["pipe_inode_info", "twin"] {
        // The one has two lists, the other pointers to functions where the lists are.
        let (at, what) = if name == "twin" { (call, call) } else { (list, list) };
        b.strukt(
            name,
            96,
            &[
                ("mutex", mutex, 0, 0),
                ("rd_wait", at, 512, 0),
                ("wr_wait", what, 640, 0),
            ],
        );
    }
    b.strukt("sighand_struct", 48, &[("siglock", mutex, 0, 0)]);
    b.strukt("small", 64, &[("lock", mutex, 0, 0)]);
    let name = b.name("PG_slab");
    b.add("pageflags", 6, false, 1, 4, &[name, 9]);
    b.add("", 6, false, 0, 4, &[]);
    let variable = b.add("runqueue", 14, false, 0, mutex, &[1]);
    b.add(".data..percpu", 15, false, 1, 4096, &[variable, 64, 32]);
    b
}

fn namer(aliases: Aliases) -> LockNamer {
    namer_with(types(), aliases, Sysroot::at("/no/such"))
}

fn namer_with(types: Blob, aliases: Aliases, root: Sysroot) -> LockNamer {
    let btf = types.parse();
    let offsets = ResolvedOffsets::resolve(&btf).offsets;
    let symbols = Symbols::parse(Path::new("kallsyms"), SYMBOLS.as_bytes()).unwrap();
    LockNamer::new(Some(Arc::new(symbols)), Some(Arc::new(btf)), &offsets, aliases, 2, root)
}

fn name_with(namer: &mut LockNamer, kernel: &mut Kernel, lock: u64, kind: LockKind) -> Option<(String, String, bool)> {
    let named = namer.name(&[(LockAddr(lock), kind)], kernel).unwrap().remove(0)?;
    Some((named.name, named.class, named.firm))
}

fn name(kernel: &mut Kernel, lock: u64, kind: LockKind) -> Option<(String, String, bool)> {
    name_with(&mut namer(Aliases::default()), kernel, lock, kind)
}

fn firm(name: &str, class: &str) -> Option<(String, String, bool)> {
    Some((name.to_owned(), class.to_owned(), true))
}

fn weak(name: &str, class: &str) -> Option<(String, String, bool)> {
    Some((name.to_owned(), class.to_owned(), false))
}

#[test]
fn variables_of_the_kernel_of_modules_and_of_cpus() {
    let mut k = Kernel::new();
    assert_eq!(
        name(&mut k, 0xffff_ffff_8200_0000, LockKind::Mutex),
        firm("rtnl_mutex", "rtnl_mutex")
    );
    assert_eq!(
        name(&mut k, 0xffff_ffff_8200_0008, LockKind::Mutex),
        firm("rtnl_mutex+0x8", "rtnl_mutex")
    );
    let class = "driver_lock [driver]";
    assert_eq!(
        name(&mut k, 0xffff_ffff_c000_0010, LockKind::Mutex),
        firm("driver_lock+0x10 [driver]", class)
    );
    assert_eq!(
        name(&mut k, 0xffff_ffff_8200_0308, LockKind::Rwsem),
        firm("mm_struct.mmap_lock of init_mm", "mm_struct.mmap_lock")
    );
    let variable = CPU0 + 0x10_0000 + 64;
    assert_eq!(
        name(&mut k, variable, LockKind::Mutex),
        firm("runqueue of CPU 1", "runqueue")
    );
    assert_eq!(
        name(&mut k, variable + 8, LockKind::Mutex),
        firm("runqueue of CPU 1 +0x8", "runqueue")
    );
    // No lock lies in code: where data has no symbols it only seems so.
    assert_eq!(name(&mut k, 0xffff_ffff_8100_0010, LockKind::Mutex), None);
}

#[test]
fn the_lock_of_an_address_space_tells_its_process() {
    let mut k = Kernel::new();
    k.slab("mm_struct", 48, false);
    let (task, leader) = (0xffff_8880_0020_0000, 0xffff_8880_0020_1000);
    k.put(SLAB + 48, &[task]);
    k.put(task + 32, &[leader]);
    k.put(leader, &[4424]);
    k.text(leader + 8, "filebeat");
    let expected = firm("mm_struct.mmap_lock of filebeat (4424)", "mm_struct.mmap_lock");
    assert_eq!(name(&mut k, SLAB + 48 + 8, LockKind::Rwsem), expected);
    // A process that is gone takes nothing but its name with it.
    k.put(SLAB + 48, &[0]);
    assert_eq!(
        name(&mut k, SLAB + 48 + 8, LockKind::Rwsem),
        firm("mm_struct.mmap_lock", "mm_struct.mmap_lock")
    );
    // Nothing of that kind begins there.
    assert_eq!(
        name(&mut k, SLAB + 48 + 16, LockKind::Rwsem),
        weak("mm_struct+0x10", "mm_struct+0x10")
    );
}

#[test]
fn an_inode_tells_its_file_system() {
    let mut k = Kernel::new();
    k.slab("ext4_inode_cache", 72, false);
    let (sb, fs, text) = (0xffff_8880_0020_0000, 0xffff_8880_0020_1000, 0xffff_8880_0020_2000);
    k.put(SLAB + 144 + 16, &[12, sb]);
    k.put(sb, &[254 << 20 | 1, fs]);
    k.text(sb + 16, "vda1");
    k.put(fs, &[text]);
    k.text(text, "ext4");
    let lock = SLAB + 144 + 32;
    let expected = firm("inode.i_rwsem of inode 12 (ext4 on vda1, 254:1)", "inode.i_rwsem");
    assert_eq!(name(&mut k, lock, LockKind::Rwsem), expected);
    // Where the device is the file system's own name it is not said twice.
    k.text(sb + 16, "ext4");
    assert_eq!(
        name(&mut k, lock, LockKind::Rwsem),
        firm("inode.i_rwsem of inode 12 (ext4, 254:1)", "inode.i_rwsem")
    );
}

#[test]
fn what_is_no_slab_is_not_named() {
    let mut k = Kernel::new();
    k.slab("mm_struct", 48, false);
    k.put(PAGES + 4 * 64, &[0]);
    assert_eq!(name(&mut k, SLAB + 8, LockKind::Rwsem), None, "not marked");
    assert_eq!(name(&mut k, DIRECT + 0x9000, LockKind::Rwsem), None, "no such page");
    assert_eq!(
        name(&mut k, 0xffff_c900_0000_1000, LockKind::Rwsem),
        None,
        "not in the direct map"
    );
    assert_eq!(name(&mut k, 0x1000, LockKind::Rwsem), None, "no kernel address");
}

#[test]
fn a_cache_of_another_size_than_its_namesake_says_no_more_than_its_name() {
    let mut k = Kernel::new();
    k.slab("ext4_inode_cache", 128, false);
    assert_eq!(
        name(&mut k, SLAB + 32, LockKind::Rwsem),
        weak("ext4_inode_cache+0x20", "ext4_inode_cache+0x20")
    );
}

#[test]
fn caches_that_share_their_slabs_give_candidates() {
    let tree = Tree::new();
    for cache in ["mm_struct", "inode_cache", "unrelated"] {
        tree.link(&format!("/sys/kernel/slab/{cache}"), ":0000072");
    }
    let mut k = Kernel::new();
    k.slab("unrelated", 72, true);
    let named = name_with(
        &mut namer(Aliases::read(&tree.root())),
        &mut k,
        SLAB + 8,
        LockKind::Rwsem,
    );
    assert_eq!(named, weak("unrelated+0x8: mm_struct.mmap_lock", "unrelated+0x8"));
}

#[test]
fn memory_of_kmalloc_is_recognised_by_what_is_in_it() {
    let mut k = Kernel::new();
    k.slab("kmalloc-cg-96", 96, false);
    let (rd, wr) = (SLAB + 64, SLAB + 80);
    k.put(rd, &[rd, rd, wr, wr]);
    let mut namer = namer(Aliases::default());
    let named = namer
        .name(&[(LockAddr(SLAB), LockKind::Mutex)], &mut k)
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!((named.name.as_str(), named.firm), ("pipe_inode_info.mutex", true));
    assert_eq!(
        named.source,
        "likely: kmalloc-cg-96 object; of 2 structs of that size with such a lock there, its lists and pointers fit only this one"
    );
    // Functions where the lists would be.
    k.put(rd, &[0xffff_ffff_8100_0100, 1, 0xffff_ffff_8100_0000, 1]);
    let named = name_with(&mut namer, &mut k, SLAB, LockKind::Mutex);
    assert_eq!(named, firm("twin.mutex", "twin.mutex"));
    // Neither.
    k.put(rd, &[1, 2, 3, 4]);
    let named = name_with(&mut namer, &mut k, SLAB, LockKind::Mutex);
    assert_eq!(named, weak("kmalloc-cg-96+0x0", "kmalloc-cg-96+0x0"));
}

#[test]
fn what_was_learnt_is_compared_with_every_object() {
    let mut k = Kernel::new();
    k.slab("kmalloc-96", 96, false);
    let mut namer = namer(Aliases::default());
    for _ in 0..6 {
        k.put(SLAB + 64, &[SLAB + 64, SLAB + 64, SLAB + 80, SLAB + 80]);
        let named = name_with(&mut namer, &mut k, SLAB, LockKind::Mutex);
        assert_eq!(named, firm("pipe_inode_info.mutex", "pipe_inode_info.mutex"));
    }
    k.put(SLAB + 64, &[1, 2, 3, 4]);
    let named = name_with(&mut namer, &mut k, SLAB, LockKind::Mutex);
    assert_eq!(named, weak("kmalloc-96+0x0", "kmalloc-96+0x0"));
}

#[test]
fn many_locks_are_read_together() {
    let mut k = Kernel::new();
    k.slab("mm_struct", 48, false);
    let locks: Vec<_> = (0..80)
        .map(|n| (LockAddr(SLAB + n * 48 + 8), LockKind::Rwsem))
        .collect();
    let named = namer(Aliases::default()).name(&locks, &mut k).unwrap();
    assert!(
        named.iter().flatten().count() == 80 && k.reads < 10,
        "{} reads",
        k.reads
    );
}

#[test]
fn an_object_of_a_module_is_told_by_the_modules_types() {
    const RWSEM: u32 = 11;
    let kernel = types();
    let tree = Tree::new();
    let module = |name: &str| {
        let mut module = Blob::module_of(&kernel);
        module.strukt(name, 64, &[("lock", RWSEM, 64, 0)]);
        module.bytes()
    };
    tree.file("/sys/kernel/btf/vmlinux", b"not read")
        .file("/sys/kernel/btf/broken", b"nothing")
        .file("/sys/kernel/btf/overlay", module("ovl_inode"))
        .file("/sys/kernel/btf/one", module("same"))
        .file("/sys/kernel/btf/other", module("same"));
    let btf = Arc::new(types().parse());
    assert_eq!(btf.struct_size("rw_semaphore"), Ok(40));
    let mut namer = namer_with(types(), Aliases::default(), tree.root());
    let mut k = Kernel::new();
    k.slab("ovl_inode", 64, false);
    let named = name_with(&mut namer, &mut k, SLAB + 8, LockKind::Rwsem);
    assert_eq!(named, firm("ovl_inode.lock", "ovl_inode.lock"));
    // Two modules have such a struct: which of them it is, nothing tells.
    k.slab("same", 64, false);
    assert_eq!(
        name_with(&mut namer, &mut k, SLAB + 8, LockKind::Rwsem),
        weak("same+0x8", "same+0x8")
    );
}
