//! The file behind a descriptor, and its path.

use super::ask::Asker;
use crate::event::FileKind;
use crate::kernel::offsets::KernelOffsets;
use crate::kernel::stackscan::is_pointer;

/// Names and mount points on the way to the root.
const MAX_STEPS: usize = 40;
/// `NAME_MAX` (include/uapi/linux/limits.h).
const NAME_MAX: usize = 255;
/// No table of descriptors is larger (`sysctl_nr_open_max`, fs/file.c).
const MAX_DESCRIPTOR: u32 = 1 << 26;
/// `S_IFMT` (include/uapi/linux/stat.h).
const S_IFMT: u64 = 0o170_000;

/// What a thread's descriptor refers to.
///
/// KERNEL: `task->files->fdt->fd[number]` (include/linux/fdtable.h), 5.10 to 6.18.
pub fn of_descriptor(task: u64, number: u32, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<(FileKind, String)> {
    let f = &o.file;
    let files = ask.pointer(task, o.task.files)?;
    let table = ask.pointer(files, f.fdt)?;
    let max = ask.field(table, f.max_fds)? & 0xffff_ffff;
    if number >= MAX_DESCRIPTOR || u64::from(number) >= max {
        return None;
    }
    let array = ask.pointer(table, f.fd)?;
    let [file] = ask.words([array.wrapping_add(8 * u64::from(number))])?;
    if !is_pointer(file) {
        return None;
    }
    let inode = ask.pointer(file, f.inode)?;
    let mode = ask.field(inode, f.inode_mode)? & S_IFMT;
    let super_block = ask.pointer(inode, f.inode_sb)?;
    let fs_type = ask.pointer(super_block, f.sb_type)?;
    let fs_name = ask.field(fs_type, f.fs_name)?;
    let fs = ask.text(fs_name, NAME_MAX)?;
    let kind = match mode {
        0o100_000 => FileKind::Regular,
        0o040_000 => FileKind::Directory,
        0o020_000 => FileKind::CharDevice,
        0o060_000 => FileKind::BlockDevice,
        0o010_000 => FileKind::Pipe,
        0o140_000 => FileKind::Socket,
        0o120_000 => FileKind::Symlink,
        _ if fs == "anon_inodefs" => FileKind::Anonymous,
        _ => FileKind::Unknown,
    };
    let dentry = ask.pointer(file, f.path_dentry)?;
    let path = match fs.as_str() {
        "pipefs" => format!("pipe:[{}]", ask.field(inode, f.inode_number)?),
        "sockfs" => format!("socket:[{}]", ask.field(inode, f.inode_number)?),
        "anon_inodefs" => format!("anon_inode:{}", entry(dentry, o, ask)?.0),
        _ => path(dentry, ask.pointer(file, f.path_mnt)?, o, ask)?,
    };
    let kind = if fs == "anon_inodefs" {
        FileKind::Anonymous
    } else {
        kind
    };
    Some((kind, path))
}

/// Its name, and the directory it is in.
fn entry(dentry: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<(String, u64)> {
    let f = &o.file;
    let fields = [f.dentry_name?, f.dentry_name_len?, f.dentry_parent?];
    let [at, len, parent] = ask.words(fields.map(|field| dentry.wrapping_add(field.into())))?;
    let len = usize::try_from(len & 0xffff_ffff).ok()?;
    Some((ask.text(at, NAME_MAX.min(len))?, parent))
}

/// The path from the root of the mount namespace.
///
/// KERNEL: as `prepend_path` (fs/d_path.c) goes, without its locks: a rename meanwhile may give a path that never was, which
/// costs nothing but the name.
pub fn path(dentry: u64, mount: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<String> {
    let f = &o.file;
    let inside = u64::from(f.mount_mnt?);
    let (mut dentry, mut mount) = (dentry, mount.wrapping_sub(inside));
    let mut names: Vec<String> = Vec::new();
    let mut whole = false;
    for _ in 0..MAX_STEPS {
        let root = ask.field(mount.wrapping_add(inside), f.mnt_root)?;
        if dentry == root {
            let parent = ask.pointer(mount, f.mount_parent)?;
            if parent == mount {
                whole = true;
                break;
            }
            dentry = ask.pointer(mount, f.mount_point)?;
            mount = parent;
            continue;
        }
        let (name, parent) = entry(dentry, o, ask)?;
        if parent == dentry || !is_pointer(parent) {
            // Not below the root of its mount: moved away from there.
            break;
        }
        names.push(name);
        dentry = parent;
    }
    let path = names.iter().rev().fold(String::new(), |path, name| path + "/" + name);
    Some(match (whole, path.is_empty()) {
        (true, true) => "/".to_owned(),
        (true, false) => path,
        (false, _) => format!("...{path}"),
    })
}
