//! From a path of member names to an offset.

use super::{
    Btf, BtfError,
    parse::{Kind, Member, Type},
};

/// The kernel's own limit on chains of typedefs and qualifiers (MAX_RESOLVE_DEPTH, kernel/bpf/btf.c).
const MAX_DEPTH: u32 = 32;
/// Members looked at for one path. The largest real search (all of task_struct and what it embeds anonymously) needs a
/// few hundred; the limit keeps hostile input, where nesting may fan out, from running for ever.
const MAX_STEPS: u32 = 1 << 20;

/// Where a member lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberOffset {
    /// Bytes from the start of the outer struct; for a bit field, of the byte in which it starts.
    pub bytes: u32,
    /// Size of the member in bytes: of a bit field, of the bytes it touches. Zero where the type has none (a flexible
    /// array).
    pub size: u32,
    /// Set for bit fields.
    pub bits: Option<BitRange>,
}

/// The bits of a bit field, counted from the least significant bit at [`MemberOffset::bytes`] (on little-endian
/// machines; big-endian ones count from the most significant).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitRange {
    /// First bit, 0 to 7.
    pub shift: u8,
    /// Number of bits.
    pub width: u8,
}

/// A member and its type without typedefs and qualifiers; `None` is `void`.
type Found<'a> = (MemberOffset, Option<Type<'a>>);

/// Finds a member in every struct of the name; they must agree where it is.
pub(super) fn lookup<'a>(btf: &'a Btf, name: &'a str, path: &str) -> Result<Found<'a>, BtfError> {
    let mut steps = MAX_STEPS;
    let mut found: Option<Found<'a>> = None;
    let mut failed = None;
    for outer in btf.named(name).filter(|t| t.kind.is_composite()) {
        match walk(btf, outer, name, path, &mut steps) {
            Ok((offset, _)) if found.is_some_and(|(first, _)| first != offset) => {
                return Err(BtfError::Ambiguous {
                    name: name.to_owned(),
                    path: path.to_owned(),
                });
            }
            Ok(member) => found = Some(found.unwrap_or(member)),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    found.ok_or_else(|| failed.unwrap_or_else(|| BtfError::NoSuchStruct { name: name.to_owned() }))
}

pub(super) fn pointee<'a>(btf: &'a Btf, name: &'a str, path: &str) -> Result<Option<&'a str>, BtfError> {
    let (_, member) = lookup(btf, name, path)?;
    let Some(pointer) = member.filter(|t| t.kind == Kind::Ptr) else {
        return Ok(None);
    };
    let target = resolve(btf, pointer.size_or_type, name)?.filter(|t| t.kind.is_composite() || t.kind == Kind::Fwd);
    Ok(target
        .and_then(|t| str::from_utf8(btf.string(t.name)).ok())
        .filter(|n| !n.is_empty()))
}

fn walk<'a>(btf: &'a Btf, outer: Type<'a>, name: &str, path: &str, steps: &mut u32) -> Result<Found<'a>, BtfError> {
    let mut composite = Some(outer);
    let mut base_bits = 0u64;
    let mut before = name;
    let mut result = None;
    for part in path.split('.') {
        let Some(here) = composite else {
            return Err(BtfError::NotAStruct {
                name: name.to_owned(),
                path: path.to_owned(),
                part: before.to_owned(),
            });
        };
        let mut search = Search {
            btf,
            part: part.as_bytes(),
            outer: name,
            steps,
        };
        let Some((bits, member)) = search.find(here, 0)? else {
            return Err(BtfError::NoSuchMember {
                name: name.to_owned(),
                path: path.to_owned(),
                part: part.to_owned(),
            });
        };
        base_bits += bits;
        let inner = resolve(btf, member.type_id, name)?;
        result = Some((place(btf, base_bits, member, inner, name)?, inner));
        composite = inner.filter(|t| t.kind.is_composite());
        before = part;
    }
    // split() always yields at least one part.
    result.ok_or_else(|| BtfError::NoSuchStruct { name: name.to_owned() })
}

/// A search for one name in a struct and in what it embeds without a name.
struct Search<'a> {
    btf: &'a Btf,
    part: &'a [u8],
    outer: &'a str,
    steps: &'a mut u32,
}

impl Search<'_> {
    fn find(&mut self, composite: Type<'_>, depth: u32) -> Result<Option<(u64, Member)>, BtfError> {
        for member in composite.members() {
            *self.steps = self.steps.checked_sub(1).ok_or_else(|| self.too_deep())?;
            let name = self.btf.string(member.name);
            if name == self.part && !name.is_empty() {
                return Ok(Some((u64::from(member.bit_offset), member)));
            }
            if !name.is_empty() {
                continue;
            }
            if depth == MAX_DEPTH {
                return Err(self.too_deep());
            }
            // An anonymous bit field (padding) is an integer: nothing inside.
            let Some(inner) = resolve(self.btf, member.type_id, self.outer)?.filter(|t| t.kind.is_composite()) else {
                continue;
            };
            if let Some((bits, found)) = self.find(inner, depth + 1)? {
                return Ok(Some((u64::from(member.bit_offset) + bits, found)));
            }
        }
        Ok(None)
    }

    fn too_deep(&self) -> BtfError {
        BtfError::TooDeep {
            name: self.outer.to_owned(),
        }
    }
}

