//! Locks inside of slab objects.

use std::sync::Arc;

use super::reader::{Reader, Soon};
use super::slab::Object;
use super::types::ObjectType;
use super::{LockNamer, Named};
use crate::event::LockKind;
use crate::kernel::btf::MemberPath;

/// Structs after which a lock is named when they lie inside of others: `inode.i_rwsem`, whatever the file system puts around its
/// inodes.
pub const OBJECTS: &[&str] = &[
    "address_space",
    "blk_mq_hw_ctx",
    "cgroup",
    "dentry",
    "inode",
    "kernfs_root",
    "list_lru_node",
    "lruvec",
    "mm_struct",
    "per_cpu_pages",
    "pglist_data",
    "pid",
    "request_queue",
    "rq",
    "signal_struct",
    "sock",
    "super_block",
    "task_struct",
    "tty_bufhead",
    "tty_port",
    "tty_struct",
    "uart_port",
    "worker_pool",
    "zone",
];

/// A path as a class: from the innermost of [`OBJECTS`] on, else from the outermost struct that has a name.
#[must_use]
pub fn display(path: &MemberPath) -> String {
    // A lock that is itself one of them is named by what it lies in.
    let inner = path.innermost(OBJECTS).filter(|&at| at + 1 < path.0.len());
    let named = || path.0.iter().position(|step| step.composite.is_some());
    path.text_from(inner.or_else(named).unwrap_or(0))
}

impl LockNamer {
    /// The lock at a place in an object.
    pub(super) fn object(&mut self, reader: &mut Reader, object: &Object, kind: LockKind) -> Soon<Named> {
        let Some(btf) = self.btf.clone() else {
            return Ok(bare(object, "no types to tell its struct"));
        };
        let cache = &object.cache;
        let aliases = self.aliases.of(&cache.name);
        let object_type = self.types.object(&btf, &mut self.modules, cache, aliases);
        match &*object_type {
            ObjectType::Struct(_) | ObjectType::OfModule(..) => {
                let mut source = format!("object of the slab cache {}", cache.name);
                let (btf, name) = match &*object_type {
                    ObjectType::OfModule(module, name) => {
                        source.push_str(&format!(" of the module {}", module.name));
                        (&module.btf, name)
                    }
                    ObjectType::Struct(name) => (&btf, name),
                    _ => return Ok(bare(object, "")),
                };
                let paths = self.types.paths(btf, name, object.offset, kind);
                match paths.as_slice() {
                    [] => Ok(Named {
                        name: format!("{name}+{:#x}", object.offset),
                        source,
                        class: format!("{name}+{:#x}", object.offset),
                        firm: false,
                        fixed: false,
                        again: false,
                    }),
                    [path] => self.member(reader, object, path, source),
                    several => Ok(one_of(
                        &several.iter().map(display).collect::<Vec<_>>(),
                        object,
                        &source,
                    )),
                }
            }
            ObjectType::OneOf { known, unknown } => {
                let mut found: Vec<(&str, MemberPath)> = Vec::new();
                for (_, name) in known {
                    let paths: Arc<Vec<MemberPath>> = self.types.paths(&btf, name, object.offset, kind);
                    found.extend(paths.iter().map(|path| (name.as_str(), path.clone())));
                }
                found.sort_by_key(|(_, path)| display(path));
                found.dedup_by_key(|(_, path)| display(path));
                if let [(name, path)] = found.as_slice() {
                    let kinds = known.len() + unknown;
                    if let Some(named) = self.only_one(reader, object, (name, path), (kinds, *unknown), kind)? {
                        return Ok(named);
                    }
                }
                let source = format!(
                    "object of the slab cache {}, which is shared by several kinds",
                    cache.name
                );
                if found.is_empty() {
                    return Ok(bare(object, &source));
                }
                let candidates: Vec<String> = found.iter().map(|(_, path)| display(path)).collect();
                Ok(one_of(&candidates, object, &source))
            }
            ObjectType::Kmalloc(size) => self.recognise(reader, object, *size, kind),
            ObjectType::Unknown => Ok(bare(object, "its slab cache is named after no struct of its size")),
        }
    }

    /// The one member that it is.
    pub(super) fn member(
        &self,
        reader: &mut Reader,
        object: &Object,
        path: &MemberPath,
        source: String,
    ) -> Soon<Named> {
        let class = display(path);
        let of = self.of_object(reader, object.address, path)?;
        Ok(Named {
            name: of.map_or_else(|| class.clone(), |of| format!("{class} of {of}")),
            source,
            class,
            firm: true,
            fixed: false,
            again: false,
        })
    }
}

/// Only the cache is known.
pub fn bare(object: &Object, why: &str) -> Named {
    let class = format!("{}+{:#x}", object.cache.name, object.offset);
    Named {
        name: class.clone(),
        source: format!("slab object; {why}"),
        class,
        firm: false,
        fixed: false,
        again: false,
    }
}

/// Several are possible.
pub fn one_of(candidates: &[String], object: &Object, source: &str) -> Named {
    const SHOWN: usize = 3;
    let mut candidates = candidates.to_vec();
    candidates.sort_unstable();
    candidates.dedup();
    let shown = candidates
        .get(..SHOWN.min(candidates.len()))
        .unwrap_or_default()
        .join(" or ");
    let more = match candidates.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" or {more} others"),
    };
    let class = format!("{}+{:#x}", object.cache.name, object.offset);
    Named {
        name: format!("{class}: {shown}{more}"),
        source: format!("{source}: candidates"),
        class,
        firm: false,
        fixed: false,
        again: false,
    }
}
