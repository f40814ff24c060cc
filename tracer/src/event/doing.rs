//! What a thread is about, beside what it waits for, and what cgroups are called.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{CgroupId, KernelAddr, TaskKey};

/// What a thread was about when it was found asleep. It holds until the thread runs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// Who.
    pub task: TaskKey,
    /// What.
    pub activity: Activity,
}

/// What a thread is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// A worker of a workqueue executes work.
    Work {
        /// The work's function (`worker->current_func`).
        function: KernelAddr,
        /// Name of the workqueue.
        workqueue: Option<Arc<str>>,
    },
    /// It is in a system call.
    Syscall {
        /// Its number on this architecture.
        number: u32,
        /// Its name, where the number is known.
        name: Option<Arc<str>>,
        /// What its first argument is.
        argument: Argument,
    },
    /// It came from user space into the kernel by a fault or an interrupt.
    Exception,
}

/// Class of the first argument of a system call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Argument {
    /// Of no class that helps.
    Other,
    /// A descriptor of this file.
    File {
        /// What the file is.
        kind: FileKind,
        /// Its path from the root of its mount namespace, or the kernel's own name of a file without one, as in `/proc/PID/fd`.
        path: Arc<str>,
    },
    /// A descriptor of which no file was found: closed, or not readable.
    Descriptor {
        /// Its number.
        number: u32,
    },
    /// A path, which stands in the memory of the process and is not read.
    Path,
    /// An address in the memory of the process.
    Address,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// Not known.
    Unknown,
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Pipe or FIFO.
    Pipe,
    /// Socket.
    Socket,
    /// Symbolic link.
    Symlink,
    /// Made by the kernel without a place in any file system: an eventfd, a BPF map.
    Anonymous,
}

/// A cgroup has this path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupName {
    /// Which.
    pub cgroup: CgroupId,
    /// Its path below the root of the unified hierarchy; `/` for the root.
    pub path: Arc<str>,
}
