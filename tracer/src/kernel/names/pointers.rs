//! Objects that a variable points to: where the types do not tell what a piece of memory is, the variable by which the kernel or a module
//! reaches it does.
//!
//! That a variable holds the address of an object is read, now; the rest is likely at best. BTF has the types of per-CPU variables only, so
//! nothing says that the word is a pointer to such an object; the object may have been freed, and be another one's by now. So a word counts
//! only if it is the address at which an object of the allocator begins, and the name says how it is known. What is compared: a struct that
//! the kernel's source says has the size of the object, and a variable whose object points back is the head of a list.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::objects::display;
use super::reader::{Reader, Soon};
use super::recognise::smaller_class;
use super::slab::Object;
use super::{LockNamer, Named};
use crate::event::LockKind;
use crate::ids::KernelAddr;
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::Symbols;

const KERNEL_START: u64 = 0xff00_0000_0000_0000;
/// There are tens of thousands, and they seldom change.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Words read at most.
const MAX_WORDS: usize = 1 << 18;
/// Bytes to the next symbol: of a pointer with what aligns the next variable, or of a few pointers. Larger variables are mostly structs.
const SIZES: std::ops::RangeInclusive<u64> = 8..=64;

/// Pointers whose struct is known although types say nothing of variables. KERNEL: fs/kernfs/mount.c (5.18 and newer), mm/vmalloc.c (6.9).
const TYPED: &[(&str, &str, Many)] = &[
    ("kernfs_locks", "kernfs_global_locks", Many::One),
    ("vmap_nodes", "vmap_node", Many::Array),
];

/// What a pointer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Many {
    One,
    Array,
}

/// What a lock lies in.
#[derive(Debug, Clone, Copy)]
pub enum Around<'a> {
    Object(&'a Object),
    /// Whole pages, which begin here.
    Pages(u64),
}

impl Around<'_> {
    fn begins(self) -> u64 {
        match self {
            Self::Object(object) => object.address,
            Self::Pages(first) => first,
        }
    }

    /// Whether it can be a struct of this size, or an array of them. Of whole pages the size is not known.
    fn can_be(self, size: u32, many: Many) -> bool {
        match (self, many) {
            (Self::Object(object), Many::One) => {
                let room = object.cache.object_size;
                (smaller_class(room) + 1..=room).contains(&size)
            }
            (Self::Object(object), Many::Array) => size <= object.cache.object_size,
            (Self::Pages(_), _) => true,
        }
    }
}

impl fmt::Display for Around<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(f, "object of the slab cache {}", object.cache.name),
            Self::Pages(_) => f.write_str("pages"),
        }
    }
}

/// Words of variables that may be pointers, and what they point to.
#[derive(Debug, Default)]
pub struct Pointers {
    /// The first words of variables come first.
    variables: Vec<u64>,
    /// From an object to the first word that points to it, and how many others do.
    of: HashMap<u64, (u64, usize)>,
    asked: Option<Instant>,
    /// Something that is known only by asking again was wanted.
    wanted: Cell<bool>,
}

impl Pointers {
    /// For the kernel with these symbols, if it shows its variables.
    pub fn new(symbols: Option<&Symbols>) -> Self {
        let Some(symbols) = symbols else {
            return Self::default();
        };
        let next = symbols.iter().skip(1).map(|symbol| symbol.address.0);
        let variables = symbols.iter().zip(next).filter_map(|(symbol, next)| {
            let at = symbol.address.0;
            let data = matches!(symbol.letter, 'd' | 'D' | 'b' | 'B' | 'r' | 'R');
            (data && at >= KERNEL_START && at % 8 == 0 && SIZES.contains(&(next - at))).then_some((at, next))
        });
        let (mut words, mut further) = (Vec::new(), Vec::new());
        for (at, next) in variables {
            words.push(at);
            further.extend((at + 8..=next - 8).step_by(8));
        }
        words.append(&mut further);
        words.truncate(MAX_WORDS);
        Self {
            variables: words,
            ..Self::default()
        }
    }