fn place(
    btf: &Btf,
    base_bits: u64,
    member: Member,
    inner: Option<Type<'_>>,
    outer: &str,
) -> Result<MemberOffset, BtfError> {
    let size = byte_size(btf, inner, outer)?;
    // Two encodings: with kflag the size stands in the member; without, in the integer type (kernels before 4.20 only,
    // but pahole still emits it for structs without bit fields, where offset is 0 and bits equal the size).
    let (first_bit, width) = match inner.and_then(Type::int_bits) {
        _ if member.bit_size != 0 => (base_bits, member.bit_size),
        Some((offset, bits)) if offset != 0 || bits != size.saturating_mul(8) => (base_bits + u64::from(offset), bits),
        _ => (base_bits, 0),
    };
    let bytes = u32::try_from(first_bit / 8).map_err(|_| BtfError::TooDeep { name: outer.to_owned() })?;
    let shift = (first_bit % 8) as u8;
    match u8::try_from(width) {
        Ok(width) if width != 0 => {
            let touched = (u32::from(shift) + u32::from(width)).div_ceil(8);
            Ok(MemberOffset {
                bytes,
                size: touched,
                bits: Some(BitRange { shift, width }),
            })
        }
        _ => Ok(MemberOffset {
            bytes,
            size,
            bits: None,
        }),
    }
}

/// Follows typedefs and qualifiers; `None` is `void`.
pub(super) fn resolve<'a>(btf: &'a Btf, mut id: u32, outer: &str) -> Result<Option<Type<'a>>, BtfError> {
    for _ in 0..MAX_DEPTH {
        if id == 0 {
            return Ok(None);
        }
        let t = btf.type_at(id)?;
        if !t.kind.is_transparent() {
            return Ok(Some(t));
        }
        id = t.size_or_type;
    }
    Err(BtfError::TooDeep { name: outer.to_owned() })
}

pub(super) fn byte_size(btf: &Btf, resolved: Option<Type<'_>>, outer: &str) -> Result<u32, BtfError> {
    let mut elements = 1u32;
    let mut current = resolved;
    for _ in 0..MAX_DEPTH {
        let Some(t) = current else { return Ok(0) };
        let unit = match t.kind {
            Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => t.size_or_type,
            // BTF does not tell the size of a pointer; this file describes the machine we run on.
            Kind::Ptr => std::mem::size_of::<usize>() as u32,
            Kind::Array => {
                let Some((element, count)) = t.array() else {
                    return Ok(0);
                };
                elements = elements.saturating_mul(count);
                current = resolve(btf, element, outer)?;
                continue;
            }
            _ => 0,
        };
        return Ok(unit.saturating_mul(elements));
    }
    Err(BtfError::TooDeep { name: outer.to_owned() })
}
