//! Which functions a kprobe can and cannot go on, as the kernel lists them.
//!
//! Both lists are in file systems that may not be mounted (tracefs, debugfs). Without them the answer is "unknown", and
//! attaching has to be tried.

use std::{fs, io, path::PathBuf};

use super::{name_index::NameIndex, sysroot::Sysroot};

/// Functions that ftrace can hook: a kprobe there costs a call and not a breakpoint trap. The second place is where
/// kernels before 4.1 and careful distributions mount it.
const FILTER_FUNCTIONS: [&str; 2] = [
    "/sys/kernel/tracing/available_filter_functions",
    "/sys/kernel/debug/tracing/available_filter_functions",
];
/// Functions on which the kernel refuses kprobes.
const BLACKLIST: [&str; 1] = ["/sys/kernel/debug/kprobes/blacklist"];

/// A list of function names.
#[derive(Debug)]
pub struct FunctionList {
    text: Vec<u8>,
    index: NameIndex,
    len: usize,
}

/// Why a list is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}; {fix}", path = path.display())]
pub struct ListError {
    /// The first place looked at.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
    /// What to do.
    pub fix: &'static str,
}

impl FunctionList {
    /// Functions that ftrace can hook.
    ///
    /// # Errors
    /// tracefs is not mounted, or cannot be read.
    pub fn ftrace(root: &Sysroot) -> Result<Self, ListError> {
        let fix = "mount it with `mount -t tracefs nodev /sys/kernel/tracing`";
        // `name` or `name [module]`.
        Ok(Self::new(read_first(root, &FILTER_FUNCTIONS, fix)?, |line| line))
    }

    /// Functions on which kprobes are refused.
    ///
    /// # Errors
    /// debugfs is not mounted, or cannot be read.
    pub fn kprobe_blacklist(root: &Sysroot) -> Result<Self, ListError> {
        let fix = "mount it with `mount -t debugfs nodev /sys/kernel/debug`";
        // `0xstart-0xend<TAB>name`.
        let after_range = |line: &'_ [u8]| line.iter().position(|&b| b == b'\t').map_or(0, |tab| tab + 1);
        let text = read_first(root, &BLACKLIST, fix)?;
        Ok(Self::new(text, move |line| {
            line.get(after_range(line)..).unwrap_or_default()
        }))
    }

    /// Whether the function is in the list.
    pub fn contains(&self, name: &str) -> bool {
        self.index.candidates(name.as_bytes()).any(|at| {
            self.text
                .get(at as usize..)
                .is_some_and(|rest| first_word(rest) == name.as_bytes())
        })
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none, as on kernels without ftrace.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn new(text: Vec<u8>, name_of: impl Fn(&[u8]) -> &[u8]) -> Self {
        let mut len = 0;
        let mut at = 0u32;
        let names = text.split(|&b| b == b'\n').filter_map(|line| {
            let start = at;
            at = at.saturating_add(u32::try_from(line.len() + 1).unwrap_or(u32::MAX));
            let rest = name_of(line);
            let name = first_word(rest);
            if name.is_empty() {
                return None;
            }
            len += 1;
            Some((
                name,
                start.saturating_add(u32::try_from(line.len() - rest.len()).unwrap_or(u32::MAX)),
            ))
        });
        let index = NameIndex::build(names);
        Self { text, index, len }
    }
}

fn first_word(line: &[u8]) -> &[u8] {
    line.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

fn read_first(root: &Sysroot, places: &[&str], fix: &'static str) -> Result<Vec<u8>, ListError> {
    let mut first = None;
    for place in places {
        let path = root.path(place);
        match fs::read(&path) {
            Ok(text) => return Ok(text),
            Err(source) => first = first.or(Some((path, source))),
        }
    }
    let (path, source) = first.unwrap_or_else(|| (PathBuf::new(), io::ErrorKind::NotFound.into()));
    Err(ListError { path, source, fix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::Tree;

    #[test]
    fn ftrace_functions_are_found_with_and_without_module() {
        let tree = Tree::new();
        tree.file(
            FILTER_FUNCTIONS[1],
            "mutex_lock\nhelper [lockfault]\n\nrwsem_wake.isra.0\nmutex_lock_io",
        );
        let list = FunctionList::ftrace(&tree.root()).expect("it is there");
        assert_eq!(list.len(), 4);
        for (name, expected) in [
            ("mutex_lock", true),
            ("helper", true),
            ("rwsem_wake.isra.0", true),
            ("mutex_lock_io", true),
            ("rwsem_wake", false),
            ("mutex", false),
            ("[lockfault]", false),
            ("", false),
        ] {
            assert_eq!(list.contains(name), expected, "{name}");
        }
    }

    #[test]
    fn the_blacklist_has_ranges_before_its_names() {
        let tree = Tree::new();
        tree.file(
            BLACKLIST[0],
            "0xffffffff81000000-0xffffffff81000050\tdo_int3\n0x1-0x2\t__down_common [x]\nnot_a_range",
        );
        let list = FunctionList::kprobe_blacklist(&tree.root()).expect("it is there");
        assert_eq!(list.len(), 3);
        assert!(list.contains("do_int3") && list.contains("__down_common") && list.contains("not_a_range"));
        assert!(!list.contains("0x1-0x2"));
    }

    #[test]
    fn an_unmounted_file_system_says_how_to_mount_it() {
        let tree = Tree::new();
        let error = FunctionList::ftrace(&tree.root())
            .map(|_| ())
            .expect_err("not mounted")
            .to_string();
        assert!(
            error.contains("/sys/kernel/tracing/available_filter_functions"),
            "{error}"
        );
        assert!(error.contains("mount -t tracefs"), "{error}");
        let error = FunctionList::kprobe_blacklist(&tree.root())
            .map(|_| ())
            .expect_err("not mounted")
            .to_string();
        assert!(error.contains("mount -t debugfs"), "{error}");
        tree.file(FILTER_FUNCTIONS[0], "");
        assert!(
            FunctionList::ftrace(&tree.root())
                .expect("mounted, but empty")
                .is_empty()
        );
    }
}
