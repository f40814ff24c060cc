//! What a lock is, from its address: a static variable, a per-CPU variable, or a member of a kernel object.
//!
//! Names are found out in user space from three sources: the kernel's symbols, its types, and a few words of its memory that an
//! iterator reads on our behalf ([`crate::kernel::stackscan::Memory`]). Nothing here runs where events are taken in: the caller
//! hands over many locks at once and may wait. An object can be freed, and its memory be given to another, at any time: a name
//! holds for the moment at which it was read.
//!
//! | address | read | name |
//! |---|---|---|
//! | kernel image, modules | symbols | `rtnl_mutex` |
//! | per-CPU area | symbols, `.data..percpu` of BTF | `rq.__lock of CPU 2` |
//! | direct map | `struct page` -> `kmem_cache` -> object -> member of the struct that the cache is named after | `inode.i_rwsem of inode 12 ...` |
//! | the same, `kmalloc` | every struct of that size with such a lock there, compared with the object's lists and pointers | `pipe_inode_info.mutex`, likely |
//! | either, in an array of the kernel's | the variable that points to the array | `zone.lock of Normal, node_data[0]` |
//! | either, or whole pages | the variable that points to them | `*lf_heap+0x20 [lockfault]`, likely |
//! | kernel stack | whose | `on the stack of ...` |
//! | `vmalloc` | who allocated it | `vmalloc memory of bpf_map_area_alloc, +0x40` |

mod aliases;
mod bases;
mod details;
mod modules;
mod objects;
mod pointers;
mod reader;
mod recognise;
mod slab;
mod statics;
mod tables;
#[cfg(test)]
mod tests;
mod types;
mod users;
mod vmalloc;

use std::sync::Arc;

use anyhow::Result;

pub use aliases::Aliases;
use modules::Modules;
use pointers::{Around, Pointers};
use reader::{Reader, Soon};
use recognise::Recognised;
pub use slab::cannot_name_objects;
use slab::{Place, Slabs};
use statics::Areas;
use tables::Tables;
use types::Types;
use users::Users;
use vmalloc::Vmalloc;

use super::btf::Btf;
use super::layout::stack_size;
use super::offsets::KernelOffsets;
use super::stackscan::Memory;
use super::symbols::Symbols;
use super::sysroot::Sysroot;
use crate::event::LockKind;
use crate::ids::LockAddr;

/// Rounds of fetching for one batch: what is further away than that is not followed.
const MAX_ROUNDS: usize = 48;
/// Times that objects which were changing while they were read are read again.
const MAX_AGAIN: usize = 3;
/// Words fetched for one batch at most: what is not named by then is named by less.
const MAX_WORDS: usize = 1 << 19;

/// Where the direct map begins on an x86-64 kernel that does not show the variable that says so; `None` where the page tables do not tell.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn direct_map(btf: &Btf, memory: &mut dyn Memory) -> Result<Option<u64>> {
    let Some(fields) = bases::Fields::new(btf) else {
        return Ok(None);
    };
    let users = memory.users()?;
    Ok(fields.find(&users, memory)?.map(|bases| bases.direct))
}

/// A name and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// E.g. `inode.i_rwsem of inode 12 (ext4 on vda, 254:0)`.
    pub name: String,
    /// How it is known.
    pub source: String,
    /// What locks of the same kind have in common, e.g. `inode.i_rwsem`.
    pub class: String,
    /// It says what the lock is; if not, its call site says more.
    pub firm: bool,
    /// It lies in no object that may be freed, so the name stays.
    pub fixed: bool,
    /// What it lies in was changing while it was read.
    again: bool,
}

/// Class of what lies on the stack of a thread.
const ON_STACK: &str = "on a kernel stack";

impl Named {
    /// Whether a name found later says less: what it lay in is gone by then.
    #[must_use]
    pub fn says_less_than(&self, old: &Self) -> bool {
        if old.firm {
            !self.firm || (self.class == old.class && self.name == self.class)
        } else {
            // A stack without its thread is just memory.
            !self.firm && old.class == ON_STACK && self.class != ON_STACK
        }
    }
}

#[cfg(test)]
impl Named {
    /// For tests of what is done with names.
    pub fn of(name: &str, class: &str, firm: bool) -> Self {
        Self {
            name: name.to_owned(),
            source: "a test".to_owned(),
            class: class.to_owned(),
            firm,
            fixed: false,
            again: false,
        }
    }
}

/// What every batch needs.
pub struct LockNamer {
    symbols: Option<Arc<Symbols>>,
    btf: Option<Arc<Btf>>,
    offsets: KernelOffsets,
    aliases: Aliases,
    types: Types,
    recognised: Recognised,
    slabs: Slabs,
    areas: Areas,
    users: Users,
    modules: Modules,
    tables: Tables,
    pointers: Pointers,
    vmalloc: Vmalloc,
}