    /// Reads them if something is wanted and the last time is long enough ago; true if they were read.
    pub fn ask(&mut self, memory: &mut dyn Memory) -> Result<bool> {
        let due = self.asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN_AFTER);
        if !self.wanted.replace(false) || !due {
            return Ok(false);
        }
        let values = memory.read(&self.variables)?;
        self.of.clear();
        for (&variable, value) in self.variables.iter().zip(values) {
            if let Some(value) = value.filter(|&value| value >= KERNEL_START) {
                let found = self.of.entry(value);
                found.and_modify(|(_, others)| *others += 1).or_insert((variable, 0));
            }
        }
        self.asked = Some(Instant::now());
        Ok(true)
    }

    /// The word that points to an object, and how many others do.
    fn to(&self, object: u64) -> Option<(u64, usize)> {
        let found = self.of.get(&object).copied();
        if found.is_none() {
            self.wanted.set(true);
        }
        found
    }
}

impl LockNamer {
    /// A lock in what a variable still points to.
    pub(super) fn pointed_to(
        &mut self,
        reader: &mut Reader,
        around: Around<'_>,
        lock: u64,
        kind: LockKind,
    ) -> Soon<Option<Named>> {
        let object = around.begins();
        let (Some((variable, others)), Some(symbols)) = (self.pointers.to(object), self.symbols.clone()) else {
            return Ok(None);
        };
        let (word, first, second) = (
            reader.word(variable),
            reader.word(object),
            reader.word(object.wrapping_add(8)),
        );
        if word? != Some(object) {
            return Ok(None);
        }
        let Some(symbol) = symbols.resolve(KernelAddr(variable)) else {
            return Ok(None);
        };
        // KERNEL: include/linux/list.h: the first entry points back to the head, and so does the last one, to which its second word points.
        let is_list = second? == Some(variable) || first? == Some(variable.wrapping_sub(8));
        let module = symbol.module.map_or_else(String::new, |module| format!(" [{module}]"));
        let at = lock - object;
        let (name, class, how) = if is_list {
            let class = format!("entry of {}{module}", symbol.name);
            let how = format!("the variable {symbol} is the head of a list with it at an end");
            (format!("entry of {}+{at:#x}{module}", symbol.name), class, how)
        } else {
            let (pointer, word) = match symbol.offset {
                0 => (format!("*{}", symbol.name), "the variable"),
                offset => (format!("*({}+{offset:#x})", symbol.name), "a word of a variable,"),
            };
            let how = format!("{word} {symbol} points to it");
            match self.typed_pointer(symbol.name, around, at, kind) {
                Some((class, of)) => (format!("{class} of {pointer}{module}"), class, format!("{how}, {of}")),
                None => (
                    format!("{pointer}+{at:#x}{module}"),
                    format!("*{}{module}", symbol.name),
                    how,
                ),
            }
        };
        let too = match others {
            0 => String::new(),
            1 => ", as does 1 other".to_owned(),
            others => format!(", as do {others} others"),
        };
        Ok(Some(Named {
            name,
            source: format!("likely: {around}; {how}{too}"),
            class,
            firm: true,
            fixed: false,
            again: false,
        }))
    }

    /// The member, and what speaks for the struct.
    fn typed_pointer(
        &mut self,
        variable: &str,
        around: Around<'_>,
        offset: u64,
        kind: LockKind,
    ) -> Option<(String, String)> {
        let &(_, name, many) = TYPED.iter().find(|(known, ..)| *known == variable)?;
        let btf = self.btf.clone()?;
        let size = btf.struct_size(name).ok().filter(|&size| size > 0)?;
        if !around.can_be(size, many) {
            return None;
        }
        let offset = match many {
            Many::One => offset,
            Many::Array => offset % u64::from(size),
        };
        let offset = u32::try_from(offset).ok()?;
        let paths = self.types.paths(&btf, name, offset, kind);
        let of = match many {
            Many::One => format!("a {name}"),
            Many::Array => format!("an array of {name}"),
        };
        Some((display(paths.first()?), of))
    }
}
