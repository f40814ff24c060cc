use std::path::Path;

use proptest::prelude::*;

use super::{KALLSYMS, Symbols, SymbolsError};
use crate::ids::KernelAddr;

fn parse(text: &str) -> Symbols {
    Symbols::parse(Path::new("kallsyms"), text.as_bytes()).expect("usable symbols")
}

const SAMPLE: &str = "\
0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_debug_store
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 t __pfx___mutex_lock.constprop.0
ffffffff81000050 t __mutex_lock.constprop.0
ffffffff81000800 T mutex_lock
ffffffff81000900 t rwsem_wake.isra.0
ffffffff81000a00 t rwsem_wake.isra.0.cold
ffffffff81000b00 t __do_sys_read
ffffffff81000b00 T __x64_sys_read
ffffffff81000c00 T __up
ffffffff81000d00 t __up.part.0
ffffffff81000e00 T _etext
ffffffff81e00000 D __start_rodata
ffffffff82000000 D rtnl_mutex
ffffffff82000040 d helper
ffffffff82001000 B _end
ffffffffc0000000 t helper\t[lockfault]
ffffffffc0000100 t prune [lockfault]
ffffffffc0400000 t bpf_prog_1\t[bpf]
";

#[test]
fn addresses_resolve_to_the_symbol_they_lie_in() {
    let s = parse(SAMPLE);
    let shown = |address| s.resolve(KernelAddr(address)).map(|s| s.to_string());
    for (address, expected) in [
        (0xffff_ffff_8100_0800, Some("mutex_lock")),
        (0xffff_ffff_8100_08ff, Some("mutex_lock+0xff")),
        (0xffff_ffff_8100_0900, Some("rwsem_wake.isra.0")),
        (0xffff_ffff_8200_0018, Some("rtnl_mutex+0x18")),
        (0xffff_ffff_c000_0010, Some("helper+0x10 [lockfault]")),
        // Of several names the global one that is no section mark.
        (0xffff_ffff_8100_0000, Some("srso_alias_untrain_ret")),
        (0xffff_ffff_8100_0b04, Some("__x64_sys_read+0x4")),
        // After the image and before the first module; after a module's last symbol, far away.
        (0xffff_ffff_8200_1000, None),
        (0xffff_ffff_9000_0000, None),
        (0xffff_ffff_8100_0e10, None),
        (0xffff_ffff_81e0_0010, None),
        (0xffff_ffff_c000_0fff, Some("prune+0xeff [lockfault]")),
        (0xffff_ffff_c030_0000, None),
        (0xffff_ffff_c050_0001, None),
        // Per-CPU offsets and user space are no kernel addresses; nothing lies before the first symbol.
        (0, None),
        (0x1004, None),
        (0x7fff_0000_0000, None),
        (0xffff_ffff_80ff_ffff, None),
        (u64::MAX, None),
    ] {
        assert_eq!(shown(address).as_deref(), expected, "{address:#x}");
    }
}

#[test]
fn names_are_found_with_their_compiler_suffixes_but_not_cold() {
    let s = parse(SAMPLE);
    let code = |name| s.find_code(name).iter().map(|s| s.name.to_owned()).collect::<Vec<_>>();
    assert_eq!(code("rwsem_wake"), ["rwsem_wake.isra.0"]);
    assert_eq!(code("__mutex_lock"), ["__mutex_lock.constprop.0"]);
    assert_eq!(code("__up"), ["__up", "__up.part.0"]);
    assert_eq!(code("mutex_loc"), [""; 0]);
    assert_eq!(code("rtnl_mutex"), [""; 0], "data is no place for a probe");
    assert_eq!(code("rwsem_wake.isra.0"), ["rwsem_wake.isra.0"]);
    let found = |name| {
        s.find(name)
            .map(|s| (s.address.0, s.module.map(str::to_owned)))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("rwsem_wake"), []);
    assert_eq!(found("cpu_debug_store"), [(0x1000, None)]);
    assert_eq!(
        found("helper"),
        [
            (0xffff_ffff_8200_0040, None),
            (0xffff_ffff_c000_0000, Some("lockfault".to_owned()))
        ]
    );
}

