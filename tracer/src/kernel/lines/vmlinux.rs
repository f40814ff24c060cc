//! The file with the kernel's debug information, and how its addresses relate to those of the running kernel.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use object::{Object, ObjectSymbol};
use thiserror::Error;

use crate::ids::KernelAddr;
use crate::kernel::symbols::Symbols;
use crate::kernel::sysroot::Sysroot;

/// Where distributions put it; `{}` is the kernel's release.
const PLACES: [&str; 5] = [
    "/usr/lib/debug/boot/vmlinux-{}",
    "/usr/lib/debug/lib/modules/{}/vmlinux",
    "/boot/vmlinux-{}",
    "/lib/modules/{}/build/vmlinux",
    "/lib/modules/{}/vmlinux",
];
/// Build ids of the running kernel, as ELF notes.
const NOTES: &str = "/sys/kernel/notes";
/// A symbol that every kernel has, in its file and in kallsyms.
const ANCHOR: &str = "_stext";
/// `NT_GNU_BUILD_ID` (include/uapi/linux/elf.h).
const BUILD_ID: u32 = 3;

/// Why file and line cannot be shown.
#[derive(Debug, Error)]
pub enum VmlinuxError {
    /// Nothing at the usual places.
    #[error("no vmlinux of kernel {release} at {}: install its debug package or name the file", .places.join(", "))]
    NotFound {
        /// The running kernel.
        release: String,
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// It cannot be read.
    #[error("reading {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no ELF file.
    #[error("{} is no ELF file: {error}", .path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// Why.
        error: object::Error,
    },
    /// It belongs to another kernel.
    #[error("{} has build id {found}, the running kernel {running}: it is another kernel's", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Its build id.
        found: String,
        /// That of the running kernel.
        running: String,
    },
    /// It has no debug information.
    #[error("{} has no debug information (section .debug_info)", .path.display())]
    Stripped {
        /// The file.
        path: PathBuf,
    },
    /// The symbol that relates its addresses to the running kernel's is missing.
    #[error("{ANCHOR} is not in {place}: addresses cannot be related")]
    NoAnchor {
        /// Where it is missing.
        place: String,
    },
    /// No thread could be started.
    #[error("starting a thread: {0}")]
    Thread(io::Error),
}

/// A vmlinux of the running kernel.
#[derive(Debug)]
pub struct Vmlinux {
    path: PathBuf,
    /// What is added to its addresses to get the running kernel's (KASLR).
    slide: u64,
}

impl Vmlinux {
    /// Opens and checks it.
    ///
    /// # Errors
    /// See [`VmlinuxError`].
    pub fn open(path: Option<&Path>, release: &str, symbols: &Symbols, root: &Sysroot) -> Result<Self, VmlinuxError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => found(release, root)?,
        };
        let file = File::open(&path).map_err(|error| VmlinuxError::Read {
            path: path.clone(),
            error,
        })?;
        // A cache, not a map: only a few parts of a large file are of interest, and reading can fail in good order.
        let cache = ReadCache::new(file);
        let bad = |error| VmlinuxError::Elf {
            path: path.clone(),
            error,
        };
        let elf = object::File::parse(&cache).map_err(bad)?;
        let found = hex(elf.build_id().map_err(bad)?.unwrap_or_default());
        let running = hex(&build_id(&std::fs::read(root.path(NOTES)).unwrap_or_default()).unwrap_or_default());
        if found != running || found.is_empty() {
            let shown = |id: String| if id.is_empty() { "none".to_owned() } else { id };
            return Err(VmlinuxError::Other {
                path,
                found: shown(found),
                running: shown(running),
            });
        }
        if elf.section_by_name(".debug_info").is_none() {
            return Err(VmlinuxError::Stripped { path });
        }
        let mut anchors = elf.symbols().filter(|symbol| symbol.name() == Ok(ANCHOR));
        let in_file = anchors.next().map(|symbol| symbol.address());
        let in_file = in_file.ok_or_else(|| no_anchor(&path.display().to_string()))?;
        let running = symbols.find(ANCHOR).next().map(|symbol| symbol.address.0);
        let running = running.ok_or_else(no_symbols)?;
        Ok(Self {
            slide: running.wrapping_sub(in_file),
            path,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address in the file of an address of the running kernel.
    #[must_use]
    pub fn address(&self, addr: KernelAddr) -> Option<u64> {
        Some(addr.0.wrapping_sub(self.slide)).filter(|&addr| addr != 0)
    }
}

/// Without the kernel's own symbols there is nothing to compare with.
pub(super) fn no_symbols() -> VmlinuxError {
    no_anchor("/proc/kallsyms")
}

fn no_anchor(place: &str) -> VmlinuxError {
    VmlinuxError::NoAnchor {
        place: place.to_owned(),
    }
}

fn found(release: &str, root: &Sysroot) -> Result<PathBuf, VmlinuxError> {
    let places: Vec<String> = PLACES.iter().map(|place| place.replace("{}", release)).collect();
    let paths = places.iter().map(|place| root.path(place));
    paths
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| VmlinuxError::NotFound {
            release: release.to_owned(),
            places: places.clone(),
        })
}

/// The build id among ELF notes: each is three 32-bit numbers (length of the name, of the content, kind), the name and the
/// content, both padded to four bytes.
pub(super) fn build_id(notes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = notes;
    loop {
        let number = |at: usize| {
            let bytes = rest.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        let (name_len, len, kind) = (number(0)? as usize, number(4)? as usize, number(8)?);
        let content_at = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let name = rest.get(12..12usize.checked_add(name_len)?)?;
        let content = rest.get(content_at..content_at.checked_add(len)?)?;
        if kind == BUILD_ID && name == b"GNU\0" {
            return Some(content.to_vec());
        }
        rest = rest.get(content_at.checked_add(len.checked_next_multiple_of(4)?)?..)?;
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
