//! Types of modules, read when an object is met that the kernel's own types do not explain: an inode of a file system that is a
//! module.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use super::slab::Cache;
use super::types::{ObjectType, own_struct};
use crate::kernel::btf::Btf;
use crate::kernel::sysroot::Sysroot;

/// Where the kernel shows its types, and those of each module (CONFIG_DEBUG_INFO_BTF_MODULES).
const TYPES: &str = "/sys/kernel/btf";
/// The kernel's own among them.
const KERNEL: &str = "vmlinux";
/// Modules whose types are read; those of a large machine have a few hundred.
const MAX_MODULES: usize = 1_024;

/// The types of one module.
#[derive(Debug)]
pub struct ModuleTypes {
    /// Its name.
    pub name: String,
    /// Its types, on top of the kernel's.
    pub btf: Arc<Btf>,
}

/// The types of all modules that were there when an object was last unknown.
#[derive(Debug)]
pub struct Modules {
    root: Sysroot,
    seen: HashSet<String>,
    read: Vec<Arc<ModuleTypes>>,
}

impl Modules {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(root: Sysroot) -> Self {
        Self {
            root,
            seen: HashSet::new(),
            read: Vec::new(),
        }
    }

    /// What the objects of a cache are, if the types of exactly one module tell.
    pub fn object_type(&mut self, kernel: &Arc<Btf>, cache: &Cache) -> ObjectType {
        self.update(kernel);
        let mut found = self
            .read
            .iter()
            .filter_map(|module| Some((module, own_struct(&module.btf, cache)?)));
        match (found.next(), found.next()) {
            (Some((module, name)), None) => ObjectType::OfModule(Arc::clone(module), name),
            _ => ObjectType::Unknown,
        }
    }

    /// Reads the types of modules that have come since. One that cannot be read explains nothing.
    fn update(&mut self, kernel: &Arc<Btf>) {
        let entries = fs::read_dir(self.root.path(TYPES)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names.filter(|name| name != KERNEL) {
            if self.seen.len() >= MAX_MODULES || !self.seen.insert(name.clone()) {
                continue;
            }
            if let Ok(btf) = Btf::load_module(&self.root.path(&format!("{TYPES}/{name}")), kernel) {
                self.read.push(Arc::new(ModuleTypes {
                    name,
                    btf: Arc::new(btf),
                }));
            }
        }
    }
}