impl LockNamer {
    /// For one kernel with this many possible CPUs. `root`: where it shows the types of its modules. Without symbols or types there are fewer names.
    #[must_use]
    pub fn new(
        symbols: Option<Arc<Symbols>>,
        btf: Option<Arc<Btf>>,
        offsets: &KernelOffsets,
        aliases: Aliases,
        cpus: u32,
        root: Sysroot,
    ) -> Self {
        Self {
            modules: Modules::new(root),
            tables: Tables::default(),
            pointers: Pointers::new(symbols.as_deref()),
            vmalloc: Vmalloc::new(symbols.as_deref(), btf.as_deref()),
            areas: Areas::new(symbols.as_deref(), cpus),
            slabs: Slabs::new(symbols.as_deref(), btf.as_deref(), offsets),
            types: Types::default(),
            users: Users::new(stack_size(offsets)),
            recognised: Recognised::default(),
            symbols,
            btf,
            offsets: *offsets,
            aliases,
        }
    }

    /// Names a lock that is (part of) a variable of the kernel or a module, which takes no look at its memory.
    #[must_use]
    pub fn variable(&mut self, lock: LockAddr, kind: LockKind) -> Option<Named> {
        self.symbol(lock.0, kind)
    }

    /// Names many locks; `None` where nothing is known.
    ///
    /// # Errors
    /// When kernel memory cannot be read at all.
    pub fn name(&mut self, locks: &[(LockAddr, LockKind)], memory: &mut dyn Memory) -> Result<Vec<Option<Named>>> {
        let mut reader = Reader::default();
        self.areas.read(memory)?;
        self.tables.read(self.symbols.as_deref(), self.btf.as_deref(), memory)?;
        self.slabs.read(memory)?;
        let mut names = self.rounds(&mut reader, locks, memory)?;
        let (users, pointers) = (self.users.ask(memory)?, self.pointers.ask(memory)?);
        if users || pointers {
            // What was fetched before is still there, so this costs no more reads.
            names = self.rounds(&mut reader, locks, memory)?;
        }
        for _ in 0..MAX_AGAIN {
            let changing: Vec<usize> = (0..)
                .zip(&names)
                .filter(|(_, named)| named.as_ref().is_some_and(|named| named.again))
                .map(|(ix, _)| ix)
                .collect();
            let again: Vec<(LockAddr, LockKind)> = changing.iter().filter_map(|&ix| locks.get(ix).copied()).collect();
            if again.is_empty() {
                break;
            }
            let found = self.rounds(&mut Reader::default(), &again, memory)?;
            for (ix, found) in changing.into_iter().zip(found) {
                if let Some(named) = names.get_mut(ix) {
                    *named = found;
                }
            }
        }
        Ok(names)
    }

    fn rounds(
        &mut self,
        reader: &mut Reader,
        locks: &[(LockAddr, LockKind)],
        memory: &mut dyn Memory,
    ) -> Result<Vec<Option<Named>>> {
        let mut names: Vec<Option<Option<Named>>> = vec![None; locks.len()];
        for _ in 0..MAX_ROUNDS {
            for (name, &(lock, kind)) in names.iter_mut().zip(locks) {
                if name.is_none()
                    && let Ok(found) = self.describe(reader, lock.0, kind)
                {
                    *name = Some(found);
                }
            }
            if !reader.is_waiting() || reader.len() > MAX_WORDS {
                break;
            }
            reader.fetch(memory)?;
        }
        Ok(names.into_iter().map(Option::flatten).collect())
    }

    fn describe(&mut self, reader: &mut Reader, lock: u64, kind: LockKind) -> Soon<Option<Named>> {
        if let Some(named) = self.symbol(lock, kind) {
            return Ok(Some(named));
        }
        if let Some(named) = self.per_cpu(lock, kind) {
            return Ok(Some(named));
        }
        if let Some(named) = self.in_table(reader, lock, kind)? {
            return Ok(Some(named));
        }
        match self.slabs.place(reader, lock)? {
            Place::Object(object) => {
                let named = self.object(reader, &object, kind)?;
                if named.firm {
                    return Ok(Some(named));
                }
                let pointed = self.pointed_to(reader, Around::Object(&object), lock, kind)?;
                Ok(Some(pointed.unwrap_or(named)))
            }
            Place::Pages { first } => self.pointed_to(reader, Around::Pages(first), lock, kind),
            Place::Elsewhere => match self.stack_of(reader, lock)? {
                Some(thread) => Ok(Some(on_stack(&thread))),
                None => self.vmalloc.name(reader, self.symbols.as_deref(), lock),
            },
        }
    }
}

/// Whose stack it is does not say what it is.
fn on_stack(thread: &str) -> Named {
    Named {
        name: format!("on the stack of {thread}"),
        source: "address of a kernel stack".to_owned(),
        class: ON_STACK.to_owned(),
        firm: false,
        fixed: false,
        again: false,
    }
}
