//! Locks that are variables, or parts of variables: of the kernel, of a module, or of a CPU.

use anyhow::Result;

use super::objects::{OBJECTS, display};
use super::types::ends;
use super::{LockNamer, Named};
use crate::event::LockKind;
use crate::ids::KernelAddr;
use crate::kernel::stackscan::Memory;
use crate::kernel::symbols::{Symbol, Symbols};

/// Variables whose struct is known although types say nothing of variables: their locks get the names of members. KERNEL: 5.10 to
/// 6.18; a kernel without one of them has no such symbol.
const TYPED: &[(&str, &str)] = &[
    ("init_mm", "mm_struct"),
    ("init_task", "task_struct"),
    ("init_files", "files_struct"),
    ("init_fs", "fs_struct"),
    ("init_signals", "signal_struct"),
    ("init_sighand", "sighand_struct"),
    ("init_net", "net"),
    ("init_css_set", "css_set"),
    ("cgrp_dfl_root", "cgroup_root"),
    ("contig_page_data", "pglist_data"),
    ("serial8250_ports", "uart_8250_port"),
    ("root_user", "user_struct"),
    ("rcu_state", "rcu_state"),
];

/// Where the CPUs' areas of per-CPU variables begin.
#[derive(Debug, Default)]
pub struct Areas {
    /// Address of the array `__per_cpu_offset`.
    array: Option<u64>,
    /// Address of the first per-CPU variable, to which the offsets are added; 0 on x86-64 up to 6.14.
    start: u64,
    cpus: u32,
    /// (first address, CPU), sorted.
    begins: Vec<(u64, u32)>,
}

impl Areas {
    /// For a kernel with this many possible CPUs.
    pub fn new(symbols: Option<&Symbols>, cpus: u32) -> Self {
        let address = |name| Some(symbols?.find(name).next()?.address.0);
        Self {
            array: address("__per_cpu_offset"),
            start: address("__per_cpu_start").unwrap_or(0),
            cpus,
            begins: Vec::new(),
        }
    }

    /// Reads where the areas are, once: they never move.
    pub fn read(&mut self, memory: &mut dyn Memory) -> Result<()> {
        let Some(array) = self.array.filter(|_| self.begins.is_empty()) else {
            return Ok(());
        };
        let entries: Vec<u64> = (0..u64::from(self.cpus)).map(|cpu| array + cpu * 8).collect();
        let offsets = memory.read(&entries)?;
        self.begins = offsets
            .into_iter()
            .zip(0..)
            .filter_map(|(offset, cpu)| Some((offset?.wrapping_add(self.start), cpu)))
            .collect();
        self.begins.sort_unstable();
        Ok(())
    }

    /// Where the first CPU has what a per-CPU pointer leads to.
    pub fn first(&self, pointer: u64) -> Option<u64> {
        let &(begin, _) = self.begins.first()?;
        Some(begin.wrapping_sub(self.start).wrapping_add(pointer))
    }

    /// The CPU in whose area an address may lie, and the offset in it.
    fn place(&self, addr: u64) -> Option<(u32, u32)> {
        let after = self.begins.partition_point(|&(begin, _)| begin <= addr);
        let &(begin, cpu) = self.begins.get(after.checked_sub(1)?)?;
        Some((cpu, u32::try_from(addr - begin).ok()?))
    }
}

impl LockNamer {
    /// A lock that is (part of) a variable.
    pub(super) fn symbol(&mut self, lock: u64, kind: LockKind) -> Option<Named> {
        let symbols = self.symbols.clone()?;
        // Where the kernel shows only its code, data seems to lie in the last function before it.
        let symbol = symbols.resolve(KernelAddr(lock)).filter(|s| !s.is_code())?;
        let source = "kernel symbol".to_owned();
        if let Some(class) = self.typed(&symbol, kind) {
            return Some(Named {
                name: format!("{class} of {}", symbol.name),
                source,
                class,
                firm: true,
                fixed: true,
                again: false,
            });
        }
        let module = symbol.module.map_or_else(String::new, |module| format!(" [{module}]"));
        Some(Named {
            name: symbol.to_string(),
            source,
            class: format!("{}{module}", symbol.name),
            firm: true,
            fixed: true,
            again: false,
        })
    }

    /// The member of a variable whose struct is known; variables may be arrays.
    fn typed(&mut self, symbol: &Symbol<'_>, kind: LockKind) -> Option<String> {
        let (_, name) = TYPED.iter().find(|(variable, _)| *variable == symbol.name)?;
        let btf = self.btf.clone()?;
        let size = btf.struct_size(name).ok().filter(|&size| size > 0)?;
        let offset = u32::try_from(symbol.offset).ok()? % size;
        let paths = self.types.paths(&btf, name, offset, kind);
        paths.first().map(display)
    }

    /// A lock that is (part of) a per-CPU variable.
    pub(super) fn per_cpu(&mut self, lock: u64, kind: LockKind) -> Option<Named> {
        let (cpu, offset) = self.areas.place(lock)?;
        let btf = self.btf.as_deref()?;
        let place = btf.per_cpu_at(offset, ends(kind))?;
        let (class, variable) = match place.paths.first() {
            // The lock is the variable.
            Some(path) if path.0.len() == 1 => (place.variable.to_owned(), String::new()),
            Some(path) => {
                let whole = path.innermost(OBJECTS).is_none() && path.0.first().is_some_and(|s| s.composite.is_none());
                let class = if whole {
                    place.variable.to_owned()
                } else {
                    display(path)
                };
                (class, format!(" ({})", place.variable))
            }
            None => (place.variable.to_owned(), format!(" +{:#x}", place.offset)),
        };
        Some(Named {
            name: format!("{class} of CPU {cpu}{variable}"),
            source: "per-CPU variable".to_owned(),
            class,
            firm: true,
            fixed: true,
            again: false,
        })
    }
}
