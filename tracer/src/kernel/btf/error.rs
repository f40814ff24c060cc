//! What can be wrong with BTF, or with a question asked of it.

use std::{io, path::PathBuf};

/// A BTF file could not be read or understood.
#[derive(Debug, thiserror::Error)]
pub enum BtfLoadError {
    /// The file cannot be opened or read.
    #[error("cannot read the kernel's type information {path}: {source}; holdup needs a kernel built with CONFIG_DEBUG_INFO_BTF=y", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read but is not usable BTF.
    #[error("cannot use the kernel's type information {path}: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BtfError,
    },
}

/// Malformed BTF, or a question that this BTF cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Fewer bytes than a header.
    #[error("{len} bytes are too few for a BTF header")]
    TooShort {
        /// Bytes given.
        len: usize,
    },
    /// The magic number is byte-swapped.
    #[error("the BTF was made for a machine of the other byte order")]
    ForeignEndian,
    /// The magic number is not BTF's.
    #[error("magic number {found:#06x} is not BTF's 0xeb9f")]
    BadMagic {
        /// What stands there.
        found: u16,
    },
    /// A version that this reader does not know.
    #[error("BTF version {found} is not known (only 1 is)")]
    BadVersion {
        /// What stands there.
        found: u8,
    },
    /// A section of the header lies outside of the data.
    #[error("the header's {section} section (offset {offset}, length {len}) does not fit into {total} bytes")]
    BadSection {
        /// `type` or `string`, or `header` itself.
        section: &'static str,
        /// Offset after the header.
        offset: u32,
        /// Length in bytes.
        len: u32,
        /// Bytes given.
        total: usize,
    },
    /// The string section does not begin and end with a NUL byte.
    #[error("the string section does not begin and end with a NUL byte")]
    BadStrings,
    /// A record runs past the end of the type section.
    #[error("type {id} runs past the end of the type section")]
    Truncated {
        /// Its type id.
        id: u32,
    },
    /// A kind newer than this reader: its length is unknown, so nothing behind it can be read.
    #[error("type {id} is of unknown kind {kind}; this kernel's BTF is newer than this version of holdup")]
    UnknownKind {
        /// Its type id.
        id: u32,
        /// Kind number.
        kind: u8,
    },
    /// A name outside of the string section.
    #[error("type {id} has its name at {at}, outside of the string section")]
    BadName {
        /// Type id.
        id: u32,
        /// String offset.
        at: u32,
    },
    /// A reference to a type that does not exist.
    #[error("type id {id} does not exist")]
    BadTypeId {
        /// The id.
        id: u32,
    },
    /// A chain of types or a nesting of members without end (or far deeper than any kernel's).
    #[error("the types behind `{name}` are nested without end")]
    TooDeep {
        /// Where the walk started.
        name: String,
    },
    /// No struct or union of this name.
    #[error("this kernel has no `struct {name}`")]
    NoSuchStruct {
        /// The name.
        name: String,
    },
    /// The struct has no such member.
    #[error("this kernel's `struct {name}` has no member `{path}` (stopped at `{part}`)")]
    NoSuchMember {
        /// The struct.
        name: String,
        /// The whole path asked for.
        path: String,
        /// The part that was not found.
        part: String,
    },
    /// A part of the path before the last is a pointer, array or number.
    #[error("`{part}` in `{name}.{path}` is not an embedded struct")]
    NotAStruct {
        /// The struct.
        name: String,
        /// The whole path asked for.
        path: String,
        /// The part with something behind it.
        part: String,
    },
    /// Several types of this name disagree.
    #[error("this kernel has several different `struct {name}` and they disagree about `{path}`")]
    Ambiguous {
        /// The struct.
        name: String,
        /// The path asked for; empty for the size.
        path: String,
    },
}
