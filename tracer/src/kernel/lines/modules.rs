//! File and line in modules, from their files with debug information.
//!
//! A module's file is relocatable: every section begins at 0, and debug information refers to places in sections. Where the running
//! kernel has put them, `/sys/module/NAME/sections` says; with that, addresses in the debug information become the kernel's own.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianArcSlice, LittleEndian, SectionId};
use object::elf::SHF_ALLOC;
use object::{
    CompressionFormat, Object, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget, SectionFlags,
    SectionIndex,
};

use super::unpack;
use super::vmlinux::{build_id, hex};
use crate::event::{CodeLine, Inlined, Place};
use crate::ids::KernelAddr;
use crate::kernel::sysroot::Sysroot;

/// A section is not unpacked beyond this size.
const MAX_SECTION: u64 = 1 << 30;
/// Where debug packages put the files of `/lib/modules`, by distribution.
const DEBUG_DIRS: [&str; 2] = ["/usr/lib/debug", "/usr/lib/debug/usr"];

type Bytes = EndianArcSlice<LittleEndian>;

/// The modules asked about so far.
pub struct Modules {
    release: String,
    root: Sysroot,
    dir: Option<PathBuf>,
    known: HashMap<Arc<str>, Option<Context<Bytes>>>,
}

impl Modules {
    /// Of a kernel of this release. `dir`: where to look first.
    pub fn new(release: &str, dir: Option<&Path>, root: &Sysroot) -> Self {
        Self {
            release: release.to_owned(),
            root: root.clone(),
            dir: dir.map(Path::to_owned),
            known: HashMap::new(),
        }
    }

    /// The line of the call before an address, as it stands in a stack.
    pub fn line(&mut self, module: &Arc<str>, addr: KernelAddr) -> Option<CodeLine> {
        if !self.known.contains_key(module) {
            let context = self.open(module);
            self.known.insert(Arc::clone(module), context);
        }
        let context = self.known.get(module)?.as_ref()?;
        let mut frames = context.find_frames(addr.0.checked_sub(1)?).skip_all_loads().ok()?;
        // Innermost first; the last one is the function itself, the others were put into it.
        let mut found: Vec<Inlined> = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
            let place = frame.location.map(|location| Place {
                file: location.file.map(Into::into),
                line: location.line,
            });
            found.push(Inlined {
                name: name.as_deref().unwrap_or("?").into(),
                place: place.unwrap_or_default(),
            });
        }
        let own = found.pop()?;
        found.reverse();
        Some(CodeLine {
            addr,
            place: own.place,
            inlined: found,
        })
    }

    /// The debug information of a module, if there is a file of this very module that has it.
    fn open(&self, module: &str) -> Option<Context<Bytes>> {
        let sys = format!("/sys/module/{module}");
        let notes = std::fs::read(self.root.path(&format!("{sys}/notes/.note.gnu.build-id"))).ok()?;
        let running = hex(&build_id(&notes)?);
        self.files(module)
            .into_iter()
            .find_map(|path| self.context(&path, &running, &sys))
    }

    /// Where its file may be.
    fn files(&self, module: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if let Some(dir) = &self.dir {
            files.extend(unpack::names(&dir.join(module), &["ko", "ko.debug"]));
        }
        let modules = format!("/lib/modules/{}", self.release);
        let known = self.root.text(&format!("{modules}/modules.dep")).unwrap_or_default();
        let place = known.lines().filter_map(|line| line.split(':').next()).find(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.split(".ko").next().unwrap_or_default().replace('-', "_") == module
        });
        if let Some(place) = place {
            let (plain, _) = place.split_once(".ko").unwrap_or((place, ""));
            for debug in DEBUG_DIRS {
                let plain = self.root.path(&format!("{debug}{modules}/{plain}"));
                files.extend(unpack::names(&plain, &["ko", "ko.debug"]));
            }
            files.extend(unpack::names(&self.root.path(&format!("{modules}/{plain}")), &["ko"]));
        }
        files
    }

    fn context(&self, path: &Path, running: &str, sys: &str) -> Option<Context<Bytes>> {
        let data = unpack::read(path)?;
        let elf = object::File::parse(&*data).ok()?;
        if hex(elf.build_id().ok()??) != running {
            return None;
        }
        elf.section_by_name(".debug_info")?;
        let base = |index: SectionIndex| -> Option<u64> {
            let section = elf.section_by_index(index).ok()?;
            let is_loaded =
                matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_ALLOC) != 0);
            if !is_loaded {
                return Some(0);
            }
            // What was dropped after the start of the module is in no directory: its addresses mean nothing.
            let text = self
                .root
                .text(&format!("{sys}/sections/{}", section.name().ok()?))
                .ok()?;
            u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)
                .ok()
                .filter(|&at| at != 0)
        };
        let mut bases: HashMap<SectionIndex, Option<u64>> = HashMap::new();
        let mut base = |index| *bases.entry(index).or_insert_with(|| base(index));
        let load = |id: SectionId| -> Result<Bytes, addr2line::gimli::Error> {
            let bytes = section(&elf, id.name(), &mut base).unwrap_or_default();
            Ok(EndianArcSlice::new(bytes.into(), LittleEndian))
        };
        Context::from_dwarf(Dwarf::load(load).ok()?).ok()
    }
}

/// The content of a section, with the addresses filled in that it refers to; what lies in a section without a place becomes 0.
fn section(elf: &object::File<'_>, name: &str, base: &mut impl FnMut(SectionIndex) -> Option<u64>) -> Option<Vec<u8>> {
    let section = elf.section_by_name(name)?;
    let stored = section.compressed_data().ok()?;
    let size = stored.uncompressed_size;
    if size > MAX_SECTION {
        return None;
    }
    let mut bytes = Vec::new();
    match stored.format {
        CompressionFormat::None => bytes.extend_from_slice(stored.data),
        CompressionFormat::Zlib => {
            let unpacked = flate2::read::ZlibDecoder::new(stored.data)
                .take(size)
                .read_to_end(&mut bytes);
            unpacked.ok()?;
        }
        CompressionFormat::Zstandard => {
            let unpacked = zstd::Decoder::new(stored.data).ok()?.take(size).read_to_end(&mut bytes);
            unpacked.ok()?;
        }
        _ => return None,
    }
    for (at, relocation) in section.relocations() {
        if relocation.kind() != RelocationKind::Absolute {
            continue;
        }
        let target = match relocation.target() {
            RelocationTarget::Symbol(symbol) => elf.symbol_by_index(symbol).ok().and_then(|symbol| {
                let start = symbol.section_index().map_or(Some(0), &mut *base)?;
                Some(start.wrapping_add(symbol.address()))
            }),
            RelocationTarget::Section(section) => base(section),
            _ => Some(0),
        };
        let value = target.map_or(0, |target| target.wrapping_add_signed(relocation.addend()));
        let width = usize::from(relocation.size() / 8).min(8);
        let place = usize::try_from(at)
            .ok()
            .and_then(|at| bytes.get_mut(at..at.checked_add(width)?));
        if let Some((place, value)) = place.zip(value.to_le_bytes().get(..width)) {
            place.copy_from_slice(value);
        }
    }
    Some(bytes)
}
