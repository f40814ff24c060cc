//! Bytes that are not, or not quite, BTF.

use proptest::prelude::*;

use super::super::{Btf, BtfError};
use super::blob::Blob;

fn sample() -> Blob {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let typedef = b.add("pid_t", 8, false, 0, int, &[]);
    let array = b.array(int, 4);
    let inner = b.composite(5, "", 8, false, &[("x", typedef, 0, 0), ("y", array, 0, 0)]);
    b.composite(
        4,
        "s",
        16,
        true,
        &[
            ("a", int, 0, 0),
            ("", inner, 32, 0),
            ("bit", int, 97, 1),
            ("in", inner, 32, 0),
        ],
    );
    let e = b.name("E");
    b.add("e", 6, false, 1, 4, &[e, 7]);
    let proto = b.add("", 13, false, 1, 0, &[0, int]);
    b.add("f", 12, false, 1, proto, &[]);
    b
}

/// Asks everything; the answers do not matter, only that there are some.
fn interrogate(btf: &Btf) {
    for name in ["s", "e", "f", "int", "pid_t", "", "\u{fffd}"] {
        for path in ["a", "x", "y", "bit", "in.x", "in.y", "in.in", "a.a", "", "."] {
            let _ = btf.member_offset(name, path);
        }
        let _ = (
            btf.struct_size(name),
            btf.has_struct(name),
            btf.has_func(name),
            btf.enumerator(name),
        );
    }
    assert!(btf.funcs().count() <= btf.type_count());
}

#[test]
fn malformed_headers_are_named() {
    let good = sample().bytes();
    let total = good.len();
    let patched = |at: usize, bytes: &[u8]| {
        let mut data = good.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::parse(data).map(|_| ()).expect_err("must be refused")
    };
    let word = |at: usize| u32::from_ne_bytes(good[at..at + 4].try_into().unwrap());
    let (types, strings) = (word(12), word(20));
    let cases = [
        (patched(0, &[0, 0]), BtfError::BadMagic { found: 0 }),
        (
            patched(0, &0xeb9fu16.swap_bytes().to_ne_bytes()),
            BtfError::ForeignEndian,
        ),
        (patched(2, &[9]), BtfError::BadVersion { found: 9 }),
        (
            patched(4, &8u32.to_ne_bytes()),
            BtfError::BadSection {
                section: "header",
                offset: 0,
                len: 8,
                total,
            },
        ),
        (
            patched(4, &u32::MAX.to_ne_bytes()),
            BtfError::BadSection {
                section: "type",
                offset: 0,
                len: types,
                total,
            },
        ),
        (
            patched(12, &u32::MAX.to_ne_bytes()),
            BtfError::BadSection {
                section: "type",
                offset: 0,
                len: u32::MAX,
                total,
            },
        ),
        (
            patched(16, &u32::MAX.to_ne_bytes()),
            BtfError::BadSection {
                section: "string",
                offset: u32::MAX,
                len: strings,
                total,
            },
        ),
        (patched(20, &0u32.to_ne_bytes()), BtfError::BadStrings),
        (patched(total - 1, b"x"), BtfError::BadStrings),
        (patched(20, &1u32.to_ne_bytes()), BtfError::BadName { id: 1, at: 1 }),
        (patched(12, &(types - 4).to_ne_bytes()), BtfError::Truncated { id: 8 }),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    for len in 0..24 {
        assert_eq!(
            Btf::parse(good[..len].to_vec()).map(|_| ()),
            Err(BtfError::TooShort { len })
        );
    }
}

#[test]
fn an_unknown_kind_is_refused_by_number() {
    for kind in [0, 20, 31] {
        let mut b = sample();
        let id = b.add("future", kind, false, 0, 0, &[]);
        assert_eq!(
            Btf::parse(b.bytes()).map(|_| ()),
            Err(BtfError::UnknownKind { id, kind: kind as u8 })
        );
    }
}

#[test]
fn members_of_types_that_do_not_exist_are_refused() {
    let mut b = Blob::new();
    b.strukt("t", 8, &[("x", 77, 0, 0)]);
    let hidden = b.strukt("u", 8, &[("", 78, 0, 0)]);
    let btf = b.parse();
    assert_eq!(btf.member_offset("t", "x"), Err(BtfError::BadTypeId { id: 77 }));
    assert_eq!(btf.member_offset("u", "x"), Err(BtfError::BadTypeId { id: 78 }));
    assert_eq!(hidden, 2);
}

#[test]
fn cycles_end_in_an_error() {
    let mut b = Blob::new();
    // A typedef of itself, two that name each other, an array of itself, a struct anonymously inside itself.
    let own = 1;
    assert_eq!(b.add("t1", 8, false, 0, own, &[]), 1);
    b.add("t2", 8, false, 0, 3, &[]);
    b.add("t3", 10, false, 0, 2, &[]);
    assert_eq!(b.array(4, 2), 4);
    b.strukt("self", 8, &[("", 5, 0, 0)]);
    b.strukt("uses", 8, &[("a", 1, 0, 0), ("b", 2, 0, 0), ("c", 4, 0, 0)]);
    let btf = b.parse();
    let too_deep = |name: &str| Err(BtfError::TooDeep { name: name.into() });
    for path in ["a", "b", "c"] {
        assert_eq!(btf.member_offset("uses", path), too_deep("uses"), "{path}");
    }
    assert_eq!(btf.member_offset("self", "x"), too_deep("self"));
}

#[test]
fn nesting_that_fans_out_ends_in_an_error() {
    // Each level embeds the next 16 times: 16^30 ways down, none of which holds `x`.
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let mut inner = b.strukt("", 4, &[("leaf", int, 0, 0)]);
    for _ in 0..29 {
        inner = b.strukt("", 4, &[("", inner, 0, 0); 16]);
    }
    b.strukt("wide", 4, &[("", inner, 0, 0); 16]);
    assert_eq!(
        b.parse().member_offset("wide", "x"),
        Err(BtfError::TooDeep { name: "wide".into() })
    );
}

#[test]
fn every_truncation_is_an_error() {
    let good = sample().bytes();
    for len in 0..good.len() {
        assert!(
            Btf::parse(good[..len].to_vec()).is_err(),
            "{len} of {} bytes",
            good.len()
        );
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut data in proptest::collection::vec(any::<u8>(), 0..600), dressed in any::<bool>()) {
        if dressed && data.len() > 24 {
            // Get past the header, so that the records are what is random.
            let body = data.len() as u32 - 24;
            let strings = body / 4;
            data[0..2].copy_from_slice(&0xeb9fu16.to_ne_bytes());
            data[2] = 1;
            for (i, w) in [24, 0, body - strings, body - strings, strings].into_iter().enumerate() {
                data[4 + i * 4..8 + i * 4].copy_from_slice(&u32::to_ne_bytes(w));
            }
            let end = data.len() - 1;
            data[end] = 0;
            if strings > 0 { data[(24 + body - strings) as usize] = 0; }
        }
        if let Ok(btf) = Btf::parse(data) { interrogate(&btf); }
    }

    #[test]
    fn mutated_blobs_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut data = sample().bytes();
        for (at, value) in flips {
            let i = at.index(data.len());
            data[i] = value;
        }
        if let Ok(btf) = Btf::parse(data) { interrogate(&btf); }
    }
}
