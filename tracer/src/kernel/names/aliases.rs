//! Which slab caches share their slabs: SLUB merges caches of like size, and then all of them go by one name.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;

use crate::kernel::sysroot::Sysroot;

/// Where SLUB shows its caches; a merged one as symbolic links to the same directory (mm/slub.c, `sysfs_slab_alias`).
const CACHES: &str = "/sys/kernel/slab";

/// Names of caches that share their slabs.
#[derive(Debug, Clone, Default)]
pub struct Aliases(HashMap<String, Vec<String>>);

impl Aliases {
    /// Reads the links; nothing is known where the kernel shows none.
    #[must_use]
    pub fn read(root: &Sysroot) -> Self {
        let mut shared: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
        for entry in fs::read_dir(root.path(CACHES)).into_iter().flatten().flatten() {
            if let (Ok(target), Ok(name)) = (fs::read_link(entry.path()), entry.file_name().into_string()) {
                shared.entry(target).or_default().push(name);
            }
        }
        let mut of = HashMap::new();
        for mut names in shared.into_values().filter(|names| names.len() > 1) {
            names.sort_unstable();
            of.extend(names.iter().map(|name| (name.clone(), names.clone())));
        }
        Self(of)
    }

    /// All names of the slabs of cache `name`, sorted; empty where it is the only one or nothing is known.
    #[must_use]
    pub fn of(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::Tree;

    #[test]
    fn caches_that_share_a_directory_are_told() {
        let tree = Tree::new();
        tree.link("/sys/kernel/slab/pid", ":A-0000128")
            .link("/sys/kernel/slab/eventpoll_epi", ":A-0000128")
            .link("/sys/kernel/slab/alone", ":0000064")
            .file("/sys/kernel/slab/dentry/object_size", "192");
        let aliases = Aliases::read(&tree.root());
        assert_eq!(aliases.of("pid"), ["eventpoll_epi", "pid"]);
        assert_eq!(aliases.of("alone"), [""; 0]);
        assert_eq!(aliases.of("dentry"), [""; 0]);
        assert_eq!(Aliases::read(&Sysroot::at("/no/such")).of("pid"), [""; 0]);
    }
}
