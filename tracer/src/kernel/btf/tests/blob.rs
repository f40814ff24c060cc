//! Builds BTF bytes by hand.

use super::super::Btf;

/// A growing BTF file; every `add` gives the new type's id.
pub(crate) struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
    /// Bytes of strings of the kernel that these types are a module's of.
    before: u32,
}

/// (name, type id, bit offset, bit size)
pub(crate) type MemberSpec<'a> = (&'a str, u32, u32, u32);

impl Blob {
    pub(crate) fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            next: 1,
            before: 0,
        }
    }

    /// The types of a module of the kernel `base`, which is complete.
    pub(crate) fn module_of(base: &Self) -> Self {
        Self {
            types: Vec::new(),
            strings: Vec::new(),
            next: base.next,
            before: base.strings.len() as u32,
        }
    }

    pub(crate) fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.before + self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A raw record: `kind`, `kflag`, `vlen`, size or type, and the words behind it.
    pub(crate) fn add(
        &mut self,
        name: &str,
        kind: u32,
        kflag: bool,
        vlen: u32,
        size_or_type: u32,
        rest: &[u32],
    ) -> u32 {
        let name = self.name(name);
        for word in [name, u32::from(kflag) << 31 | kind << 24 | vlen, size_or_type]
            .iter()
            .chain(rest)
        {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn int(&mut self, name: &str, size: u32, bits: u32) -> u32 {
        self.add(name, 1, false, 0, size, &[bits])
    }

    pub(crate) fn ptr(&mut self, to: u32) -> u32 {
        self.add("", 2, false, 0, to, &[])
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.add("", 3, false, 0, 0, &[of, 0, count])
    }

    /// kind 4 is a struct, 5 a union.
    pub(crate) fn composite(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        kflag: bool,
        members: &[MemberSpec<'_>],
    ) -> u32 {
        let mut rest = Vec::new();
        for &(name, type_id, offset, bits) in members {
            rest.extend([
                self.name(name),
                type_id,
                if kflag { bits << 24 | offset } else { offset },
            ]);
        }
        self.add(name, kind, kflag, members.len() as u32, size, &rest)
    }

    pub(crate) fn strukt(&mut self, name: &str, size: u32, members: &[MemberSpec<'_>]) -> u32 {
        self.composite(4, name, size, false, members)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&0xeb9fu16.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend_from_slice(&u32::to_ne_bytes(word));
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }

    pub(crate) fn parse(&self) -> Btf {
        Btf::parse(self.bytes()).expect("a well-formed blob")
    }
}
