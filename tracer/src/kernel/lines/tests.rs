//! A kernel image in small (`tests/data/lines/vmlinux.c`), as if it ran 32 MB further up.

use std::path::{Path, PathBuf};

use super::*;
use crate::kernel::symbols::Symbols;
use crate::kernel::testing::Tree;

const SLIDE: u64 = 0x0200_0000;
const RELEASE: &str = "6.1.0-test";
const SYMBOLS: &str = "\
ffffffff83000000 T leaf
ffffffff83000007 T outer
ffffffff83000057 T _stext
";
/// Return addresses in `outer` and `_stext`, from the image's disassembly.
const AFTER_INLINED_CALL: u64 = 0xffff_ffff_8100_0012;
const AFTER_OWN_CALL: u64 = 0xffff_ffff_8100_0046;
const AFTER_CALL_OF_OUTER: u64 = 0xffff_ffff_8100_0061;

fn image() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/lines/vmlinux")
}

fn notes(id: &[u8]) -> Vec<u8> {
    let mut notes = Vec::new();
    // Another note comes first, with a name and a content that need padding.
    let all: [(&[u8], &[u8], u32); 2] = [(b"Linux\0", b"abcde", 0x101), (b"GNU\0", id, 3)];
    for (name, content, kind) in all {
        for number in [name.len() as u32, content.len() as u32, kind] {
            notes.extend(number.to_ne_bytes());
        }
        for part in [name, content] {
            notes.extend(part);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
    }
    notes
}

const ID: [u8; 20] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45,
    0x67,
];

fn machine(id: &[u8]) -> Tree {
    let tree = Tree::new();
    tree.file("sys/kernel/notes", notes(id));
    tree
}

fn symbols(text: &str) -> Symbols {
    Symbols::parse(Path::new("kallsyms"), text.as_bytes()).expect("symbols")
}

fn start(path: Option<&Path>, tree: &Tree) -> Result<Lines, VmlinuxError> {
    started(path, &symbols(SYMBOLS), tree)
}

fn started(path: Option<&Path>, symbols: &Symbols, tree: &Tree) -> Result<Lines, VmlinuxError> {
    Lines::start(Some(Vmlinux::open(path, RELEASE, symbols, &tree.root())?), None)
}

fn shown(place: &Place) -> String {
    let line = place.line.map_or_else(|| "?".to_owned(), |line| line.to_string());
    format!("{}:{line}", place.file.as_deref().unwrap_or("?"))
}

#[test]
fn file_line_and_inlined_functions_of_a_call_are_found_behind_kaslr() {
    let tree = machine(&ID);
    let mut lines = start(Some(&image()), &tree).expect("the image of this kernel");
    let asked = [
        AFTER_INLINED_CALL,
        AFTER_OWN_CALL,
        AFTER_CALL_OF_OUTER,
        0xffff_ffff_8200_0000,
    ];
    for addr in asked {
        lines.ask(KernelAddr(addr + SLIDE), None);
    }
    let found: Vec<(u64, String, Vec<String>)> = lines
        .wait(Duration::from_secs(60))
        .iter()
        .map(|line| {
            let inlined = line.inlined.iter().map(|i| format!("{} {}", i.name, shown(&i.place)));
            (line.addr.0 - SLIDE, shown(&line.place), inlined.collect())
        })
        .collect();
    let inlined = ["middle ./vmlinux.c:23", "inner ./vmlinux.c:17"].map(str::to_owned);
    let expected = [
        (AFTER_INLINED_CALL, "./vmlinux.c:29".to_owned(), inlined.to_vec()),
        (AFTER_OWN_CALL, "./vmlinux.c:31".to_owned(), Vec::new()),
        (AFTER_CALL_OF_OUTER, "./vmlinux.c:37".to_owned(), Vec::new()),
    ];
    assert_eq!(found, expected);
    assert_eq!(lines.take(), [], "everything was answered");
}

