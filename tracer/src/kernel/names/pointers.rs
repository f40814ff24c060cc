//! Objects that a variable points to: where the types do not tell what a piece of memory is, the variable by which the kernel or a module
//! reaches it does.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::objects::display;
use super::reader::{Reader, Soon};
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
const TYPED: &[(&str, &str)] = &[("kernfs_locks", "kernfs_global_locks"), ("vmap_nodes", "vmap_node")];

/// Words of variables that may be pointers, and what they point to.
#[derive(Debug, Default)]
pub struct Pointers {
    variables: Vec<u64>,
    /// From an object to the first word that points to it.
    of: HashMap<u64, u64>,
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
        let words = variables.flat_map(|(at, next)| (at..=next - 8).step_by(8));
        Self {
            variables: words.take(MAX_WORDS).collect(),
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
                self.of.entry(value).or_insert(variable);
            }
        }
        self.asked = Some(Instant::now());
        Ok(true)
    }

    /// The variable that points to an object.
    fn to(&self, object: u64) -> Option<u64> {
        let found = self.of.get(&object).copied();
        if found.is_none() {
            self.wanted.set(true);
        }
        found
    }
}

impl LockNamer {
    /// A lock in the object that begins at `object`, if a variable still points to that.
    pub(super) fn pointed_to(
        &mut self,
        reader: &mut Reader,
        object: u64,
        lock: u64,
        kind: LockKind,
    ) -> Soon<Option<Named>> {
        let (Some(variable), Some(symbols)) = (self.pointers.to(object), self.symbols.clone()) else {
            return Ok(None);
        };
        if reader.word(variable)? != Some(object) {
            return Ok(None);
        }
        let Some(symbol) = symbols.resolve(KernelAddr(variable)) else {
            return Ok(None);
        };
        let module = symbol.module.map_or_else(String::new, |module| format!(" [{module}]"));
        let pointer = match symbol.offset {
            0 => format!("*{}", symbol.name),
            offset => format!("*({}+{offset:#x})", symbol.name),
        };
        let (name, class) = match self.typed_pointer(symbol.name, lock - object, kind) {
            Some(class) => (format!("{class} of {pointer}{module}"), class),
            None => (
                format!("{pointer}+{:#x}{module}", lock - object),
                format!("*{}{module}", symbol.name),
            ),
        };
        Ok(Some(Named {
            name,
            source: format!("the variable {symbol} points to the memory around it"),
            class,
            firm: true,
            fixed: false,
            again: false,
        }))
    }

    fn typed_pointer(&mut self, variable: &str, offset: u64, kind: LockKind) -> Option<String> {
        let (_, name) = TYPED.iter().find(|(known, _)| *known == variable)?;
        let btf = self.btf.clone()?;
        let size = u64::from(btf.struct_size(name).ok().filter(|&size| size > 0)?);
        let offset = u32::try_from(offset % size).ok()?;
        self.types.paths(&btf, name, offset, kind).first().map(display)
    }
}
