//! Questions answered from hand-built types.

use super::super::{BitRange, BtfError, MemberOffset};
use super::blob::Blob;

fn at(bytes: u32, size: u32) -> MemberOffset {
    MemberOffset {
        bytes,
        size,
        bits: None,
    }
}

#[test]
fn plain_members_have_offset_and_size() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let char_ = b.int("char", 1, 8);
    let comm = b.array(char_, 16);
    let ptr = b.ptr(0);
    b.strukt(
        "task_struct",
        40,
        &[("pid", int, 0, 0), ("comm", comm, 64, 0), ("mm", ptr, 192, 0)],
    );
    let btf = b.parse();
    assert_eq!(btf.member_offset("task_struct", "pid"), Ok(at(0, 4)));
    assert_eq!(btf.member_offset("task_struct", "comm"), Ok(at(8, 16)));
    assert_eq!(btf.member_offset("task_struct", "mm"), Ok(at(24, 8)));
    assert_eq!(btf.struct_size("task_struct"), Ok(40));
}

#[test]
fn paths_go_through_typedefs_qualifiers_and_anonymous_members() {
    let mut b = Blob::new();
    let long = b.int("long", 8, 64);
    let tag = b.add("tag", 18, false, 0, long, &[]);
    let volatile = b.add("", 9, false, 0, tag, &[]);
    let inner = b.strukt("", 16, &[("counter", volatile, 64, 0)]);
    let typedef = b.add("atomic_long_t", 8, false, 0, inner, &[]);
    let constant = b.add("", 10, false, 0, typedef, &[]);
    let anon_struct = b.strukt("", 24, &[("count", constant, 64, 0)]);
    let anon_union = b.composite(5, "", 24, false, &[("other", long, 0, 0), ("", anon_struct, 0, 0)]);
    b.strukt("rw_semaphore", 32, &[("first", long, 0, 0), ("", anon_union, 64, 0)]);
    let btf = b.parse();
    // 8 (union in the struct) + 8 (count in the anonymous struct) + 8 (counter in the atomic).
    assert_eq!(btf.member_offset("rw_semaphore", "count"), Ok(at(16, 16)));
    assert_eq!(btf.member_offset("rw_semaphore", "count.counter"), Ok(at(24, 8)));
    assert_eq!(btf.member_offset("rw_semaphore", "other"), Ok(at(8, 8)));
}

#[test]
fn bit_fields_tell_byte_shift_and_width() {
    let mut b = Blob::new();
    let int = b.int("unsigned int", 4, 32);
    // An anonymous bit field pads; in_iowait is bit 13 of the word at byte 4; `wide` crosses a byte.
    b.composite(
        4,
        "t",
        12,
        true,
        &[
            ("a", int, 0, 0),
            ("", int, 32, 3),
            ("in_iowait", int, 45, 1),
            ("wide", int, 46, 4),
        ],
    );
    let btf = b.parse();
    assert_eq!(btf.member_offset("t", "a"), Ok(at(0, 4)));
    let bits = |bytes, size, shift, width| {
        Ok(MemberOffset {
            bytes,
            size,
            bits: Some(BitRange { shift, width }),
        })
    };
    assert_eq!(btf.member_offset("t", "in_iowait"), bits(5, 1, 5, 1));
    assert_eq!(btf.member_offset("t", "wide"), bits(5, 2, 6, 4));
}

#[test]
fn bit_fields_of_the_old_encoding_are_told_by_their_integer() {
    let mut b = Blob::new();
    let one_bit = b.int("unsigned int", 4, 5 << 16 | 1);
    b.strukt("t", 8, &[("flag", one_bit, 32, 0)]);
    let expected = MemberOffset {
        bytes: 4,
        size: 1,
        bits: Some(BitRange { shift: 5, width: 1 }),
    };
    assert_eq!(b.parse().member_offset("t", "flag"), Ok(expected));
}

#[test]
fn bit_field_inside_an_embedded_struct_adds_up() {
    let mut b = Blob::new();
    let int = b.int("unsigned int", 4, 32);
    let inner = b.composite(4, "inner", 4, true, &[("x", int, 9, 2)]);
    b.strukt("outer", 16, &[("pad", int, 0, 0), ("in", inner, 64, 0)]);
    let expected = MemberOffset {
        bytes: 9,
        size: 1,
        bits: Some(BitRange { shift: 1, width: 2 }),
    };
    assert_eq!(b.parse().member_offset("outer", "in.x"), Ok(expected));
}