#[test]
fn it_is_found_where_distributions_put_it() {
    let tree = machine(&ID);
    let error = start(None, &tree).expect_err("there is none").to_string();
    assert!(
        error.starts_with("no vmlinux of kernel 6.1.0-test at /usr/lib/debug/boot/vmlinux-6.1.0-test, "),
        "{error}"
    );
    let bytes = std::fs::read(image()).expect("the image");
    tree.file("usr/lib/debug/lib/modules/6.1.0-test/vmlinux", &bytes);
    start(None, &tree).expect("it is there now");
}

#[test]
fn what_is_not_this_kernels_debug_information_is_refused_by_name() {
    let mut other = ID;
    other[0] = 0xff;
    let image = image();
    let refused = |path: &Path, tree: &Tree| start(Some(path), tree).expect_err("refused").to_string();
    let shown = image.display();
    assert_eq!(
        refused(&image, &machine(&other)),
        format!(
            "{shown} has build id 0123456789abcdef0123456789abcdef01234567, the running kernel \
             ff23456789abcdef0123456789abcdef01234567: it is another kernel's"
        )
    );
    assert!(refused(&image, &Tree::new()).contains("the running kernel none"));
    let tree = machine(&ID);
    assert!(refused(Path::new("/nonexistent/vmlinux"), &tree).starts_with("reading /nonexistent/vmlinux: "));
    tree.file("text", b"no ELF");
    let text = tree.root().path("/text");
    assert!(refused(&text, &tree).contains("is no ELF file"));
    let hidden = started(Some(&image), &symbols("ffffffff83000000 T leaf\n"), &tree);
    assert_eq!(
        hidden.expect_err("refused").to_string(),
        "_stext is not in /proc/kallsyms: addresses cannot be related"
    );
}

#[test]
fn torn_notes_have_no_build_id() {
    let whole = notes(&ID);
    for end in 0..whole.len() {
        let tree = Tree::new();
        tree.file("sys/kernel/notes", whole.get(..end).unwrap_or_default());
        assert!(start(Some(&image()), &tree).is_err(), "{end}");
    }
}

const MODULE: &str = "a_module";
const TEXT: u64 = 0xffff_ffff_c030_0000;
const INIT: u64 = 0xffff_ffff_c031_0000;
const MODULE_ID: [u8; 20] = [
    0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10, 0xfe, 0xdc, 0xba,
    0x98,
];

/// A machine with the module of `tests/data/lines/module.c` loaded; where its code is after its start is left out for a later one.
fn with_module(id: &[u8], init: bool) -> Tree {
    let tree = Tree::new();
    tree.file("sys/module/a_module/notes/.note.gnu.build-id", notes(id));
    tree.file("sys/module/a_module/sections/.text", format!("{TEXT:#x}\n"));
    if init {
        tree.file("sys/module/a_module/sections/.init.text", format!("{INIT:#x}\n"));
    }
    tree
}

fn module_lines(tree: &Tree, dir: Option<&Path>, asked: &[u64]) -> Vec<(u64, String, Vec<String>)> {
    let mut lines = Lines::start(None, Some(Modules::new(RELEASE, dir, &tree.root()))).expect("a thread");
    for &addr in asked {
        lines.ask(KernelAddr(addr), Some(&MODULE.into()));
    }
    let shown = lines.wait(Duration::from_secs(60)).into_iter().map(|line| {
        let inlined = line.inlined.iter().map(|i| format!("{} {}", i.name, shown(&i.place)));
        (line.addr.0, shown(&line.place), inlined.collect())
    });
    shown.collect()
}

/// Return addresses in `in_text` and `in_init`, from the file's disassembly.
const IN_TEXT: u64 = TEXT + 0xc;
const IN_INIT: u64 = INIT + 0x10;

