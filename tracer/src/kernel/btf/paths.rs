//! From an offset to the path of members that lies there: the reverse of [`super::members`].

use super::Btf;
use super::members::{byte_size, resolve};
use super::parse::{Kind, Type};

/// Nesting of members that is followed; the deepest in real kernels is about a dozen.
const MAX_DEPTH: usize = 32;
/// Members looked at for one offset: a bound for hostile input, where unions may fan out.
const MAX_STEPS: u32 = 1 << 16;
/// Elements of an array that are landmarks.
const MAX_ELEMENTS: u32 = 4;
/// Paths returned: beyond that an offset says nothing.
const MAX_PATHS: usize = 8;
/// Where compilers put per-CPU variables (include/asm-generic/vmlinux.lds.h); the only variables that BTF has everywhere.
const PERCPU_SECTION: &str = ".data..percpu";

/// A step into a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the member, with indices of arrays; empty for the outermost type and for anonymous members.
    pub member: String,
    /// Name of its struct or union, where it is one with a name.
    pub composite: Option<String>,
    /// Bytes from the start of the outermost type.
    pub offset: u32,
}

/// The way from a type to one of its (nested) members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPath(pub Vec<Step>);

impl MemberPath {
    /// The innermost step whose type is one of `composites`.
    #[must_use]
    pub fn innermost(&self, composites: &[&str]) -> Option<usize> {
        self.0
            .iter()
            .rposition(|step| step.composite.as_deref().is_some_and(|name| composites.contains(&name)))
    }

    /// `type.member.member` from step `from` on; a type without a name is left out.
    #[must_use]
    pub fn text_from(&self, from: usize) -> String {
        let mut parts: Vec<&str> = self
            .0
            .get(from)
            .and_then(|step| step.composite.as_deref())
            .into_iter()
            .collect();
        let members = self.0.iter().skip(from + 1).map(|step| step.member.as_str());
        parts.extend(members.filter(|member| !member.is_empty()));
        parts.join(".")
    }
}

/// A per-CPU variable and what lies at an offset in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerCpuPlace<'a> {
    /// Name of the variable.
    pub variable: &'a str,
    /// Bytes into the variable.
    pub offset: u32,
    /// Paths to a member of the wanted type, from the variable's own type.
    pub paths: Vec<MemberPath>,
}

impl Btf {
    /// Paths in every `struct name` to a member at `offset` whose type is one of `ends` (names of structs or typedefs). Several
    /// where unions or types of the same name disagree; none where nothing of the kind begins there.
    #[must_use]
    pub fn paths_at(&self, name: &str, offset: u32, ends: &[&str]) -> Vec<MemberPath> {
        let mut search = Search::new(self, ends);
        for outer in self.named(name).filter(|t| t.kind.is_composite()) {
            search.from(outer, Some(name), offset);
        }
        search.found
    }

    /// Names of all structs of a size within `sizes` bytes.
    pub fn structs_of_size(&self, sizes: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = &str> {
        self.types()
            .filter(move |t| t.kind == Kind::Struct && sizes.contains(&t.size_or_type))
            .filter_map(|t| str::from_utf8(self.string(t.name)).ok())
            .filter(|name| !name.is_empty())
    }

    /// Every embedded member of `struct name` whose type is one of `ends`, and every pointer: (offset, name of the type), pointers
    /// to functions as `fn`, to structs of operations as `ops`, others but `void *` as `*`. Members of unions are left out: which of them is valid is not known. At most `max`.
    #[must_use]
    pub fn landmarks(&self, name: &str, ends: &[&str], max: usize) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        if let Some(outer) = self.named(name).find(|t| t.kind == Kind::Struct) {
            let mut steps = MAX_STEPS;
            landmarks(self, outer, 0, ends, 0, &mut steps, &mut found);
        }
        found.sort();
        found.dedup();
        found.truncate(max);
        found
    }

    /// The per-CPU variable that covers `offset` of the section.
    #[must_use]
    pub fn per_cpu_at(&self, offset: u32, ends: &[&str]) -> Option<PerCpuPlace<'_>> {
        let section = self.named(PERCPU_SECTION).find(|t| t.kind == Kind::Datasec)?;
        let (id, start, _) = section
            .variables()
            .find(|&(_, start, size)| (start..start.saturating_add(size)).contains(&offset))?;
        let variable = self.type_at(id).ok()?;
        let inner = resolve(self, variable.size_or_type, PERCPU_SECTION).ok()??;
        let mut search = Search::new(self, ends);
        let name = str::from_utf8(self.string(inner.name)).ok().filter(|n| !n.is_empty());
        search.start(variable.size_or_type, inner, name, offset - start);
        Some(PerCpuPlace {
            variable: str::from_utf8(self.string(variable.name)).ok()?,
            offset: offset - start,
            paths: search.found,
        })
    }
}

struct Search<'a> {
    btf: &'a Btf,
    ends: &'a [&'a str],
    steps: u32,
    path: Vec<Step>,
    found: Vec<MemberPath>,
}

