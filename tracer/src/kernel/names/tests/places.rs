//! Locks outside of objects that have a type: arrays, what variables point to, `vmalloc`; and what tells objects of one size apart.

use super::*;
use crate::kernel::names::bases::{Bases, Fields};

const NODE: u64 = DIRECT + 0x30_0000;
const ENTRY: u64 = DIRECT + 0x40_0000;

fn named(types: Blob, aliases: Aliases, kernel: &mut Kernel, lock: u64, kind: LockKind) -> Option<Named> {
    let mut namer = namer_with(types, aliases, Sysroot::at("/no/such"));
    namer.name(&[(LockAddr(lock), kind)], kernel).unwrap().remove(0)
}

fn shown(named: Option<Named>) -> Option<(String, String, bool)> {
    named.map(|named| (named.name, named.class, named.firm))
}

/// zone: name@0, lock@8; pglist_data: two zones; futex_hash_bucket: waiters@0, lock@4.
fn arrays() -> Blob {
    let mut b = types();
    let half = b.int("unsigned int", 4, 32);
    let pointer = b.ptr(half);
    let spin = b.strukt("spinlock", 4, &[("val", half, 0, 0)]);
    let zone = b.strukt("zone", 16, &[("name", pointer, 0, 0), ("lock", spin, 64, 0)]);
    let zones = b.array(zone, 2);
    b.strukt("pglist_data", 32, &[("node_zones", zones, 0, 0)]);
    b.strukt(
        "futex_hash_bucket",
        16,
        &[("waiters", half, 0, 0), ("lock", spin, 32, 0)],
    );
    b
}

#[test]
fn elements_of_arrays_that_variables_point_to() {
    let mut k = Kernel::new();
    let (zone_name, queues) = (NODE + 0x1000, NODE + 0x2000);
    // Nodes 0 and 1, of which one has no memory; the hash table, of four buckets.
    k.put(0xffff_ffff_8200_1000, &[0, NODE, queues, 4]);
    k.put(NODE + 16, &[zone_name]);
    k.text(zone_name, "Normal");
    let mut name = |lock| shown(named(arrays(), Aliases::default(), &mut k, lock, LockKind::Spinlock));
    assert_eq!(name(NODE + 24), firm("zone.lock of Normal, node_data[1]", "zone.lock"));
    let bucket = firm("futex_hash_bucket.lock of futex_queues[3]", "futex_hash_bucket.lock");
    assert_eq!(name(queues + 3 * 16 + 4), bucket);
    assert_eq!(name(queues + 8), firm("futex_queues[0]+0x8", "futex_queues"));
    assert_eq!(name(queues + 4 * 16 + 4), None, "behind its end");
}

#[test]
fn a_variable_that_points_to_an_object_names_what_no_type_does() {
    let mut k = Kernel::new();
    k.slab("kmalloc-32", 32, false);
    let (heap, lock) = (0xffff_ffff_c000_0200, SLAB + 32 + 8);
    k.put(heap, &[SLAB + 32]);
    let found = name_of(&mut k, lock);
    assert_eq!(found, firm("*heap+0x8 [driver]", "*heap [driver]"));
    let source = named(types(), Aliases::default(), &mut k, lock, LockKind::Rwsem)
        .unwrap()
        .source;
    assert_eq!(
        source,
        "likely: object of the slab cache kmalloc-32; the variable heap [driver] points to it"
    );
    // The object next to it is another one.
    assert_eq!(name_of(&mut k, SLAB + 8), weak("kmalloc-32+0x8", "kmalloc-32+0x8"));
    // One of several pointers of a variable.
    k.put(heap + 16, &[SLAB + 64]);
    assert_eq!(
        name_of(&mut k, SLAB + 72),
        firm("*(pair+0x8)+0x8 [driver]", "*pair [driver]")
    );
    // Whole pages, too.
    k.put(PAGES + 4 * 64, &[0]);
    assert_eq!(name_of(&mut k, SLAB + 0x20), None);
    k.put(heap, &[SLAB]);
    assert_eq!(
        name_of(&mut k, SLAB + 0x20),
        firm("*heap+0x20 [driver]", "*heap [driver]")
    );
}