#[test]
fn file_line_and_inlined_functions_in_a_module_are_found_by_where_its_sections_are() {
    let file = std::fs::read(image().with_file_name("module.ko")).expect("the module");
    let in_text = (
        IN_TEXT,
        "./module.c:20".to_owned(),
        vec!["inner ./module.c:14".to_owned()],
    );
    let in_init = (IN_INIT, "./module.c:27".to_owned(), Vec::new());
    for place in [
        "usr/lib/debug/lib/modules/6.1.0-test/kernel/x/a-module.ko",
        "lib/modules/6.1.0-test/kernel/x/a-module.ko",
    ] {
        let tree = with_module(&MODULE_ID, true);
        tree.file(
            "lib/modules/6.1.0-test/modules.dep",
            "kernel/b.ko:\nkernel/x/a-module.ko: kernel/b.ko\n",
        );
        assert_eq!(module_lines(&tree, None, &[IN_TEXT, IN_INIT]), [], "there is no file");
        tree.file(place, &file);
        let found = module_lines(&tree, None, &[IN_TEXT, IN_INIT, TEXT + 0x10_0000]);
        assert_eq!(found, [in_text.clone(), in_init.clone()], "{place}");
    }
    // Once it has started, a module's first code is gone: both begin at 0 in the file.
    let tree = with_module(&MODULE_ID, false);
    tree.file("debug/a_module.ko", &file);
    let dir = tree.root().path("/debug");
    assert_eq!(module_lines(&tree, Some(&dir), &[IN_TEXT, IN_INIT]), [in_text]);
}

/// The fixtures are `module.ko` as the kernel's scripts/Makefile.modinst compresses it (`gzip -n`, `xz --check=crc32 --lzma2=dict=1MiB`, `zstd`).
#[test]
fn compressed_files_of_modules_are_unpacked() {
    for end in ["gz", "xz", "zst"] {
        let file = std::fs::read(image().with_file_name(format!("module.ko.{end}"))).expect("the fixture");
        let expected = [(
            IN_TEXT,
            "./module.c:20".to_owned(),
            vec!["inner ./module.c:14".to_owned()],
        )];
        let tree = with_module(&MODULE_ID, true);
        let place = format!("kernel/x/a-module.ko.{end}");
        tree.file(
            "lib/modules/6.1.0-test/modules.dep",
            format!("{place}: kernel/b.ko.{end}\n"),
        );
        assert_eq!(module_lines(&tree, None, &[IN_TEXT]), [], "there is no file");
        tree.file(&format!("lib/modules/6.1.0-test/{place}"), &file);
        assert_eq!(module_lines(&tree, None, &[IN_TEXT]), expected, "{end}");
        let tree = with_module(&MODULE_ID, true);
        // One that is torn is passed over, and another one is taken.
        tree.file("debug/a_module.ko", file.get(..100).unwrap_or_default());
        tree.file(&format!("debug/a_module.ko.debug.{end}"), &file);
        let dir = tree.root().path("/debug");
        assert_eq!(module_lines(&tree, Some(&dir), &[IN_TEXT]), expected, "{end}");
    }
}

#[test]
fn the_file_of_another_build_of_a_module_and_torn_files_say_nothing() {
    let file = std::fs::read(image().with_file_name("module.ko")).expect("the module");
    let tree = with_module(&ID, true);
    tree.file("debug/a_module.ko", &file);
    let dir = tree.root().path("/debug");
    assert_eq!(module_lines(&tree, Some(&dir), &[IN_TEXT]), []);
    for end in (0..file.len()).step_by(97) {
        let tree = with_module(&MODULE_ID, true);
        tree.file("debug/a_module.ko", file.get(..end).unwrap_or_default());
        let dir = tree.root().path("/debug");
        // Nothing, or less; whatever is there must not bring anybody down.
        let found = module_lines(&tree, Some(&dir), &[IN_TEXT]);
        assert!(found.len() <= 1, "{end}: {found:?}");
    }
}
