//! Mapped files: what unwinding needs of them, and names for places in them.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolizer};
use object::elf::PF_X;
use object::read::ReadCache;
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags};

use super::mappings::MappedFile;
use crate::event::{Inlined, Place, UserFunction};
use crate::kernel::lines;

/// Files remembered; beyond it all are opened again when needed.
const MAX_FILES: usize = 512;
/// Sections larger than this are left alone.
const MAX_SECTION: u64 = 256 << 20;

/// What is needed of a file. The sections are copies: a file may be cut short while it is in use.
#[derive(Debug)]
pub struct Binary {
    /// Build id, if it has one.
    pub build_id: Option<Arc<str>>,
    /// Parts of the file that are code, and the addresses at which the file says they belong.
    pub segments: Vec<(Range<u64>, u64)>,
    /// Frames of functions, with its addresses.
    pub eh_frame: Option<Section>,
    /// Index of the frames.
    pub eh_frame_hdr: Option<Section>,
}

/// Addresses, and what stands there.
pub type Section = (Range<u64>, Arc<[u8]>);

/// What is known of a place in a file.
#[derive(Debug, Default)]
pub struct Named {
    /// The function.
    pub function: Option<UserFunction>,
    /// Place in the source.
    pub place: Place,
    /// Inlined functions, outermost first.
    pub inlined: Vec<Inlined>,
}

/// All files in use.
pub struct Files {
    known: HashMap<Arc<MappedFile>, Option<Arc<Binary>>>,
    symbolizer: Symbolizer,
}

impl Files {
    /// Knows none yet.
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            symbolizer: symbolizer(),
        }
    }

    /// The file; `None` where there is no such file any more, it is another one by now, or no ELF file.
    pub fn binary(&mut self, file: &Arc<MappedFile>) -> Option<Arc<Binary>> {
        if self.known.len() >= MAX_FILES {
            self.known.clear();
            // It keeps what it has opened for ever.
            self.symbolizer = symbolizer();
        }
        let known = self.known.entry(Arc::clone(file));
        known.or_insert_with(|| open(file).map(Arc::new)).clone()
    }

    /// What stands at this offset of a file that [`Files::binary`] knows.
    pub fn name(&self, file: &MappedFile, offset: u64) -> Named {
        let source = Source::Elf(Elf::new(&*file.path));
        let found = self.symbolizer.symbolize_single(&source, Input::FileOffset(offset));
        let Some(symbol) = found.as_ref().ok().and_then(|found| found.as_sym()) else {
            return Named::default();
        };
        let (place, inlined) = lines::places(symbol);
        Named {
            function: Some(UserFunction {
                name: symbol.name.as_ref().into(),
                offset: symbol.offset as u64,
            }),
            place,
            inlined,
        }
    }
}

fn symbolizer() -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .build()
}

fn open(mapped: &MappedFile) -> Option<Binary> {
    let path = Path::new(&*mapped.path);
    // Opening what is no regular file could wait for somebody.
    let is_same = |meta: &std::fs::Metadata| {
        let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        meta.is_file() && (meta.ino(), device) == (mapped.inode, mapped.device)
    };
    std::fs::metadata(path).ok().filter(is_same)?;
    let file = File::open(path).ok()?;
    file.metadata().ok().filter(is_same)?;
    binary(file)
}

/// Reads what is needed; `None` if it is no ELF file.
pub(super) fn binary(file: File) -> Option<Binary> {
    // A cache, not a map: reading can fail in good order.
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    let section = |name: &str| {
        let section = elf
            .section_by_name(name)
            .filter(|section| section.size() <= MAX_SECTION)?;
        let data: Arc<[u8]> = section.data().ok()?.into();
        Some((
            section.address()..section.address().saturating_add(section.size()),
            data,
        ))
    };
    let id = elf.build_id().ok().flatten();
    let is_code = |segment: &object::Segment<'_, '_, _>| matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
    let segments = elf.segments().filter(is_code).map(|segment| {
        let (offset, size) = segment.file_range();
        (offset..offset.saturating_add(size), segment.address())
    });
    Some(Binary {
        build_id: id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()),
        segments: segments.collect(),
        eh_frame: section(".eh_frame"),
        eh_frame_hdr: section(".eh_frame_hdr"),
    })
}
