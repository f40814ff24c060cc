//! Objects of `kmalloc`: nothing says what they are. Every struct of the size which has a lock of the kind at the place is compared
//! with the object: its list heads must be linked into themselves, its pointers must point into the kernel, and its pointers to
//! functions at functions. When only one struct fits, the object is likely to be that; never more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::objects::{bare, display, one_of};
use super::reader::{Reader, Soon};
use super::slab::Object;
use super::types::lock_paths;
use super::{LockNamer, Named};
use crate::event::LockKind;
use crate::ids::KernelAddr;
use crate::kernel::btf::{Btf, MemberPath};
use crate::kernel::symbols::Symbols;

/// Structs compared with an object at most; with more of them the comparison would say little, and cost much.
const MAX_CANDIDATES: usize = 160;
/// Members compared of each.
const MAX_LANDMARKS: usize = 40;
/// Objects of one kind that are compared with every candidate; later ones with what the first were found to be.
const LEARN: u32 = 4;
/// Kinds of objects remembered.
const MAX_KNOWN: usize = 4_096;
const KERNEL_START: u64 = 0xff00_0000_0000_0000;
/// KERNEL: LIST_POISON1, LIST_POISON2 (include/linux/poison.h) with the usual POISON_POINTER_DELTA.
const POISON: [u64; 2] = [0xdead_0000_0000_0100, 0xdead_0000_0000_0122];

/// A struct that may be it.
#[derive(Debug)]
struct Candidate {
    path: MemberPath,
    /// (offset, type) of members that can be compared.
    landmarks: Vec<(u32, Landmark)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landmark {
    List,
    Function,
    Pointer,
}

/// One kind of object: a cache, and a kind of lock at an offset.
#[derive(Debug)]
struct Kind {
    candidates: Arc<Vec<Candidate>>,
    /// There were more than can be compared.
    too_many: bool,
    /// Objects compared in full, and the candidates that fitted any of them.
    seen: u32,
    winners: BTreeSet<usize>,
}

/// What was found out so far.
#[derive(Debug, Default)]
pub struct Recognised(HashMap<(String, u32, LockKind), Kind>);

impl LockNamer {
    /// The lock at a place in `kmalloc` memory of this size.
    pub(super) fn recognise(&mut self, reader: &mut Reader, object: &Object, size: u32, kind: LockKind) -> Soon<Named> {
        let (Some(btf), symbols) = (self.btf.clone(), self.symbols.clone()) else {
            return Ok(bare(object, "no types to tell its struct"));
        };
        let key = (object.cache.name.clone(), object.offset, kind);
        if !self.recognised.0.contains_key(&key) {
            if self.recognised.0.len() >= MAX_KNOWN {
                self.recognised.0.clear();
            }
            self.recognised
                .0
                .insert(key.clone(), Kind::new(&btf, size, object.offset, kind));
        }
        let Some(known) = self.recognised.0.get(&key) else {
            return Ok(bare(object, ""));
        };
        if known.too_many {
            return Ok(bare(object, "too many structs of that size have such a lock there"));
        }
        let candidates = Arc::clone(&known.candidates);
        let learnt = known.seen >= LEARN;
        let compared: Vec<usize> = if learnt {
            known.winners.iter().copied().collect()
        } else {
            (0..candidates.len()).collect()
        };
        // All of them, so that all words are fetched at once.
        let fits: Vec<(usize, Soon<Fit>)> = compared
            .into_iter()
            .filter_map(|ix| Some((ix, candidates.get(ix)?.fits(reader, symbols.as_deref(), object.address))))
            .collect();
        let (mut fitting, mut changing) = (Vec::new(), false);
        for (ix, fit) in fits {
            match fit? {
                Fit::Yes => fitting.push(ix),
                Fit::Changing => changing = true,
                Fit::No => {}
            }
        }
        let mut named = self.verdict(reader, object, &candidates, &fitting)?;
        named.again = changing && !named.firm;
        let learns = !learnt && !fitting.is_empty();
        if let Some(known) = self.recognised.0.get_mut(&key).filter(|_| learns) {
            known.seen += 1;
            known.winners.extend(fitting);
        }
        Ok(named)
    }