#[test]
fn refusals_name_what_is_missing() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let base = b.strukt("base", 4, &[("x", int, 0, 0)]);
    let ptr = b.ptr(base);
    b.strukt("t", 16, &[("base", base, 0, 0), ("p", ptr, 64, 0)]);
    b.add("only_forward", 7, false, 0, 0, &[]);
    let btf = b.parse();
    let missing = |part: &str, path: &str| {
        Err(BtfError::NoSuchMember {
            name: "t".into(),
            path: path.into(),
            part: part.into(),
        })
    };
    assert_eq!(btf.member_offset("t", "base.y"), missing("y", "base.y"));
    assert_eq!(btf.member_offset("t", ""), missing("", ""));
    assert_eq!(btf.member_offset("t", "base."), missing("", "base."));
    let through_pointer = BtfError::NotAStruct {
        name: "t".into(),
        path: "p.x".into(),
        part: "p".into(),
    };
    assert_eq!(through_pointer.to_string(), "`p` in `t.p.x` is not an embedded struct");
    assert_eq!(btf.member_offset("t", "p.x"), Err(through_pointer));
    for name in ["nothing", "int", "only_forward", ""] {
        assert_eq!(
            btf.member_offset(name, "x"),
            Err(BtfError::NoSuchStruct { name: name.into() })
        );
        assert_eq!(btf.struct_size(name), Err(BtfError::NoSuchStruct { name: name.into() }));
        assert!(!btf.has_struct(name));
    }
    assert!(btf.has_struct("t"));
}

#[test]
fn same_name_twice_is_an_answer_only_when_both_agree() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    b.strukt(
        "worker",
        16,
        &[("same", int, 32, 0), ("moved", int, 0, 0), ("only_here", int, 96, 0)],
    );
    b.strukt("worker", 24, &[("same", int, 32, 0), ("moved", int, 64, 0)]);
    let btf = b.parse();
    assert_eq!(btf.member_offset("worker", "same"), Ok(at(4, 4)));
    assert_eq!(btf.member_offset("worker", "only_here"), Ok(at(12, 4)));
    let ambiguous = |path: &str| BtfError::Ambiguous {
        name: "worker".into(),
        path: path.into(),
    };
    assert_eq!(btf.member_offset("worker", "moved"), Err(ambiguous("moved")));
    assert_eq!(btf.struct_size("worker"), Err(ambiguous("")));
}

#[test]
fn functions_typedefs_and_tracepoints_are_told_apart() {
    let mut b = Blob::new();
    let proto = b.add("", 13, false, 1, 0, &[0, 0]);
    b.add("mutex_lock", 12, false, 1, proto, &[]);
    b.add("btf_trace_contention_begin", 8, false, 0, proto, &[]);
    let btf = b.parse();
    assert!(btf.has_func("mutex_lock") && !btf.has_func("btf_trace_contention_begin") && !btf.has_func("mutex"));
    assert!(btf.has_typedef("btf_trace_contention_begin") && !btf.has_typedef("mutex_lock"));
    assert!(btf.has_tracepoint("contention_begin") && !btf.has_tracepoint("contention_end"));
    assert_eq!(btf.funcs().collect::<Vec<_>>(), ["mutex_lock"]);
    assert_eq!(btf.type_count(), 3);
}

#[test]
fn kinds_in_between_are_stepped_over_exactly() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let names = [b.name("A"), b.name("B"), b.name("C")];
    b.add("e", 6, false, 1, 4, &[names[0], u32::MAX]);
    b.add("signed", 6, true, 1, 4, &[names[1], u32::MAX]);
    b.add("e64", 19, false, 1, 8, &[names[2], 1, 2]);
    let var = b.add("v", 14, false, 0, int, &[0]);
    b.add(".data", 15, false, 2, 8, &[var, 0, 4, var, 4, 4]);
    b.add("", 11, false, 0, int, &[]);
    b.add("double", 16, false, 0, 8, &[]);
    b.add("tag", 17, false, 0, int, &[u32::MAX]);
    b.strukt("after", 8, &[("x", int, 32, 0)]);
    let btf = b.parse();
    assert_eq!(btf.member_offset("after", "x"), Ok(at(4, 4)));
    assert_eq!(btf.enumerator("A"), Some(i64::from(u32::MAX)));
    assert_eq!(btf.enumerator("B"), Some(-1));
    assert_eq!(btf.enumerator("C"), Some(0x2_0000_0001));
    assert_eq!(btf.enumerator("D"), None);
}

#[test]
fn an_enumerator_with_two_values_has_none() {
    let mut b = Blob::new();
    let (x, y) = (b.name("X"), b.name("Y"));
    b.add("", 6, false, 2, 4, &[x, 1, y, 5]);
    b.add("", 6, false, 2, 4, &[x, 2, y, 5]);
    let btf = b.parse();
    assert_eq!((btf.enumerator("X"), btf.enumerator("Y")), (None, Some(5)));
}
