//! A small reader of BTF, the kernel's own type information (`/sys/kernel/btf/vmlinux`).
//!
//! BPF programs written in Rust get no CO-RE relocations, so user space looks the offsets up and hands them over before
//! load. This needs struct members, and nothing more, from a 5 MB file, at every start: the types are indexed in one pass
//! (type id -> position) and read in place afterwards; names are indexed when the first one is asked for.
//!
//! Why not a crate: `btf-rs`, the well-kept one, is LGPL, which a statically linked MIT/Apache binary cannot simply
//! take on; `btf` decodes every type eagerly into owned values and has not kept up with the format. aya's parser keeps
//! struct members to itself.
//!
//! The input is not trusted: every access is bounds-checked, chains and nesting have limits, and no input can cause a
//! panic or unbounded work. Format: Documentation/bpf/btf.rst (6.12). Only the machine's own byte order is read.

mod error;
mod members;
mod parse;
mod paths;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

pub use error::{BtfError, BtfLoadError};
pub use members::{BitRange, MemberOffset};
pub use paths::{MemberPath, PerCpuPlace, Step};

use super::name_index::NameIndex;
use parse::{Before, Kind, Layout, Type};

/// Where kernels built with `CONFIG_DEBUG_INFO_BTF` show their types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The types of one kernel.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    layout: Layout,
    names: OnceLock<NameIndex>,
    /// The kernel's own types, for those of a module.
    base: Option<Arc<Self>>,
}

impl Btf {
    /// Reads and indexes a BTF file.
    ///
    /// # Errors
    /// The file cannot be read, or is not BTF that this reader understands.
    pub fn load(path: &Path) -> Result<Self, BtfLoadError> {
        let data = fs::read(path).map_err(|source| BtfLoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(data).map_err(|source| BtfLoadError::Parse {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads and indexes the types of a module, which refer to the kernel's.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_module(path: &Path, base: &Arc<Self>) -> Result<Self, BtfLoadError> {
        let data = fs::read(path).map_err(|source| BtfLoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse_module(data, base).map_err(|source| BtfLoadError::Parse {
            path: path.to_owned(),
            source,
        })
    }

    /// Indexes the bytes of a module's types.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn parse_module(data: Vec<u8>, base: &Arc<Self>) -> Result<Self, BtfError> {
        let layout = Layout::index(&data, base.layout.end())?;
        Ok(Self {
            data,
            layout,
            names: OnceLock::new(),
            base: Some(Arc::clone(base)),
        })
    }

    /// Indexes BTF bytes.
    ///
    /// # Errors
    /// The header or a type record is malformed, of an unknown kind, or of the other byte order.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let layout = Layout::index(&data, Before::default())?;
        Ok(Self {
            data,
            layout,
            names: OnceLock::new(),
            base: None,
        })
    }

    /// Where `path` (members joined by dots, anonymous ones left out) lies in `struct name` or `union name`.
    ///
    /// # Errors
    /// There is no such type or member; a step of the path is not an embedded struct; or several types of this name
    /// have that member at different places.
    pub fn member_offset(&self, name: &str, path: &str) -> Result<MemberOffset, BtfError> {
        Ok(members::lookup(self, name, path)?.0)
    }

    /// Name of the struct or union that a pointer member points to; `None` where the member is no such pointer.
    ///
    /// # Errors
    /// As for [`Self::member_offset`].
    pub fn pointee<'a>(&'a self, name: &'a str, path: &str) -> Result<Option<&'a str>, BtfError> {
        members::pointee(self, name, path)
    }

    /// Size in bytes of `struct name` or `union name`.
    ///
    /// # Errors
    /// There is no such type, or several of different sizes.
    pub fn struct_size(&self, name: &str) -> Result<u32, BtfError> {
        let mut sizes = self
            .named(name)
            .filter(|t| t.kind.is_composite())
            .map(|t| t.size_or_type);
        let first = sizes
            .next()
            .ok_or_else(|| BtfError::NoSuchStruct { name: name.to_owned() })?;
        if sizes.any(|s| s != first) {
            return Err(BtfError::Ambiguous {
                name: name.to_owned(),
                path: String::new(),
            });
        }
        Ok(first)
    }

    /// Whether a full definition of `struct name` or `union name` exists.
    pub fn has_struct(&self, name: &str) -> bool {
        self.named(name).any(|t| t.kind.is_composite())
    }

    /// Whether the function has type information. This alone does not prove that a probe can attach: the symbol may
    /// carry a compiler suffix (see [`crate::kernel::symbols`]).
    pub fn has_func(&self, name: &str) -> bool {
        self.named(name).any(|t| t.kind == Kind::Func)
    }

    /// Whether a typedef of this name exists.
    pub fn has_typedef(&self, name: &str) -> bool {
        self.named(name).any(|t| t.kind == Kind::Typedef)
    }

    /// Whether the kernel has this tracepoint: each leaves a typedef `btf_trace_<name>` for BPF to attach to
    /// (include/trace/bpf_probe.h).
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.has_typedef(&format!("btf_trace_{name}"))
    }

    /// The value of an enumerator, in whatever enum it stands; `None` where it is unknown or has several values.
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        let mut values = self
            .types()
            .flat_map(|t| t.enumerators(self))
            .filter(|(n, _)| *n == name.as_bytes());
        let (_, first) = values.next()?;
        values.all(|(_, value)| value == first).then_some(first)
    }

    /// Names of all functions with type information, in file order. Names that are not UTF-8 are left out.
    pub fn funcs(&self) -> impl Iterator<Item = &str> {
        self.types()
            .filter(|t| t.kind == Kind::Func)
            .filter_map(|t| str::from_utf8(self.string(t.name)).ok())
    }

    /// Number of types, without `void`.
    pub fn type_count(&self) -> usize {
        self.layout.type_count()
    }

    fn types(&self) -> impl Iterator<Item = Type<'_>> {
        self.layout
            .ids()
            .filter_map(|id| self.layout.type_at(&self.data, id).ok())
    }

    /// The record of a type id, which may be one of the kernel's own.
    fn type_at(&self, id: u32) -> Result<Type<'_>, BtfError> {
        match &self.base {
            Some(base) if id <= base.layout.end().types => base.type_at(id),
            _ => self.layout.type_at(&self.data, id),
        }
    }

    /// Types of this name: its own, then those of the kernel.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type<'a>> {
        let base = self
            .base
            .as_deref()
            .into_iter()
            .flat_map(move |base| base.own_named(name));
        self.own_named(name).chain(base)
    }

    fn own_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type<'a>> {
        let index = self.names.get_or_init(|| {
            NameIndex::build(self.layout.ids().filter_map(|id| {
                let t = self.layout.type_at(&self.data, id).ok()?;
                let name = self.string(t.name);
                (!name.is_empty()).then_some((name, id))
            }))
        });
        index
            .candidates(name.as_bytes())
            .filter_map(|id| self.layout.type_at(&self.data, id).ok())
            .filter(|t| self.string(t.name) == name.as_bytes())
    }

    fn string(&self, at: u32) -> &[u8] {
        match &self.base {
            Some(base) if at < base.layout.end().strings => base.string(at),
            _ => self.layout.string(&self.data, at),
        }
    }
}
