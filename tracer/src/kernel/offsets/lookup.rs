//! How one row of the table is looked up. The function's name is the row's kind.

use serde::Serialize;

use super::{Feature, OffsetRow, Outcome};
use crate::kernel::btf::{Btf, BtfError};

/// Where a bit field lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BitOffset {
    /// Byte in which it starts.
    pub byte: u32,
    /// First bit in that byte.
    pub shift: u8,
    /// Number of bits.
    pub width: u8,
}

impl std::fmt::Display for BitOffset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bit {}", self.byte, self.shift)
    }
}

/// Byte offset of a member.
pub(super) fn offset(btf: &Btf, place: &str) -> Result<u32, BtfError> {
    let (name, path) = split(place);
    let found = btf.member_offset(name, path)?;
    // A bit field has no address of its own: a kernel that turned the field into one has changed its meaning.
    if found.bits.is_some() {
        Err(no_such_member(name, path))
    } else {
        Ok(found.bytes)
    }
}

/// Place of a bit field.
pub(super) fn bits(btf: &Btf, place: &str) -> Result<BitOffset, BtfError> {
    let (name, path) = split(place);
    let found = btf.member_offset(name, path)?;
    let bits = found.bits.ok_or_else(|| no_such_member(name, path))?;
    Ok(BitOffset {
        byte: found.bytes,
        shift: bits.shift,
        width: bits.width,
    })
}

/// Size in bytes of a member.
pub(super) fn width(btf: &Btf, place: &str) -> Result<u32, BtfError> {
    let (name, path) = split(place);
    Ok(btf.member_offset(name, path)?.size)
}

/// Size in bytes of a struct.
pub(super) fn size(btf: &Btf, place: &str) -> Result<u32, BtfError> {
    btf.struct_size(place)
}

/// Tries the places in turn, and writes down what came of it.
pub(super) fn row<T: ToString>(
    btf: &Btf,
    rows: &mut Vec<OffsetRow>,
    look: fn(&Btf, &str) -> Result<T, BtfError>,
    (field, places, needed_for): (&'static str, &'static [&'static str], Feature),
    applies: bool,
) -> Option<T> {
    let mut first_error = None;
    let mut value = None;
    let mut outcome = Outcome::NotApplicable;
    if applies {
        for &place in places {
            match look(btf, place) {
                Ok(found) => {
                    outcome = Outcome::Found {
                        place,
                        value: found.to_string(),
                    };
                    value = Some(found);
                    break;
                }
                Err(why) => {
                    let why = first_error.get_or_insert(why).clone();
                    outcome = Outcome::Missing { why };
                }
            }
        }
    }
    rows.push(OffsetRow {
        field,
        places,
        needed_for,
        outcome,
    });
    value
}

/// Whether the member exists, for rows that apply to one design only.
pub(super) fn exists(btf: &Btf, place: &str) -> bool {
    let (name, path) = split(place);
    btf.member_offset(name, path).is_ok()
}

fn split(place: &str) -> (&str, &str) {
    place.split_once('.').unwrap_or((place, ""))
}

fn no_such_member(name: &str, path: &str) -> BtfError {
    BtfError::NoSuchMember {
        name: name.to_owned(),
        path: path.to_owned(),
        part: path.to_owned(),
    }
}
