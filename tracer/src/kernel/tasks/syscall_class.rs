//! What the first argument of a system call is.

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing that helps.
    Other,
    /// A descriptor.
    Descriptor,
    /// The descriptor of a directory, or `AT_FDCWD`; a path below it follows.
    DirectoryAndPath,
    /// A path.
    Path,
    /// An address in user memory.
    Address,
}

/// Manual pages, section 2.
const DESCRIPTOR: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "cachestat",
    "close",
    "connect",
    "copy_file_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchown",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "finit_module",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getdents",
    "getdents64",
    "getpeername",
    "getsockname",
    "getsockopt",
    "inotify_add_watch",
    "inotify_rm_watch",
    "io_uring_enter",
    "io_uring_register",
    "ioctl",
    "listen",
    "lseek",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setns",
    "setsockopt",
    "shutdown",
    "splice",
    "sync_file_range",
    "syncfs",
    "tee",
    "timerfd_gettime",
    "timerfd_settime",
    "vmsplice",
    "write",
    "writev",
];
const DIRECTORY_AND_PATH: &[&str] = &[
    "execveat",
    "faccessat",
    "faccessat2",
    "fchmodat",
    "fchmodat2",
    "fchownat",
    "futimesat",
    "linkat",
    "mkdirat",
    "mknodat",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "newfstatat",
    "open_tree",
    "openat",
    "openat2",
    "readlinkat",
    "renameat",
    "renameat2",
    "statx",
    "unlinkat",
    "utimensat",
];
const PATH: &[&str] = &[
    "access",
    "acct",
    "chdir",
    "chmod",
    "chown",
    "chroot",
    "creat",
    "execve",
    "getxattr",
    "lchown",
    "link",
    "listxattr",
    "lstat",
    "mkdir",
    "mknod",
    "mount",
    "open",
    "pivot_root",
    "readlink",
    "removexattr",
    "rename",
    "rmdir",
    "setxattr",
    "stat",
    "statfs",
    "swapoff",
    "swapon",
    "symlink",
    "symlinkat",
    "truncate",
    "umount2",
    "unlink",
    "utime",
    "utimes",
];
const ADDRESS: &[&str] = &[
    "brk",
    "futex",
    "madvise",
    "mbind",
    "mincore",
    "mlock",
    "mlock2",
    "mmap",
    "mprotect",
    "mremap",
    "msync",
    "munlock",
    "munmap",
    "pkey_mprotect",
    "remap_file_pages",
    "shmdt",
];

/// The class of the system call with this name.
pub fn class(name: &str) -> Class {
    let tables = [
        (DESCRIPTOR, Class::Descriptor),
        (DIRECTORY_AND_PATH, Class::DirectoryAndPath),
        (PATH, Class::Path),
        (ADDRESS, Class::Address),
    ];
    let table = tables.iter().find(|(names, _)| names.binary_search(&name).is_ok());
    table.map_or(Class::Other, |&(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_disjoint_and_name_system_calls() {
        let mut all: Vec<&str> = Vec::new();
        for table in [DESCRIPTOR, DIRECTORY_AND_PATH, PATH, ADDRESS] {
            assert!(table.is_sorted());
            all.extend(table);
        }
        for name in &all {
            assert!(
                name.parse::<syscalls::x86_64::Sysno>().is_ok(),
                "{name} is no system call"
            );
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a name stands in two tables");
    }

    #[test]
    fn each_class_is_found() {
        let cases = [
            ("ioctl", Class::Descriptor),
            ("writev", Class::Descriptor),
            ("accept", Class::Descriptor),
            ("openat", Class::DirectoryAndPath),
            ("unlink", Class::Path),
            ("munmap", Class::Address),
            ("getpid", Class::Other),
            ("", Class::Other),
        ];
        for (name, expected) in cases {
            assert_eq!(class(name), expected, "{name}");
        }
    }
}
