//! A name index that stores no names: (hash, item) pairs, sorted by hash.
//!
//! BTF and kallsyms both hold their names in one buffer already; eight bytes an item are enough to find one again. The
//! caller compares the candidates' real names, so a hash collision costs a comparison and never a wrong answer.

/// Items of one collection, found by the hash of a name.
#[derive(Debug, Default)]
pub(crate) struct NameIndex {
    pairs: Vec<(u32, u32)>,
}

impl NameIndex {
    /// Builds the index from the items' names and numbers; candidates of one hash keep ascending item order.
    pub(crate) fn build<'a>(items: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut pairs: Vec<(u32, u32)> = items.map(|(name, item)| (hash(name), item)).collect();
        pairs.sort_unstable();
        Self { pairs }
    }

    /// Items whose name *may* be `name`, in ascending order.
    pub(crate) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let wanted = hash(name);
        let start = self.pairs.partition_point(|&(h, _)| h < wanted);
        self.pairs
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take_while(move |&&(h, _)| h == wanted)
            .map(|&(_, item)| item)
    }
}

/// FNV-1a, 32 bits.
fn hash(name: &[u8]) -> u32 {
    name.iter()
        .fold(0x811c_9dc5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
