//! Objects of `kmalloc`: nothing says what they are. Every struct of the size which has a lock of the kind at the place is compared
//! with the object: its list heads must be linked into themselves, its pointers must point into the kernel, its pointers to
//! functions at functions, and those to tables of operations mostly at variables. When only one struct fits, the object is likely to be
//! that; never more. Objects of caches that share their slabs are told apart in the same way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::objects::{bare, display, one_of};
use super::reader::{Reader, Soon};
use super::slab::Object;
use super::statics::Areas;
use super::types::lock_paths;
use super::{LockNamer, Named};
use crate::event::LockKind;
use crate::ids::KernelAddr;
use crate::kernel::btf::{Btf, MemberPath};
use crate::kernel::symbols::Symbols;

/// Structs compared with an object at most; with more of them the comparison would say little, and cost much.
const MAX_CANDIDATES: usize = 160;
/// Lists and functions that must be as a struct has them.
const ENOUGH: u32 = 2;
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
pub struct Candidate {
    path: MemberPath,
    /// (offset, type) of members that can be compared.
    landmarks: Vec<(u32, Landmark)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landmark {
    List,
    Function,
    /// A table of functions, mostly a constant.
    Operations,
    Pointer,
}

/// What pointers are compared with.
struct Known<'a> {
    symbols: Option<&'a Symbols>,
    areas: &'a Areas,
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
pub struct Recognised {
    /// By cache.
    kinds: HashMap<(String, u32, LockKind), Kind>,
    /// By struct.
    single: HashMap<(String, u32, LockKind), Arc<Candidate>>,
}

impl LockNamer {
    /// The lock at a place in `kmalloc` memory of this size.
    pub(super) fn recognise(&mut self, reader: &mut Reader, object: &Object, size: u32, kind: LockKind) -> Soon<Named> {
        let (Some(btf), symbols) = (self.btf.clone(), self.symbols.clone()) else {
            return Ok(bare(object, "no types to tell its struct"));
        };
        let key = (object.cache.name.clone(), object.offset, kind);
        if !self.recognised.kinds.contains_key(&key) {
            if self.recognised.kinds.len() >= MAX_KNOWN {
                self.recognised.kinds.clear();
            }
            self.recognised
                .kinds
                .insert(key.clone(), Kind::new(&btf, size, object.offset, kind));
        }
        let Some(known) = self.recognised.kinds.get(&key) else {
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
        let known = Known {
            symbols: symbols.as_deref(),
            areas: &self.areas,
        };
        let mut found = compare(reader, &known, &candidates, compared, object.address)?;
        if learnt && found.fitting.is_empty() && found.changing.is_empty() {
            // Something else than the first ones were.
            found = compare(
                reader,
                &known,
                &candidates,
                (0..candidates.len()).collect(),
                object.address,
            )?;
        }
        let mut named = self.verdict(reader, object, &candidates, &found)?;
        let Compared { fitting, changing, .. } = found;
        if fitting.is_empty() && !changing.is_empty() {
            let may_be = changing
                .iter()
                .filter_map(|&ix| Some(display(&candidates.get(ix)?.path)));
            let source = format!(
                "{} object, whose lists were changing while it was read",
                object.cache.name
            );
            named = one_of(&may_be.collect::<Vec<_>>(), object, &source);
        }
        named.again = !changing.is_empty() && !named.firm;
        if let Some(known) = self.recognised.kinds.get_mut(&key).filter(|_| !fitting.is_empty()) {
            known.seen = known.seen.saturating_add(1);
            known.winners.extend(fitting);
        }
        Ok(named)
    }

    /// The lock in an object of caches that share their slabs, if only one of the kinds that are known has such a lock there, and the object
    /// looks like it. `unknown`: how many others there are.
    pub(super) fn only_one(
        &mut self,
        reader: &mut Reader,
        object: &Object,
        (name, path): (&str, &MemberPath),
        (kinds, unknown): (usize, usize),
        kind: LockKind,
    ) -> Soon<Option<Named>> {
        let Some(btf) = self.btf.clone() else { return Ok(None) };
        let symbols = self.symbols.clone();
        let known = Known {
            symbols: symbols.as_deref(),
            areas: &self.areas,
        };
        if self.recognised.single.len() >= MAX_KNOWN {
            self.recognised.single.clear();
        }
        let key = (name.to_owned(), object.offset, kind);
        let new = || Arc::new(Candidate::new(&btf, name, path.clone(), object.offset, kind));
        let candidate = Arc::clone(self.recognised.single.entry(key).or_insert_with(new));
        // Where every kind is known it is enough that nothing speaks against it.
        let enough = u32::from(unknown > 0);
        if candidate.fits(reader, &known, object.address, enough)? != Fit::Yes {
            return Ok(None);
        }
        let source = format!(
            "likely: object of the slab cache {}, which is shared by {kinds} kinds; only {name} is known to have such a lock there{}",
            object.cache.name,
            match unknown {
                0 => String::new(),
                unknown => format!(", and the object looks like one; of {unknown} the struct is not known"),
            }
        );
        self.member(reader, object, path, source).map(Some)
    }

    fn verdict(&self, reader: &mut Reader, object: &Object, all: &[Candidate], found: &Compared) -> Soon<Named> {
        let mut paths: Vec<&MemberPath> = found
            .fitting
            .iter()
            .filter_map(|&ix| Some(&all.get(ix)?.path))
            .collect();
        // Structs that begin with the same struct may both fit, and say the same.
        paths.sort_by_key(|path| display(path));
        paths.dedup_by_key(|path| display(path));
        let cache = &object.cache.name;
        let structs = all.len();
        match paths.as_slice() {
            [] => Ok(bare(
                object,
                &format!(
                    "none of the {structs} structs of that size with such a lock there fits it{}",
                    not_as(all, found)
                ),
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

/// What speaks against the candidates, if they are few.
fn not_as(all: &[Candidate], found: &Compared) -> String {
    const FEW: usize = 2;
    let against = found.odd.iter().take(FEW).filter_map(|&(ix, at)| {
        let path = &all.get(ix)?.path;
        Some(format!(
            "{} has something else at {at:#x}",
            path.0.first()?.composite.as_deref()?
        ))
    });
    let against: Vec<String> = against.collect();
    match found.odd.len() {
        1..=FEW => format!(": {}", against.join(", ")),
        _ => String::new(),
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
            candidates.push(Candidate::new(btf, name, path, offset, kind));
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

/// How the candidates compare with an object.
#[derive(Debug, Default)]
struct Compared {
    fitting: Vec<usize>,
    /// Those whose lists were changing.
    changing: Vec<usize>,
    /// Of the others, what is not as it must be.
    odd: Vec<(usize, u32)>,
}

fn compare(
    reader: &mut Reader,
    known: &Known<'_>,
    candidates: &[Candidate],
    which: Vec<usize>,
    object: u64,
) -> Soon<Compared> {
    // All of them, so that all words are fetched at once.
    let fits: Vec<(usize, Soon<Fit>)> = which
        .into_iter()
        .filter_map(|ix| Some((ix, candidates.get(ix)?.fits(reader, known, object, ENOUGH))))
        .collect();
    let mut compared = Compared::default();
    for (ix, fit) in fits {
        match fit? {
            Fit::Yes => compared.fitting.push(ix),
            Fit::Changing => compared.changing.push(ix),
            Fit::No(at) => compared.odd.extend(at.map(|at| (ix, at))),
        }
    }
    Ok(compared)
}

impl Candidate {
    /// A struct with a lock at `offset`, to which `path` leads.
    pub fn new(btf: &Btf, name: &str, path: MemberPath, offset: u32, kind: LockKind) -> Self {
        let own = offset..offset.saturating_add(lock_size(kind));
        let landmarks = btf.landmarks(name, &["list_head"], MAX_LANDMARKS).into_iter();
        let landmarks = landmarks.filter(|(at, _)| !own.contains(at)).map(|(at, what)| {
            let what = match what.as_str() {
                "list_head" => Landmark::List,
                "fn" => Landmark::Function,
                "ops" => Landmark::Operations,
                _ => Landmark::Pointer,
            };
            (at, what)
        });
        Self {
            landmarks: landmarks.collect(),
            path,
        }
    }

    /// Whether the object can be this struct: nothing speaks against it, and at least two lists or functions for it. One list may
    /// change while it is read; of a struct with many lists and functions, one for every three that are as they must be.
    fn fits(&self, reader: &mut Reader, known: &Known<'_>, object: u64, enough: u32) -> Soon<Fit> {
        const MAX_ODD: u32 = 2;
        let mut later = None;
        let (mut score, mut changing, mut odd) = (0, 0, 0);
        for &(offset, what) in &self.landmarks {
            let at = object.wrapping_add(offset.into());
            let seen = match what {
                Landmark::List => list(reader, at),
                Landmark::Function => reader.word(at).map(|word| function(word, known.symbols)),
                Landmark::Operations => reader.word(at).map(|word| operations(word, known.symbols)),
                Landmark::Pointer => reader.word(at).map(pointer),
            };
            let seen = match seen {
                Ok(Seen::Odd) => per_cpu(reader, known.areas, at),
                seen => seen,
            };
            match seen {
                Ok(Seen::Fits) => score += 1,
                Ok(Seen::Neutral) => {}
                Ok(Seen::Changing) => changing += 1,
                Ok(Seen::Odd) if odd == MAX_ODD => return Ok(Fit::No(Some(offset))),
                Ok(Seen::Odd) => odd += 1,
                Ok(Seen::Contradicts) => return Ok(Fit::No(Some(offset))),
                Err(why) => later = Some(why),
            }
        }
        if let Some(later) = later {
            return Err(later);
        }
        Ok(match (score >= enough, changing) {
            (true, changing) if changing <= (score / 3).max(1) => Fit::Yes,
            (_, 0) => Fit::No(None),
            _ => Fit::Changing,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    /// This member is not as it must be; or there is too little that could be compared.
    No(Option<u32>),
    /// Its lists were changing, or are none.
    Changing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Fits,
    Neutral,
    /// Two pointers that do not point back.
    Changing,
    /// No pointer, but perhaps one to a per-CPU object, which on x86-64 is an offset and not an address, or a number in a pointer's place,
    /// as at the end of some lists.
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

/// A pointer to a `struct ..._operations`: of kernel and modules they are variables, with few exceptions.
fn operations(word: Option<u64>, symbols: Option<&Symbols>) -> Seen {
    let symbol = word.and_then(|word| symbols?.resolve(KernelAddr(word)));
    match symbol {
        Some(s) if !s.is_code() && s.offset == 0 => Seen::Fits,
        _ => pointer(word),
    }
}

/// What is no address may be that of a per-CPU object: then there is memory where the first CPU has its own.
fn per_cpu(reader: &mut Reader, areas: &Areas, at: u64) -> Soon<Seen> {
    /// No variable lies so low, and numbers mostly do.
    const SMALL: u64 = 4096;
    let Some(offset) = reader.word(at)?.filter(|&word| word >= SMALL) else {
        return Ok(Seen::Odd);
    };
    let Some(first) = areas.first(offset) else {
        return Ok(Seen::Odd);
    };
    Ok(reader.word(first)?.map_or(Seen::Odd, |_| Seen::Neutral))
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
pub fn smaller_class(size: u32) -> u32 {
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
