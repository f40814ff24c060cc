//! From an address of the direct map to the slab object around it.
//!
//! KERNEL: `virt_to_slab`, `nearest_obj` (mm/slab.h, include/linux/slub_def.h), 5.10 to 6.18, x86-64, where the bases of the
//! direct map and of the array of `struct page` are variables (arch/x86/kernel/head64.c); where these are not shown, [`super::bases`] finds
//! them. arm64 has them in its code.

use anyhow::Result;

use super::bases::{Bases, Fields};
use super::reader::{Reader, Soon};
use crate::kernel::btf::Btf;
use crate::kernel::offsets::KernelOffsets;
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::Symbols;

const PAGE: u64 = 4096;
/// Variables that hold the bases of the direct map and of the array of `struct page`.
const PAGE_OFFSET: &str = "page_offset_base";
const VMEMMAP: &str = "vmemmap_base";
/// Bytes of a cache's name that are read.
const NAME_MAX: usize = 64;
/// Largest object that a slab cache can have: far more than KMALLOC_MAX_CACHE_SIZE (mm/slab.h).
const MAX_OBJECT: u32 = 1 << 20;

/// How a page says that it belongs to a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// A bit of its flags (up to 6.9).
    Flag(u32),
    /// Its type (6.12 and newer).
    Type(u32),
}

/// An object of a slab cache, and a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it begins.
    pub address: u64,
    /// Bytes into it.
    pub offset: u32,
    /// Its cache.
    pub cache: Cache,
}

/// What lies around an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A slab object.
    Object(Object),
    /// Whole pages of the direct map, which begin here.
    Pages {
        /// Address of the first byte.
        first: u64,
    },
    /// Not the direct map, or not known.
    Elsewhere,
}

/// A slab cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its name.
    pub name: String,
    /// Size that was asked for.
    pub object_size: u32,
    /// Other caches were merged into it.
    pub merged: bool,
}

/// What it takes to find objects.
#[derive(Debug, Default)]
pub struct Slabs(Option<Known>);

/// Where the bases are.
#[derive(Debug)]
enum Origin {
    /// In variables with these addresses.
    Variables {
        page_offset: u64,
        vmemmap: u64,
    },
    /// To be found.
    Hidden(Fields),
    Found(Bases),
    /// Not found.
    Nowhere,
}

#[derive(Debug)]
struct Known {
    origin: Origin,
    /// Of the variable that holds the end of the direct map's room.
    vmalloc: Option<u64>,
    page_size: u64,
    mark: Mark,
    head: u32,
    flags: u32,
    page_type: u32,
    slab_cache: u32,
    name: u32,
    size: u32,
    object_size: u32,
    refcount: u32,
    red_left_pad: Option<u32>,
}

impl Slabs {
    /// For one kernel; finds nothing where a symbol or a field is missing.
    #[must_use]
    pub fn new(symbols: Option<&Symbols>, btf: Option<&Btf>, o: &KernelOffsets) -> Self {
        let variable = |name| Some(symbols?.find(name).find(|s| !s.is_code())?.address.0);
        Self((|| {
            Some(Known {
                origin: match (variable(PAGE_OFFSET), variable(VMEMMAP)) {
                    (Some(page_offset), Some(vmemmap)) => Origin::Variables { page_offset, vmemmap },
                    _ => Origin::Hidden(hidden(btf?)?),
                },
                vmalloc: variable("vmalloc_base"),
                page_size: o.sizes.page.filter(|&size| size > 0)?.into(),
                mark: mark(btf?)?,
                head: o.page.compound_head?,
                flags: o.page.flags?,
                page_type: o.page.page_type?,
                slab_cache: o.page.slab_cache?,
                name: o.cache.name?,
                size: o.cache.size?,
                object_size: o.cache.object_size?,
                refcount: o.cache.refcount?,
                red_left_pad: o.cache.red_left_pad,
            })
        })())
    }

    /// Finds out, once, where the direct map begins, unless variables say so.
    ///
    /// # Errors
    /// As for [`Memory::read`].
    pub fn read(&mut self, memory: &mut dyn Memory) -> Result<()> {
        if let Some(known) = &mut self.0
            && let Origin::Hidden(fields) = known.origin
        {
            let users = memory.users()?;
            known.origin = fields.find(&users, memory)?.map_or(Origin::Nowhere, Origin::Found);
        }
        Ok(())
    }

    /// What lies around an address.
    pub fn place(&self, reader: &mut Reader, addr: u64) -> Soon<Place> {
        let Some(known) = &self.0 else {
            return Ok(Place::Elsewhere);
        };
        known.place(reader, addr)
    }
}

