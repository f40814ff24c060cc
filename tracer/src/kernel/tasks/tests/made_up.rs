//! Offsets of a kernel that does not exist, for the tests and for the benchmark.

use super::KernelOffsets;

/// What is needed for system calls, files and cgroups.
pub fn offsets() -> KernelOffsets {
    let mut o = KernelOffsets::default();
    (o.task.start_time, o.task.state, o.task.on_cpu) = (Some(8), Some(16), Some(24));
    (o.task.nvcsw, o.task.nivcsw, o.task.stack) = (Some(32), Some(40), Some(48));
    (o.task.files, o.task.cgroups) = (Some(56), Some(64));
    (o.regs.size, o.regs.orig_ax, o.regs.di) = (Some(168), Some(120), Some(112));
    (o.regs.ip, o.regs.cs, o.regs.ss) = (Some(128), Some(136), Some(160));
    (o.file.fdt, o.file.max_fds, o.file.fd) = (Some(32), Some(0), Some(8));
    (o.file.inode, o.file.path_dentry, o.file.path_mnt) = (Some(16), Some(32), Some(24));
    (o.file.inode_mode, o.file.inode_sb, o.file.inode_number) = (Some(0), Some(40), Some(64));
    (o.file.sb_type, o.file.fs_name) = (Some(40), Some(0));
    (o.file.dentry_parent, o.file.dentry_name, o.file.dentry_name_len) = (Some(24), Some(40), Some(36));
    (o.file.mount_mnt, o.file.mount_parent, o.file.mount_point) = (Some(32), Some(16), Some(24));
    o.file.mnt_root = Some(0);
    (o.cgroup.dfl_cgrp, o.cgroup.kn, o.cgroup.id) = (Some(128), Some(256), Some(96));
    (o.cgroup.node_name, o.cgroup.node_parent) = (Some(16), Some(8));
    o
}