#[test]
fn how_a_variable_leads_to_an_object_is_told() {
    let mut k = Kernel::new();
    k.slab("kmalloc-32", 32, false);
    let (heap, object) = (0xffff_ffff_c000_0200, SLAB + 32);
    let (pair, lock) = (heap + 8, object + 24);
    let known = |k: &mut Kernel| {
        let found = named(types(), Aliases::default(), k, lock, LockKind::Rwsem).unwrap();
        (found.name, found.source)
    };
    let told = |name: &str, source: &str| {
        let source = format!("likely: object of the slab cache kmalloc-32; {source}");
        (name.to_owned(), source)
    };
    k.put(object, &[0, 0]);
    k.put(pair + 8, &[object]);
    assert_eq!(
        known(&mut k),
        told(
            "*(pair+0x8)+0x18 [driver]",
            "a word of a variable, pair+0x8 [driver] points to it"
        )
    );
    // What begins with it says more than what has it further in.
    k.put(heap, &[object, object]);
    assert_eq!(
        known(&mut k),
        told(
            "*heap+0x18 [driver]",
            "the variable heap [driver] points to it, as do 2 others"
        )
    );
    // Heads of lists: the first entry, and the last one.
    for (words, entry) in [([object, SLAB], [SLAB, pair]), ([SLAB, object], [pair, SLAB])] {
        k.put(heap, &[0]);
        k.put(pair, &words);
        k.put(object, &entry);
        let (name, source) = known(&mut k);
        assert_eq!(name, "entry of pair+0x18 [driver]");
        assert!(source.ends_with(" is the head of a list with it at an end"), "{source}");
    }
}

#[test]
fn a_struct_is_believed_only_if_the_object_has_its_size() {
    let btf = || {
        let mut b = types();
        let half = b.int("unsigned int", 4, 32);
        let spin = b.strukt("spinlock", 4, &[("val", half, 0, 0)]);
        b.strukt("kernfs_global_locks", 160, &[("open", spin, 64, 0)]);
        b
    };
    for (cache, size, fits) in [
        ("kmalloc-192", 192, true),
        ("kmalloc-256", 256, false),
        ("kmalloc-128", 128, false),
    ] {
        let mut k = Kernel::new();
        k.slab(cache, size, false);
        k.put(0xffff_ffff_8200_1068, &[SLAB]);
        k.put(SLAB, &[0, 0]);
        let found = named(btf(), Aliases::default(), &mut k, SLAB + 8, LockKind::Spinlock).unwrap();
        let expected = if fits {
            ("kernfs_global_locks.open of *kernfs_locks", ", a kernfs_global_locks")
        } else {
            ("*kernfs_locks+0x8", "")
        };
        let source = format!(
            "likely: object of the slab cache {cache}; the variable kernfs_locks points to it{}",
            expected.1
        );
        assert_eq!((found.name.as_str(), found.source), (expected.0, source));
    }
}

fn name_of(k: &mut Kernel, lock: u64) -> Option<(String, String, bool)> {
    shown(named(types(), Aliases::default(), k, lock, LockKind::Rwsem))
}

#[test]
fn a_variable_that_points_elsewhere_by_now_names_nothing() {
    let mut k = Kernel::new();
    k.slab("kmalloc-32", 32, false);
    k.put(0xffff_ffff_c000_0200, &[SLAB + 32]);
    let mut namer = namer(Aliases::default());
    let lock = |namer: &mut LockNamer, k: &mut Kernel| name_with(namer, k, SLAB + 40, LockKind::Rwsem);
    assert_eq!(lock(&mut namer, &mut k), firm("*heap+0x8 [driver]", "*heap [driver]"));
    k.put(0xffff_ffff_c000_0200, &[0]);
    assert_eq!(lock(&mut namer, &mut k), weak("kmalloc-32+0x8", "kmalloc-32+0x8"));
}

#[test]
fn vmalloc_memory_is_told_by_who_allocated_it() {
    let mut b = types();
    let word = b.int("unsigned long", 8, 64);
    let pointer = b.ptr(word);
    let node = b.strukt(
        "rb_node",
        24,
        &[
            ("parent", word, 0, 0),
            ("rb_right", pointer, 64, 0),
            ("rb_left", pointer, 128, 0),
        ],
    );
    b.strukt(
        "vmap_area",
        48,
        &[
            ("va_start", word, 0, 0),
            ("va_end", word, 64, 0),
            ("rb_node", node, 128, 0),
            ("vm", pointer, 320, 0),
        ],
    );
    b.strukt("vm_struct", 16, &[("addr", pointer, 0, 0), ("caller", pointer, 64, 0)]);
    let mut k = Kernel::new();
    let (low, high, vm) = (ENTRY, ENTRY + 0x100, ENTRY + 0x200);
    let area = 0xffff_c900_0010_0000;
    k.put(0xffff_ffff_8200_1020, &[low + 16]);
    k.put(low, &[area - 0x2000, area - 0x1000, 0, high + 16, 0, 0]);
    k.put(high, &[area, area + 0x2000, 0, 0, 0, vm]);
    k.put(vm, &[area, 0xffff_ffff_8100_0104]);
    let mut namer = namer_with(b, Aliases::default(), Sysroot::at("/no/such"));
    let mut name = |lock| name_with(&mut namer, &mut k, lock, LockKind::Mutex);
    let class = "vmalloc memory of callback";
    assert_eq!(name(area + 0x40), weak("vmalloc memory of callback, +0x40", class));
    assert_eq!(name(area + 0x2000), None, "behind its end");
    assert_eq!(name(area - 0x1800), None, "an area without a vm_struct");
}

