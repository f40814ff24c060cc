//! Stacks, and names of addresses and locks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{KernelAddr, LockAddr, StackId};

/// Frames of a stack, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrames {
    /// Identity of the stack.
    pub id: StackId,
    /// Return addresses, innermost first.
    pub frames: Arc<[KernelAddr]>,
    /// Pieced together from the words of a stack that nobody could unwind: some may be left over from earlier calls.
    #[serde(default)]
    pub pieced: bool,
}

/// Name of a kernel address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolName {
    /// The address as it stands in a stack.
    pub addr: KernelAddr,
    /// Symbol name without offset.
    pub name: Arc<str>,
    /// Offset into the symbol.
    pub offset: u64,
    /// Module, where not the kernel proper.
    pub module: Option<Arc<str>>,
}

/// Name of a lock and how it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockName {
    /// Which lock.
    pub lock: LockAddr,
    /// E.g. `rtnl_mutex`, `inode.i_rwsem`.
    pub name: Arc<str>,
    /// How it is known, e.g. `kernel symbol`, `object of the slab cache ext4_inode_cache`.
    pub source: Arc<str>,
    /// What it has in common with others of its kind, e.g. `inode.i_rwsem`; `None` in captures of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Arc<str>>,
}