#[test]
fn suffixes_that_keep_the_calling_point() {
    let text: String = [
        "f",
        "f.isra.0",
        "f.constprop.0.isra.0",
        "f.llvm.123",
        "f.lto_priv.4",
        "f.part.0.cold",
        "f.cold",
        "f.0",
        "f.",
        "f..",
        "f.isra",
        "f.isra.x",
        "fg",
        ".f",
        "f.part.0",
    ]
    .iter()
    .enumerate()
    .map(|(i, n)| format!("ffffffff8100{i:04x} t {n}\n"))
    .collect();
    let s = parse(&text);
    let names: Vec<_> = s.find_code("f").iter().map(|s| s.name).collect();
    assert_eq!(
        names,
        [
            "f",
            "f.isra.0",
            "f.constprop.0.isra.0",
            "f.llvm.123",
            "f.lto_priv.4",
            "f.isra",
            "f.part.0"
        ]
    );
    assert_eq!(s.find(".f").count(), 1);
}

#[test]
fn lines_that_are_no_symbols_are_counted() {
    for bad in [
        "",
        "x",
        "ffffffff81000000",
        "ffffffff81000000 ",
        "ffffffff81000000 T",
        "ffffffff81000000 T ",
        "ffffffff81000000  name",
        "ffffffff81000000T name",
        "fffffffff81000000 T seventeen_digits",
        "-1 T name",
        " ffffffff81000000 T name",
        "ffffffff81000000 T name module",
        "ffffffff81000000 T name [module",
        "ffffffff81000000 Te name",
    ] {
        let s = parse(&format!("{bad}\nffffffff81000000 T good\n"));
        assert_eq!((s.len(), s.malformed()), (1, usize::from(!bad.is_empty())), "{bad:?}");
    }
    let s = Symbols::parse(Path::new("k"), b"ffffffff81000000 T \xff\xfe\nffffffff81000000 T ok").expect("one is good");
    assert_eq!((s.len(), s.malformed()), (1, 1));
}

#[test]
fn a_list_without_addresses_says_what_to_do() {
    let error = Symbols::parse(
        Path::new("/proc/kallsyms"),
        b"0000000000000000 T a\n0000000000000000 t b [m]\n",
    );
    let error = error.map(|_| ()).expect_err("addresses are hidden");
    assert!(matches!(error, SymbolsError::Hidden { symbols: 2, .. }));
    let text = error.to_string();
    assert!(
        text.contains("CAP_SYSLOG") && text.contains("kernel.kptr_restrict=1"),
        "{text}"
    );
    let error = Symbols::parse(Path::new("k"), b"nothing\nof use\n")
        .map(|_| ())
        .expect_err("no symbols");
    assert!(matches!(error, SymbolsError::Empty { malformed: 2, .. }), "{error}");
    let error = Symbols::load(Path::new("/nonexistent/kallsyms"))
        .map(|_| ())
        .expect_err("no file");
    assert!(error.to_string().contains("/nonexistent/kallsyms"), "{error}");
}

#[test]
fn the_running_kernels_symbols_resolve() {
    let s = match Symbols::load(Path::new(KALLSYMS)) {
        Ok(s) => s,
        Err(e) => return eprintln!("not checked: {e}"),
    };
    assert!(s.len() > 10_000);
    assert_eq!(s.malformed(), 0);
    let function = *s.find_code("schedule").first().expect("every kernel has it");
    assert_eq!(
        s.resolve(KernelAddr(function.address.0 + 4))
            .map(|s| (s.name, s.offset)),
        Some(("schedule", 4))
    );
    assert!(
        s.heap_bytes() < s.len() * 64,
        "{} bytes for {} symbols",
        s.heap_bytes(),
        s.len()
    );
    assert_eq!(s.iter().count(), s.len());
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[0-9a-f]{0,17}[ tT\\[\\].a\n\u{e9}]{0,40}", address in any::<u64>()) {
        if let Ok(s) = Symbols::parse(Path::new("k"), text.as_bytes()) {
            let _ = (s.resolve(KernelAddr(address)), s.find_code("a"), s.find("a").count());
        }
    }

    #[test]
    fn resolve_agrees_with_a_linear_search(addresses in proptest::collection::btree_set(0u64..5000, 1..40), probe in 0u64..6000) {
        const BASE: u64 = 0xffff_ffff_8100_0000;
        let text: String = addresses.iter().map(|a| format!("{:x} t f{a}\n", BASE + a)).collect();
        let s = parse(&text);
        let expected = addresses.iter().rev().find(|a| **a <= probe).map(|a| (format!("f{a}"), probe - a));
        prop_assert_eq!(s.resolve(KernelAddr(BASE + probe)).map(|s| (s.name.to_owned(), s.offset)), expected);
    }
}