#[test]
fn what_comes_after_many_of_another_kind_is_recognised() {
    let mut k = Kernel::new();
    k.slab("kmalloc-96", 96, false);
    let mut namer = namer(Aliases::default());
    let mut name = |k: &mut Kernel| name_with(&mut namer, k, SLAB, LockKind::Mutex);
    k.put(SLAB + 64, &[SLAB + 64, SLAB + 64, SLAB + 80, SLAB + 80]);
    for _ in 0..6 {
        assert_eq!(name(&mut k), firm("pipe_inode_info.mutex", "pipe_inode_info.mutex"));
    }
    k.put(SLAB + 64, &[0xffff_ffff_8100_0100, 1, 0xffff_ffff_8100_0000, 1]);
    assert_eq!(name(&mut k), firm("twin.mutex", "twin.mutex"));
}

/// A struct of 256 bytes: lock@0, six lists@32, a per-CPU pointer and two others @128, operations@152.
fn large() -> Blob {
    let mut b = types();
    let word = b.int("unsigned long", 8, 64);
    let pointer = b.ptr(word);
    let operations = b.strukt("file_operations", 8, &[("owner", pointer, 0, 0)]);
    let operations = b.ptr(operations);
    let list = b.strukt("list_head", 16, &[("next", word, 0, 0), ("prev", word, 64, 0)]);
    let lists = b.array(list, 2);
    let mutex = b.strukt("mutex", 32, &[("owner", word, 0, 0)]);
    b.strukt(
        "journal",
        256,
        &[
            ("lock", mutex, 0, 0),
            ("one", lists, 256, 0),
            ("two", lists, 512, 0),
            ("three", lists, 768, 0),
            ("counters", pointer, 1024, 0),
            ("others", pointer, 1088, 0),
            ("more", pointer, 1152, 0),
            ("ops", operations, 1216, 0),
        ],
    );
    b
}

#[test]
fn lists_that_change_while_they_are_read_do_not_hide_what_the_others_tell() {
    let mut k = Kernel::new();
    k.slab("kmalloc-256", 256, false);
    let lists: Vec<u64> = (0..6).flat_map(|n| [SLAB + 32 + n * 16; 2]).collect();
    k.put(SLAB + 32, &lists);
    k.put(SLAB + 128, &[0, 0, 0, 0]);
    // Two point to what does not point back.
    k.put(ENTRY, &[ENTRY, ENTRY]);
    k.put(SLAB + 32, &[ENTRY, ENTRY, ENTRY, ENTRY]);
    let lock = |k: &mut Kernel| named(large(), Aliases::default(), k, SLAB, LockKind::Mutex).unwrap();
    assert_eq!(
        shown(Some(lock(&mut k))),
        weak("kmalloc-256+0x0: journal.lock", "kmalloc-256+0x0")
    );
    assert_eq!(
        lock(&mut k).source,
        "kmalloc-256 object, whose lists were changing while it was read: candidates"
    );
    // With functions where there must be some it is enough.
    k.put(SLAB + 152, &[0xffff_ffff_8200_1028]);
    assert_eq!(
        shown(Some(lock(&mut k))),
        weak("kmalloc-256+0x0: journal.lock", "kmalloc-256+0x0")
    );
    k.put(SLAB + 32, &[SLAB + 32, SLAB + 32]);
    assert_eq!(shown(Some(lock(&mut k))), firm("journal.lock", "journal.lock"));
}

#[test]
fn pointers_to_per_cpu_objects_are_no_contradiction() {
    let mut k = Kernel::new();
    k.slab("kmalloc-256", 256, false);
    let lists: Vec<u64> = (0..6).flat_map(|n| [SLAB + 32 + n * 16; 2]).collect();
    k.put(SLAB + 32, &lists);
    // KERNEL: a per-CPU pointer is the distance from where the area of each CPU would begin.
    k.put(SLAB + 128, &[0x8000, 0x8008, 0x8010, 0xffff_ffff_8200_1028]);
    let lock = |k: &mut Kernel| shown(named(large(), Aliases::default(), k, SLAB, LockKind::Mutex));
    let bare = weak("kmalloc-256+0x0", "kmalloc-256+0x0");
    assert_eq!(lock(&mut k), bare, "no CPU has anything there");
    k.put(CPU0 + 0x8000, &[1, 1, 1]);
    assert_eq!(lock(&mut k), firm("journal.lock", "journal.lock"));
}