impl<'a> Search<'a> {
    fn new(btf: &'a Btf, ends: &'a [&'a str]) -> Self {
        Self {
            btf,
            ends,
            steps: MAX_STEPS,
            path: Vec::new(),
            found: Vec::new(),
        }
    }

    fn from(&mut self, outer: Type<'a>, name: Option<&str>, offset: u32) {
        self.path = vec![Step {
            member: String::new(),
            composite: name.map(str::to_owned),
            offset: 0,
        }];
        self.composite(outer, offset, 0);
    }

    /// Like [`Self::from`], for a type that may itself be what is wanted, or an array.
    fn start(&mut self, id: u32, inner: Type<'a>, name: Option<&str>, offset: u32) {
        self.path = vec![Step {
            member: String::new(),
            composite: name.map(str::to_owned),
            offset: 0,
        }];
        if offset == 0 && self.is_end(id) {
            self.found.push(MemberPath(self.path.clone()));
        } else if inner.kind.is_composite() {
            self.composite(inner, offset, 0);
        } else if inner.kind == Kind::Array {
            self.member(id, "", 0, offset);
        }
    }

    fn composite(&mut self, outer: Type<'a>, offset: u32, base: u32) {
        for member in outer.members() {
            let Some(steps) = self.steps.checked_sub(1) else { return };
            self.steps = steps;
            let start = member.bit_offset / 8;
            if member.bit_size != 0 || start > offset {
                continue;
            }
            let name = String::from_utf8_lossy(self.btf.string(member.name)).into_owned();
            self.member(member.type_id, &name, base.saturating_add(start), offset - start);
        }
    }

    /// A member of type `id` which starts `offset` bytes before what is wanted, at `at` of the outermost type.
    fn member(&mut self, id: u32, name: &str, at: u32, offset: u32) {
        if self.path.len() > MAX_DEPTH || self.found.len() >= MAX_PATHS {
            return;
        }
        let Ok(Some(inner)) = resolve(self.btf, id, "") else {
            return;
        };
        let Ok(size) = byte_size(self.btf, Some(inner), "") else {
            return;
        };
        if offset >= size {
            return;
        }
        if inner.kind == Kind::Array {
            let Some((element, _)) = inner.array() else { return };
            let Ok(Some(resolved)) = resolve(self.btf, element, "") else {
                return;
            };
            let unit = byte_size(self.btf, Some(resolved), "").unwrap_or(0);
            let Some(index) = offset.checked_div(unit) else { return };
            let skipped = index * unit;
            self.member(
                element,
                &format!("{name}[{index}]"),
                at.saturating_add(skipped),
                offset - skipped,
            );
            return;
        }
        let type_name = str::from_utf8(self.btf.string(inner.name)).unwrap_or_default();
        self.path.push(Step {
            member: name.to_owned(),
            composite: (inner.kind.is_composite() && !type_name.is_empty()).then(|| type_name.to_owned()),
            offset: at,
        });
        if offset == 0 && self.is_end(id) {
            let found = MemberPath(self.path.clone());
            if !self.found.contains(&found) {
                self.found.push(found);
            }
        } else if inner.kind.is_composite() {
            self.composite(inner, offset, at);
        }
        self.path.pop();
    }

    fn is_end(&self, id: u32) -> bool {
        is_named(self.btf, id, self.ends).is_some()
    }
}

/// Which of `names` the type has, under one of its typedefs or itself.
fn is_named<'n>(btf: &Btf, mut id: u32, names: &[&'n str]) -> Option<&'n str> {
    for _ in 0..MAX_DEPTH {
        let t = btf.type_at(id).ok()?;
        let own = btf.string(t.name);
        if (t.kind.is_composite() || t.kind == Kind::Typedef)
            && let Some(name) = names.iter().find(|name| name.as_bytes() == own)
        {
            return Some(name);
        }
        if !t.kind.is_transparent() {
            return None;
        }
        id = t.size_or_type;
    }
    None
}

fn landmarks(
    btf: &Btf,
    outer: Type<'_>,
    base: u32,
    ends: &[&str],
    depth: usize,
    steps: &mut u32,
    found: &mut Vec<(u32, String)>,
) {
    if depth > MAX_DEPTH {
        return;
    }
    for member in outer.members().filter(|member| member.bit_size == 0) {
        let Some(left) = steps.checked_sub(1) else { return };
        *steps = left;
        let at = base.saturating_add(member.bit_offset / 8);
        if let Some(name) = is_named(btf, member.type_id, ends) {
            found.push((at, name.to_owned()));
            continue;
        }
        match resolve(btf, member.type_id, "") {
            Ok(Some(t)) if t.kind == Kind::Struct => landmarks(btf, t, at, ends, depth + 1, steps, found),
            Ok(Some(t)) if t.kind == Kind::Array => {
                let Some((element, count)) = t.array() else { continue };
                let unit = resolve(btf, element, "").ok().flatten();
                let size = byte_size(btf, unit, "").unwrap_or(0);
                // Of lists of lists there are many; the first elements tell enough.
                if let (1.., Some(name)) = (size, is_named(btf, element, ends)) {
                    found.extend((0..count.min(MAX_ELEMENTS)).map(|i| (at.saturating_add(i * size), name.to_owned())));
                }
            }
            // A pointer to nothing in particular may hold a number.
            Ok(Some(t)) if t.kind == Kind::Ptr && t.size_or_type == 0 => {}
            Ok(Some(t)) if t.kind == Kind::Ptr => {
                let to = resolve(btf, t.size_or_type, "").ok().flatten();
                let name = to.map_or(&b""[..], |t| btf.string(t.name));
                let what = match to {
                    Some(t) if t.kind == Kind::FuncProto => "fn",
                    Some(_) if name.ends_with(b"_operations") || name.ends_with(b"_ops") => "ops",
                    _ => "*",
                };
                found.push((at, what.to_owned()));
            }
            _ => {}
        }
    }
}
