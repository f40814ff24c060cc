//! The path of a cgroup, from the names of its directory's nodes: the files below `/sys/fs/cgroup` are behind locks, and may not
//! even be mounted.

use super::ask::Asker;
use crate::ids::CgroupId;
use crate::kernel::offsets::KernelOffsets;

/// Directories on the way to the root.
const MAX_DEPTH: usize = 32;
/// `NAME_MAX` (include/uapi/linux/limits.h).
const NAME_MAX: usize = 255;

/// The path of the thread's cgroup in the unified hierarchy; `None` if its id is another one by now.
///
/// KERNEL: `struct kernfs_node` (include/linux/kernfs.h): `name`, and `parent` up to 6.14, `__parent` since; the root's is null.
pub fn path(task: u64, id: CgroupId, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<String> {
    let c = &o.cgroup;
    let css_set = ask.pointer(task, o.task.cgroups)?;
    let cgroup = ask.pointer(css_set, c.dfl_cgrp)?;
    let mut node = ask.pointer(cgroup, c.kn)?;
    if ask.field(node, c.id)? != id.0 {
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    for _ in 0..MAX_DEPTH {
        let parent = ask.field(node, c.node_parent)?;
        if parent == 0 {
            let path = names.iter().rev().fold(String::new(), |path, name| path + "/" + name);
            return Some(if path.is_empty() { "/".to_owned() } else { path });
        }
        let at = ask.field(node, c.node_name)?;
        names.push(ask.text(at, NAME_MAX)?);
        node = parent;
    }
    None
}