    fn verdict(&self, reader: &mut Reader, object: &Object, all: &[Candidate], fitting: &[usize]) -> Soon<Named> {
        let mut paths: Vec<&MemberPath> = fitting.iter().filter_map(|&ix| Some(&all.get(ix)?.path)).collect();
        // Structs that begin with the same struct may both fit, and say the same.
        paths.sort_by_key(|path| display(path));
        paths.dedup_by_key(|path| display(path));
        let cache = &object.cache.name;
        let structs = all.len();
        match paths.as_slice() {
            [] => Ok(bare(
                object,
                &format!("none of the {structs} structs of that size with such a lock there fits it"),
            )),
            [path] => {
                let source = format!(
                    "likely: {cache} object; of {structs} structs of that size with such a lock there, its lists and pointers fit \
                     only this one"
                );
                self.member(reader, object, path, source)
            }
            several => Ok(one_of(
                &several.iter().map(|path| display(path)).collect::<Vec<_>>(),
                object,
                &format!("{cache} object"),
            )),
        }
    }
}

impl Kind {
    fn new(btf: &Btf, size: u32, offset: u32, kind: LockKind) -> Self {
        let mut names: Vec<&str> = btf.structs_of_size(smaller_class(size) + 1..=size).collect();
        names.sort_unstable();
        names.dedup();
        let mut candidates = Vec::new();
        for name in names {
            let paths = lock_paths(btf, name, offset, kind);
            let Some(path) = paths.into_iter().next() else { continue };
            let own = offset..offset.saturating_add(lock_size(kind));
            let landmarks = btf.landmarks(name, &["list_head"], MAX_LANDMARKS);
            let landmarks = landmarks
                .into_iter()
                .filter(|(at, _)| !own.contains(at))
                .map(|(at, what)| {
                    let what = match what.as_str() {
                        "list_head" => Landmark::List,
                        "fn" => Landmark::Function,
                        _ => Landmark::Pointer,
                    };
                    (at, what)
                })
                .collect();
            candidates.push(Candidate { path, landmarks });
            if candidates.len() > MAX_CANDIDATES {
                break;
            }
        }
        Self {
            too_many: candidates.len() > MAX_CANDIDATES,
            candidates: Arc::new(candidates),
            seen: 0,
            winners: BTreeSet::new(),
        }
    }
}

impl Candidate {
    /// Whether the object can be this struct: nothing speaks against it, and at least two lists or functions for it. One list may
    /// change while it is read.
    fn fits(&self, reader: &mut Reader, symbols: Option<&Symbols>, object: u64) -> Soon<Fit> {
        const ENOUGH: u32 = 2;
        const MAX_ODD: u32 = 2;
        let mut later = None;
        let (mut score, mut changing, mut odd) = (0, 0, 0);
        for &(offset, what) in &self.landmarks {
            let at = object.wrapping_add(offset.into());
            let seen = match what {
                Landmark::List => list(reader, at),
                Landmark::Function => reader.word(at).map(|word| function(word, symbols)),
                Landmark::Pointer => reader.word(at).map(pointer),
            };
            match seen {
                Ok(Seen::Fits) => score += 1,
                Ok(Seen::Neutral) => {}
                Ok(Seen::Changing) => changing += 1,
                Ok(Seen::Odd) => odd += 1,
                Ok(Seen::Contradicts) => return Ok(Fit::No),
                Err(why) => later = Some(why),
            }
        }
        if let Some(later) = later {
            return Err(later);
        }
        if odd > MAX_ODD {
            return Ok(Fit::No);
        }
        Ok(match (score >= ENOUGH, changing) {
            (true, 0 | 1) => Fit::Yes,
            (_, 0) => Fit::No,
            _ => Fit::Changing,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// Its lists were changing, or are none.
    Changing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Fits,
    Neutral,
    /// Two pointers that do not point back.
    Changing,
    /// May be a pointer to a per-CPU object, which on x86-64 is an offset and not an address, or a number in a pointer's place, as at the
    /// end of some lists.
    Odd,
    Contradicts,
}

/// A `struct list_head`: its neighbours point back, or it was never linked.
fn list(reader: &mut Reader, at: u64) -> Soon<Seen> {
    let (next, prev) = (reader.word(at), reader.word(at.wrapping_add(8)));
    let (Some(next), Some(prev)) = (next?, prev?) else {
        return Ok(Seen::Contradicts);
    };
    if (next == 0 && prev == 0) || (POISON.contains(&next) || POISON.contains(&prev)) {
        return Ok(Seen::Neutral);
    }
    if next < KERNEL_START || prev < KERNEL_START {
        return Ok(Seen::Contradicts);
    }
    let (back, forth) = (reader.word(next.wrapping_add(8)), reader.word(prev));
    let linked = back? == Some(at) && forth? == Some(at);
    Ok(if linked { Seen::Fits } else { Seen::Changing })
}

fn function(word: Option<u64>, symbols: Option<&Symbols>) -> Seen {
    match word {
        Some(0) => Seen::Neutral,
        Some(word) => {
            let symbol = symbols.and_then(|symbols| symbols.resolve(KernelAddr(word)));
            if symbol.is_some_and(|s| s.is_code() && s.offset == 0) {
                Seen::Fits
            } else {
                Seen::Contradicts
            }
        }
        None => Seen::Contradicts,
    }
}

fn pointer(word: Option<u64>) -> Seen {
    match word {
        Some(word) if word == 0 || word >= KERNEL_START || POISON.contains(&word) => Seen::Neutral,
        Some(word) if word >> 47 == 0 => Seen::Odd,
        _ => Seen::Contradicts,
    }
}

/// Bytes at a lock that are its own: its wait list fits every candidate.
fn lock_size(kind: LockKind) -> u32 {
    match kind {
        LockKind::Spinlock | LockKind::Rwlock => 8,
        LockKind::Mutex | LockKind::WwMutex => 32,
        _ => 40,
    }
}

/// The size below which `kmalloc` would have taken a smaller cache. KERNEL: `kmalloc_info` (mm/slab_common.c).
fn smaller_class(size: u32) -> u32 {
    const CLASSES: [u32; 13] = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];
    CLASSES.into_iter().rev().find(|&class| class < size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_smaller_class_bounds_the_size() {
        assert_eq!(smaller_class(192), 128);
        assert_eq!(smaller_class(96), 64);
        assert_eq!(smaller_class(8), 0);
    }

    #[test]
    fn words_that_no_pointer_has_speak_against_one() {
        let seen = |word| pointer(Some(word));
        assert_eq!(seen(0), Seen::Neutral);
        assert_eq!(seen(0xffff_8880_0000_1001), Seen::Neutral, "flags in the low bits");
        assert_eq!(seen(POISON[0]), Seen::Neutral);
        assert_eq!(seen(0x607f_e080_c2a8), Seen::Odd, "a per-CPU object");
        assert_eq!(seen(1), Seen::Odd, "the end of a list of nulls");
        assert_eq!(seen(u64::MAX >> 1), Seen::Contradicts);
        assert_eq!(pointer(None), Seen::Contradicts);
    }
}
