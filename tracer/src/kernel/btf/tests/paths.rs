//! From offsets to members.

use std::sync::Arc;

use super::super::{Btf, BtfError, MemberPath};
use super::blob::Blob;

const MUTEX: &[&str] = &["mutex"];
const SPIN: &[&str] = &["spinlock", "raw_spinlock"];

/// An inode inside of a file system's own, with a lock in a union, an array of locks, and a mutex whose first word is a spinlock.
fn btf() -> Btf {
    let mut b = Blob::new();
    let word = b.int("unsigned long", 8, 64);
    let raw = b.strukt("raw_spinlock", 8, &[("raw", word, 0, 0)]);
    let inner = b.composite(5, "", 8, false, &[("rlock", raw, 0, 0)]);
    let spin = b.strukt("spinlock", 8, &[("", inner, 0, 0)]);
    let spin_t = b.add("spinlock_t", 8, false, 0, spin, &[]);
    let node = b.strukt("list_head", 16, &[("next", word, 0, 0), ("prev", word, 64, 0)]);
    let mutex = b.strukt(
        "mutex",
        32,
        &[
            ("wait_lock", raw, 0, 0),
            ("owner", word, 64, 0),
            ("wait_list", node, 128, 0),
        ],
    );
    let either = b.composite(5, "", 32, false, &[("i_mutex", mutex, 0, 0), ("i_pipe", word, 0, 0)]);
    let inode = b.strukt(
        "inode",
        64,
        &[("i_ino", word, 0, 0), ("i_lock", spin_t, 64, 0), ("", either, 128, 0)],
    );
    let locks = b.array(spin_t, 4);
    let function = b.add("", 13, false, 0, 0, &[]);
    let call = b.ptr(function);
    let pointer = b.ptr(inode);
    let lists = b.array(node, 2);
    b.strukt(
        "ext_inode_info",
        192,
        &[
            ("vfs_inode", inode, 64, 0),
            ("i_locks", locks, 640, 0),
            ("done", call, 896, 0),
            ("other", pointer, 960, 0),
            ("lists", lists, 1024, 0),
        ],
    );
    let variable = b.add("runqueues", 14, false, 0, inode, &[1]);
    let lock_variable = b.add("a_lock", 14, false, 0, spin_t, &[1]);
    let array_variable = b.add("pools", 14, false, 0, locks, &[1]);
    b.add(
        ".data..percpu",
        15,
        false,
        3,
        4096,
        &[variable, 128, 64, lock_variable, 192, 8, array_variable, 256, 32],
    );
    b.parse()
}

fn texts(paths: &[MemberPath]) -> Vec<String> {
    paths.iter().map(|path| path.text_from(0)).collect()
}

#[test]
fn an_offset_leads_to_the_member_of_the_wanted_type() {
    let btf = btf();
    let at = |offset, ends| texts(&btf.paths_at("ext_inode_info", offset, ends));
    assert_eq!(at(24, MUTEX), ["ext_inode_info.vfs_inode.i_mutex"]);
    assert_eq!(at(16, SPIN), ["ext_inode_info.vfs_inode.i_lock"]);
    // The first word of a mutex is a lock of its own.
    assert_eq!(at(24, SPIN), ["ext_inode_info.vfs_inode.i_mutex.wait_lock"]);
    assert_eq!(at(96, SPIN), ["ext_inode_info.i_locks[2]"]);
    for (offset, ends) in [(25, MUTEX), (16, MUTEX), (100, SPIN), (190, SPIN), (4096, SPIN)] {
        assert_eq!(at(offset, ends), [""; 0], "{offset}");
    }
    assert_eq!(btf.paths_at("no_such", 0, SPIN), []);
}

#[test]
fn a_path_begins_where_it_is_wanted() {
    let btf = btf();
    let paths = btf.paths_at("ext_inode_info", 24, MUTEX);
    let path = paths.first().expect("found above");
    let inode = path.innermost(&["inode", "page"]).expect("it is on the way");
    assert_eq!(path.text_from(inode), "inode.i_mutex");
    assert_eq!(path.0.get(inode).map(|step| step.offset), Some(8));
    assert_eq!(path.innermost(&["page"]), None);
}

#[test]
fn members_of_one_object_that_can_be_compared() {
    let btf = btf();
    let found = btf.landmarks("ext_inode_info", &["list_head"], 8);
    let expected = [(112, "fn"), (120, "*"), (128, "list_head"), (144, "list_head")];
    assert_eq!(found, expected.map(|(at, what)| (at, what.to_owned())));
    assert_eq!(btf.landmarks("ext_inode_info", &["list_head"], 1).len(), 1);
}

#[test]
fn per_cpu_variables_are_found_by_their_place_in_the_section() {
    let btf = btf();
    let shown = |offset| {
        btf.per_cpu_at(offset, SPIN)
            .map(|place| (place.variable, place.offset, texts(&place.paths)))
    };
    assert_eq!(shown(136), Some(("runqueues", 8, vec!["inode.i_lock".to_owned()])));
    assert_eq!(shown(128), Some(("runqueues", 0, vec![])));
    assert_eq!(shown(192), Some(("a_lock", 0, vec!["spinlock".to_owned()])));
    assert_eq!(shown(264), Some(("pools", 8, vec!["[1]".to_owned()])));
    assert_eq!(shown(200), None);
    assert_eq!(Blob::new().parse().per_cpu_at(0, SPIN), None);
}

#[test]
fn sizes_find_structs() {
    let btf = btf();
    let found: Vec<&str> = btf.structs_of_size(33..=64).collect();
    assert_eq!(found, ["inode"]);
}

#[test]
fn types_of_a_module_continue_those_of_the_kernel() {
    let mut kernel = Blob::new();
    let word = kernel.int("unsigned long", 8, 64);
    let mutex = kernel.strukt("mutex", 32, &[("owner", word, 0, 0)]);
    let inode = kernel.strukt("inode", 64, &[("i_ino", word, 0, 0), ("i_mutex", mutex, 64, 0)]);
    let mut module = Blob::module_of(&kernel);
    module.strukt(
        "ovl_inode",
        96,
        &[
            ("flags", word, 0, 0),
            ("vfs_inode", inode, 64, 0),
            ("lock", mutex, 576, 0),
        ],
    );
    let kernel = Arc::new(kernel.parse());
    let module = Btf::parse_module(module.bytes(), &kernel).expect("well-formed");
    assert_eq!(
        texts(&module.paths_at("ovl_inode", 16, MUTEX)),
        ["ovl_inode.vfs_inode.i_mutex"]
    );
    assert_eq!(texts(&module.paths_at("ovl_inode", 72, MUTEX)), ["ovl_inode.lock"]);
    assert_eq!(module.struct_size("ovl_inode"), Ok(96));
    assert_eq!(
        module
            .member_offset("ovl_inode", "vfs_inode.i_mutex")
            .map(|m| (m.bytes, m.size)),
        Ok((16, 32))
    );
    // What it does not define itself is the kernel's.
    assert_eq!(module.struct_size("inode"), Ok(64));
    assert!(!kernel.has_struct("ovl_inode"));
    // Alone it means nothing.
    let mut alone = Blob::module_of(&Blob::new());
    alone.strukt("broken", 8, &[("x", 4_000, 0, 0)]);
    let alone = Btf::parse_module(alone.bytes(), &kernel);
    assert!(matches!(alone, Ok(_) | Err(BtfError::BadName { .. })));
}