/// Why no object can be named on this kernel, if so; missing fields are told elsewhere, by name.
#[must_use]
pub fn cannot_name_objects(symbols: &Symbols, btf: &Btf) -> Option<&'static str> {
    let has = |name| symbols.find(name).any(|symbol| !symbol.is_code());
    if (!has(PAGE_OFFSET) || !has(VMEMMAP)) && hidden(btf).is_none() {
        Some(
            "the variables page_offset_base and vmemmap_base are not in /proc/kallsyms, and nothing tells what is in them",
        )
    } else if mark(btf).is_none() {
        Some("the kernel's types do not tell how a page belongs to a slab")
    } else {
        None
    }
}

impl Known {
    fn place(&self, reader: &mut Reader, addr: u64) -> Soon<Place> {
        let end = self.vmalloc.map(|at| reader.word(at)).transpose();
        let bases = match self.origin {
            Origin::Variables { page_offset, vmemmap } => {
                let (direct, pages) = (reader.word(page_offset), reader.word(vmemmap));
                direct?.zip(pages?).map(|(direct, pages)| Bases { direct, pages })
            }
            Origin::Found(bases) => Some(bases),
            Origin::Hidden(_) | Origin::Nowhere => None,
        };
        let Some(Bases { direct, pages }) = bases else {
            return Ok(Place::Elsewhere);
        };
        // Where the direct map ends is not known without its variable: what lies behind it has no `struct page`.
        let end = end?.flatten().unwrap_or(pages);
        if !(direct..end).contains(&addr) {
            return Ok(Place::Elsewhere);
        }
        let page = pages.wrapping_add((addr - direct) / PAGE * self.page_size);
        let Some(head) = reader.word(page.wrapping_add(self.head.into()))? else {
            return Ok(Place::Elsewhere);
        };
        let page = if head & 1 == 1 { head - 1 } else { page };
        let (flags, page_type, cache) = (
            reader.word(page.wrapping_add(self.flags.into())),
            reader.half(page.wrapping_add(self.page_type.into())),
            reader.word(page.wrapping_add(self.slab_cache.into())),
        );
        let (Some(flags), Some(page_type), Some(cache)) = (flags?, page_type?, cache?) else {
            return Ok(Place::Elsewhere);
        };
        let is_slab = match self.mark {
            Mark::Flag(bit) => flags >> bit & 1 == 1,
            Mark::Type(code) => page_type >> 24 == code,
        };
        if page < pages {
            return Ok(Place::Elsewhere);
        }
        let first = direct.wrapping_add((page - pages) / self.page_size * PAGE);
        if !is_slab {
            return Ok(Place::Pages { first });
        }
        Ok(self
            .within(reader, addr, first, cache)?
            .map_or(Place::Elsewhere, Place::Object))
    }

    fn within(&self, reader: &mut Reader, addr: u64, slab: u64, cache: u64) -> Soon<Option<Object>> {
        let at = |offset: u32| cache.wrapping_add(offset.into());
        let (name, size, object_size, refcount) = (
            reader.word(at(self.name)),
            reader.half(at(self.size)),
            reader.half(at(self.object_size)),
            reader.half(at(self.refcount)),
        );
        let pad = self.red_left_pad.map(|offset| reader.half(at(offset))).transpose();
        let (Some(name), Some(size), Some(object_size), Some(refcount)) = (name?, size?, object_size?, refcount?)
        else {
            return Ok(None);
        };
        let pad = pad?.flatten().unwrap_or(0);
        let Some(name) = reader.text(name, NAME_MAX)? else {
            return Ok(None);
        };
        if size == 0 || size > MAX_OBJECT || object_size > size || addr < slab {
            return Ok(None);
        }
        let distance = addr - slab;
        let within = distance % u64::from(size);
        let Some(offset) = within.checked_sub(pad.into()).filter(|&o| o < object_size.into()) else {
            return Ok(None);
        };
        Ok(Some(Object {
            address: addr - offset,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            cache: Cache {
                name,
                object_size,
                merged: refcount.cast_signed() > 1,
            },
        }))
    }
}

/// How the bases are found where no variable says them; x86-64 only.
fn hidden(btf: &Btf) -> Option<Fields> {
    cfg!(target_arch = "x86_64").then(|| Fields::new(btf)).flatten()
}

/// KERNEL: `enum pagetype` (include/linux/page-flags.h) since 6.12, `enum pageflags` up to 6.9. In between the type was coded in
/// single bits, which is not known here.
fn mark(btf: &Btf) -> Option<Mark> {
    if let Some(code) = btf.enumerator("PGTY_slab") {
        return u32::try_from(code).ok().map(Mark::Type);
    }
    btf.enumerator("PG_slab")
        .and_then(|bit| u32::try_from(bit).ok())
        .filter(|&bit| bit < 64)
        .map(Mark::Flag)
}
