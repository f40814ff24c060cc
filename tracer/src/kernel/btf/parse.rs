//! The bytes: header, type records, strings.

use super::{Btf, BtfError};

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// name_off, info, size or type.
const RECORD: usize = 12;

/// Kinds of include/uapi/linux/btf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn from_info(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    pub(super) fn is_composite(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Whether the type is only another name or a qualifier for the type it refers to.
    pub(super) fn is_transparent(self) -> bool {
        matches!(
            self,
            Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag
        )
    }

    /// Bytes that follow the record.
    fn trailer(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => vlen * 12,
            Self::Enum | Self::FuncProto => vlen * 8,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

/// One type record, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type<'a> {
    pub(super) kind: Kind,
    pub(super) name: u32,
    /// Meaning depends on the kind; for structs: member offsets carry bit-field sizes; for enums: values are signed.
    pub(super) kflag: bool,
    pub(super) size_or_type: u32,
    trailer: &'a [u8],
}

/// One member of a struct or union.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) name: u32,
    pub(super) type_id: u32,
    /// From the start of the struct.
    pub(super) bit_offset: u32,
    /// Zero: not a bit field (or, in old encodings, one told by its integer type).
    pub(super) bit_size: u32,
}

impl<'a> Type<'a> {
    pub(super) fn members(self) -> impl Iterator<Item = Member> + 'a {
        let trailer = if self.kind.is_composite() { self.trailer } else { &[] };
        trailer.chunks_exact(12).map(move |m| {
            let offset = u32_at(m, 8).unwrap_or_default();
            let (bit_offset, bit_size) = if self.kflag {
                (offset & 0x00ff_ffff, offset >> 24)
            } else {
                (offset, 0)
            };
            Member {
                name: u32_at(m, 0).unwrap_or_default(),
                type_id: u32_at(m, 4).unwrap_or_default(),
                bit_offset,
                bit_size,
            }
        })
    }

    /// For an integer: (bit offset, bits) of the old bit-field encoding.
    pub(super) fn int_bits(self) -> Option<(u32, u32)> {
        let encoding = if self.kind == Kind::Int {
            u32_at(self.trailer, 0)?
        } else {
            return None;
        };
        Some(((encoding >> 16) & 0xff, encoding & 0xff))
    }

    /// For an array: (element type, number of elements).
    pub(super) fn array(self) -> Option<(u32, u32)> {
        if self.kind == Kind::Array {
            Some((u32_at(self.trailer, 0)?, u32_at(self.trailer, 8)?))
        } else {
            None
        }
    }

    /// For a section: (id of the variable, offset, size) of each of its variables.
    pub(super) fn variables(self) -> impl Iterator<Item = (u32, u32, u32)> + 'a {
        let trailer = if self.kind == Kind::Datasec { self.trailer } else { &[] };
        let word = |bytes, at| u32_at(bytes, at).unwrap_or_default();
        trailer
            .chunks_exact(12)
            .map(move |v| (word(v, 0), word(v, 4), word(v, 8)))
    }

    /// For an enum: its enumerators.
    pub(super) fn enumerators(self, btf: &'a Btf) -> impl Iterator<Item = (&'a [u8], i64)> {
        let (trailer, width) = match self.kind {
            Kind::Enum => (self.trailer, 8),
            Kind::Enum64 => (self.trailer, 12),
            _ => (&[][..], 8),
        };
        trailer.chunks_exact(width).map(move |e| {
            let low = u32_at(e, 4).unwrap_or_default();
            let value = match u32_at(e, 8) {
                Some(high) => (u64::from(high) << 32 | u64::from(low)).cast_signed(),
                None if self.kflag => i64::from(low.cast_signed()),
                None => i64::from(low),
            };
            (btf.string(u32_at(e, 0).unwrap_or_default()), value)
        })
    }
}

/// What comes before the types of a module: those of the kernel, whose numbering of types and of string offsets it continues.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// Number of types.
    pub(super) types: u32,
    /// Bytes of strings.
    pub(super) strings: u32,
}

/// Where everything lies in the bytes.
#[derive(Debug)]
pub(super) struct Layout {
    before: Before,
    /// Position in the bytes of type id 1, 2, ...
    positions: Vec<u32>,
    types_end: usize,
    strings: (usize, usize),
}

