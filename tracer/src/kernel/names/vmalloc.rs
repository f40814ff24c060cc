//! Memory of `vmalloc`: who allocated it, as `/proc/vmallocinfo` would tell, without the locks that reading that takes.
//!
//! KERNEL: `find_vmap_area` (mm/vmalloc.c): one tree of areas up to 6.8, since then one for each of a few nodes.

use super::Named;
use super::reader::{Reader, Soon};
use crate::ids::KernelAddr;
use crate::kernel::btf::Btf;
use crate::kernel::symbols::Symbols;

const KERNEL_START: u64 = 0xff00_0000_0000_0000;
/// KERNEL: `vmap_init_nodes` makes at most 128.
const MAX_NODES: u64 = 128;
/// Depth of a tree that is followed: a red-black tree of more areas does not fit into memory.
const MAX_DEPTH: usize = 64;

/// What it takes to find an area.
#[derive(Debug, Default)]
pub struct Vmalloc(Option<Known>);

#[derive(Debug)]
struct Known {
    trees: Trees,
    start: u64,
    end: u64,
    node: u64,
    left: u64,
    right: u64,
    vm: u64,
    caller: u64,
}

#[derive(Debug)]
enum Trees {
    /// Address of the root.
    One(u64),
    /// Addresses of the variables with the array of nodes and with its length, the size of a node, and the root in it.
    Nodes {
        array: u64,
        count: u64,
        unit: u64,
        root: u64,
    },
}

impl Vmalloc {
    /// For one kernel; finds nothing where a symbol or a field is missing.
    #[must_use]
    pub fn new(symbols: Option<&Symbols>, btf: Option<&Btf>) -> Self {
        Self((|| {
            let (symbols, btf) = (symbols?, btf?);
            let variable = |name| Some(symbols.find(name).find(|s| !s.is_code())?.address.0);
            let member = |of, path| Some(u64::from(btf.member_offset(of, path).ok()?.bytes));
            let trees = variable("vmap_area_root").map(Trees::One).or_else(|| {
                Some(Trees::Nodes {
                    array: variable("vmap_nodes")?,
                    count: variable("nr_vmap_nodes")?,
                    unit: btf.struct_size("vmap_node").ok()?.into(),
                    root: member("vmap_node", "busy.root.rb_node")?,
                })
            })?;
            Some(Known {
                trees,
                start: member("vmap_area", "va_start")?,
                end: member("vmap_area", "va_end")?,
                node: member("vmap_area", "rb_node")?,
                left: member("rb_node", "rb_left")?,
                right: member("rb_node", "rb_right")?,
                vm: member("vmap_area", "vm")?,
                caller: member("vm_struct", "caller")?,
            })
        })())
    }

    /// What lies at an address: the function that allocated the memory, and how far into it.
    pub fn name(&self, reader: &mut Reader, symbols: Option<&Symbols>, addr: u64) -> Soon<Option<Named>> {
        let (Some(known), Some(symbols)) = (&self.0, symbols) else {
            return Ok(None);
        };
        let Some((start, caller)) = known.area(reader, addr)? else {
            return Ok(None);
        };
        let Some(caller) = symbols.resolve(KernelAddr(caller)).filter(|s| s.is_code()) else {
            return Ok(None);
        };
        let module = caller.module.map_or_else(String::new, |module| format!(" [{module}]"));
        let class = format!("vmalloc memory of {}{module}", caller.name);
        Ok(Some(Named {
            name: format!("{class}, +{:#x}", addr - start),
            source: "vmalloc area; the function that allocated it".to_owned(),
            class,
            firm: false,
            fixed: false,
            again: false,
        }))
    }
}

impl Known {
    /// Start of the area around an address, and where it was allocated.
    fn area(&self, reader: &mut Reader, addr: u64) -> Soon<Option<(u64, u64)>> {
        let roots: Vec<u64> = match self.trees {
            Trees::One(root) => vec![root],
            Trees::Nodes {
                array,
                count,
                unit,
                root,
            } => {
                let (array, count) = (reader.word(array), reader.half(count));
                let (Some(array), Some(count)) = (array?, count?) else {
                    return Ok(None);
                };
                let count = u64::from(count).min(MAX_NODES);
                (0..count).map(|n| array.wrapping_add(n * unit + root)).collect()
            }
        };
        // All of them, so that all words are fetched at once.
        let found: Vec<Soon<Option<(u64, u64)>>> =
            roots.into_iter().map(|root| self.search(reader, root, addr)).collect();
        for one in found {
            if let Some((start, vm)) = one? {
                let caller = reader.word(vm.wrapping_add(self.caller))?;
                return Ok(caller.map(|caller| (start, caller)));
            }
        }
        Ok(None)
    }

    /// The area around an address in one tree: its start and its `vm_struct`. The tree may change meanwhile; then the area is not found.
    fn search(&self, reader: &mut Reader, root: u64, addr: u64) -> Soon<Option<(u64, u64)>> {
        let mut at = reader.word(root)?;
        for _ in 0..MAX_DEPTH {
            let Some(node) = at.filter(|&node| node >= KERNEL_START) else {
                return Ok(None);
            };
            let area = node.wrapping_sub(self.node);
            let (start, end, left, right, vm) = (
                reader.word(area.wrapping_add(self.start)),
                reader.word(area.wrapping_add(self.end)),
                reader.word(node.wrapping_add(self.left)),
                reader.word(node.wrapping_add(self.right)),
                reader.word(area.wrapping_add(self.vm)),
            );
            let (Some(start), Some(end), left, right, vm) = (start?, end?, left?, right?, vm?) else {
                return Ok(None);
            };
            if addr < start {
                at = left;
            } else if addr >= end {
                at = right;
            } else {
                return Ok(vm.filter(|&vm| vm >= KERNEL_START).map(|vm| (start, vm)));
            }
        }
        Ok(None)
    }
}