#[test]
fn one_kind_among_those_that_share_their_slabs() {
    let tree = Tree::new();
    for cache in ["journal", "mm_struct", "stranger"] {
        tree.link(&format!("/sys/kernel/slab/{cache}"), ":0000256");
    }
    let aliases = Aliases::read(&tree.root());
    let mut k = Kernel::new();
    k.slab("stranger", 256, true);
    k.put(SLAB + 32, &[0; 16]);
    let lock = |k: &mut Kernel| named(large(), aliases.clone(), k, SLAB, LockKind::Mutex).unwrap();
    // Nothing says that it is no `stranger`.
    assert_eq!(
        shown(Some(lock(&mut k))),
        weak("stranger+0x0: journal.lock", "stranger+0x0")
    );
    k.put(SLAB + 152, &[0xffff_ffff_8200_1028]);
    let found = lock(&mut k);
    assert_eq!(
        found.source,
        "likely: object of the slab cache stranger, which is shared by 3 kinds; only journal is known to have such a lock there, and \
         the object looks like one; of 1 the struct is not known"
    );
    assert_eq!(shown(Some(found)), firm("journal.lock", "journal.lock"));
    // It is none if what would be a pointer is none.
    k.put(SLAB + 128, &[7, 7, 7]);
    assert_eq!(
        shown(Some(lock(&mut k))),
        weak("stranger+0x0: journal.lock", "stranger+0x0")
    );
}

/// Page tables of a kernel with four levels whose direct map begins at 2 TiB and 5 GiB behind its half, and whose array of `struct page` at a
/// multiple of 1 GiB: tables at 3 GiB of physical memory, a stack's first page at 0x7000.
#[test]
fn the_direct_map_is_found_by_the_page_tables() {
    const BEGIN: u64 = 0xffff_8a01_4000_0000;
    const PAGE_ARRAY: u64 = 0xffff_eb80_4000_0000;
    const TABLES: u64 = 0xc000_0000;
    const STACK: u64 = 0xffff_c900_0001_0000;
    let mut b = Blob::new();
    let word = b.int("unsigned long", 8, 64);
    let pointer = b.ptr(word);
    b.strukt("mm_struct", 16, &[("pgd", pointer, 0, 0), ("owner", pointer, 64, 0)]);
    b.strukt(
        "task_struct",
        16,
        &[("stack", pointer, 0, 0), ("stack_vm_area", pointer, 64, 0)],
    );
    b.strukt("vm_struct", 8, &[("pages", pointer, 0, 0)]);
    b.strukt("page", 64, &[("flags", word, 0, 0)]);
    let fields = Fields::new(&b.parse()).unwrap();
    let mut k = Kernel::default();
    let (mm, owner, area, array) = (BEGIN + 0x1000, BEGIN + 0x2000, BEGIN + 0x2100, BEGIN + 0x2200);
    let table = |n: u64| TABLES + n * 0x1000;
    k.put(mm, &[BEGIN + TABLES, owner]);
    k.put(owner, &[STACK, area]);
    k.put(area, &[array]);
    k.put(array, &[PAGE_ARRAY + 7 * 64]);
    let mut entry = |n: u64, addr: u64, shift: u32, value: u64| {
        k.put(BEGIN + table(n) + (addr >> shift & 511) * 8, &[value | 0x63]);
    };
    // The direct map in pages of 1 GiB; a bit above the address says that memory is encrypted.
    entry(0, BEGIN + TABLES, 39, table(1) | 1 << 51);
    entry(1, BEGIN + TABLES, 30, TABLES | 1 << 7);
    for (n, shift, next) in [(0, 39, table(2)), (2, 30, table(3)), (3, 21, table(4)), (4, 12, 0x7000)] {
        entry(n, STACK, shift, next);
    }
    let mut user = UserRecord::new_zeroed();
    user.objects[0] = mm;
    let found = Bases {
        direct: BEGIN,
        pages: PAGE_ARRAY,
    };
    assert_eq!(fields.find(&[user], &mut k).unwrap(), Some(found));
    // The page of another stack: then the array would begin at an odd place.
    k.put(array, &[PAGE_ARRAY + 8 * 64]);
    assert_eq!(fields.find(&[user], &mut k).unwrap(), None);
    // Tables that do not lead back to themselves.
    k.put(array, &[PAGE_ARRAY + 7 * 64]);
    k.put(
        BEGIN + table(1) + ((BEGIN + TABLES) >> 30 & 511) * 8,
        &[(TABLES + (1 << 30)) | 0xe3],
    );
    assert_eq!(fields.find(&[user], &mut k).unwrap(), None);
}