impl Layout {
    /// Checks the header and walks all type records once.
    pub(super) fn index(data: &[u8], before: Before) -> Result<Self, BtfError> {
        let too_short = BtfError::TooShort { len: data.len() };
        let header = data.get(..HEADER).ok_or(too_short)?;
        let word = |at| u32_at(header, at).unwrap_or_default();
        let magic = u16::from_ne_bytes([header[0], header[1]]);
        if magic == MAGIC.swap_bytes() {
            return Err(BtfError::ForeignEndian);
        }
        if magic != MAGIC {
            return Err(BtfError::BadMagic { found: magic });
        }
        if header[2] != 1 {
            return Err(BtfError::BadVersion { found: header[2] });
        }
        let header_len = word(4);
        if (header_len as usize) < HEADER {
            return Err(BtfError::BadSection {
                section: "header",
                offset: 0,
                len: header_len,
                total: data.len(),
            });
        }
        let section = |name, offset: u32, len: u32| {
            let start = header_len as usize + offset as usize;
            let end = start + len as usize;
            if end > data.len() || u32::try_from(end).is_err() {
                return Err(BtfError::BadSection {
                    section: name,
                    offset,
                    len,
                    total: data.len(),
                });
            }
            Ok((start, end))
        };
        let (types_start, types_end) = section("type", word(8), word(12))?;
        let strings = section("string", word(16), word(20))?;
        let text = data.get(strings.0..strings.1).unwrap_or_default();
        let whole = before.strings == 0;
        if (whole && text.first() != Some(&0)) || text.last().is_some_and(|&end| end != 0) {
            return Err(BtfError::BadStrings);
        }
        let mut layout = Self {
            before,
            positions: Vec::new(),
            types_end,
            strings,
        };
        let mut at = types_start;
        while at < types_end {
            // Both fit: the section's end was checked to be a u32, and a record is 12 bytes.
            let (id, position) = (before.types + layout.positions.len() as u32 + 1, at as u32);
            let (t, end) = layout.record(data, id, at)?;
            if t.name as usize >= before.strings as usize + text.len() {
                return Err(BtfError::BadName { id, at: t.name });
            }
            layout.positions.push(position);
            at = end;
        }
        Ok(layout)
    }

    pub(super) fn type_count(&self) -> usize {
        self.positions.len()
    }

    /// What comes before the types of a module.
    pub(super) fn end(&self) -> Before {
        Before {
            types: self.before.types + self.positions.len() as u32,
            strings: self.before.strings + (self.strings.1 - self.strings.0) as u32,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        let before = self.before.types;
        before + 1..=before + self.positions.len() as u32
    }

    /// The record of a type id. `void` (0) and ids out of range are errors.
    pub(super) fn type_at<'a>(&self, data: &'a [u8], id: u32) -> Result<Type<'a>, BtfError> {
        let place = id.checked_sub(self.before.types).and_then(|id| id.checked_sub(1));
        let position = place.and_then(|i| self.positions.get(i as usize));
        let position = *position.ok_or(BtfError::BadTypeId { id })?;
        Ok(self.record(data, id, position as usize)?.0)
    }

    /// The NUL-terminated name at an offset of the string section; empty when out of range.
    pub(super) fn string<'a>(&self, data: &'a [u8], at: u32) -> &'a [u8] {
        let at = at.wrapping_sub(self.before.strings);
        let from = data
            .get(self.strings.0..self.strings.1)
            .and_then(|s| s.get(at as usize..))
            .unwrap_or_default();
        from.split(|&b| b == 0).next().unwrap_or_default()
    }

    fn record<'a>(&self, data: &'a [u8], id: u32, at: usize) -> Result<(Type<'a>, usize), BtfError> {
        let truncated = || BtfError::Truncated { id };
        let types = data.get(..self.types_end).unwrap_or_default();
        let record = types.get(at..at + RECORD).ok_or_else(truncated)?;
        let word = |i| u32_at(record, i).unwrap_or_default();
        let info = word(4);
        let number = (info >> 24 & 0x1f) as u8;
        let kind = Kind::from_info(number).ok_or(BtfError::UnknownKind { id, kind: number })?;
        let end = at + RECORD + kind.trailer((info & 0xffff) as usize);
        let trailer = types.get(at + RECORD..end).ok_or_else(truncated)?;
        Ok((
            Type {
                kind,
                name: word(0),
                kflag: info >> 31 == 1,
                size_or_type: word(8),
                trailer,
            },
            end,
        ))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
