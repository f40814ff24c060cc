//! What one start of holdup needs to know of the running kernel, read once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tracer_common::config::Layout;

use super::btf::{self, Btf};
use super::layout::bpf_layout;
use super::offsets::ResolvedOffsets;
use super::symbols::Symbols;
use crate::bpf::attach::FunctionNames;
use crate::ids::KernelAddr;

/// Facts about the running kernel.
#[derive(Debug)]
pub struct KernelFacts {
    /// Offsets from BTF, with what is missing.
    pub offsets: ResolvedOffsets,
    /// The same as the BPF programs take them.
    pub layout: Layout,
    /// Whether the kernel has `lock:contention_begin` and `contention_end` (5.19 and newer).
    pub tracepoints: bool,
    /// Number of possible CPUs.
    pub possible_cpus: u32,
    /// Upper bound of thread ids.
    pub pid_max: u32,
    /// Address of the array `__per_cpu_offset`, where kallsyms shows data symbols.
    pub per_cpu_offset: Option<KernelAddr>,
    /// Where a CPU's preempt count lies in its per-CPU area.
    pub preempt_count: Option<u64>,
    /// The kernel's symbols; `None` when they are hidden.
    pub symbols: Option<Arc<Symbols>>,
    /// Why symbols are hidden.
    pub symbols_error: Option<String>,
}

impl KernelFacts {
    /// Reads BTF, symbols and a few small files.
    ///
    /// # Errors
    /// When there is no BTF, or the CPU and pid limits cannot be read.
    pub fn read() -> Result<Self> {
        let btf = Btf::load(Path::new(btf::VMLINUX))?;
        let offsets = ResolvedOffsets::resolve(&btf);
        let layout = bpf_layout(&offsets.offsets);
        let (symbols, symbols_error) = match Symbols::load(Path::new("/proc/kallsyms")) {
            Ok(symbols) => (Some(Arc::new(symbols)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let address = |name| {
            symbols
                .as_ref()
                .and_then(|s| s.find(name).next().map(|symbol| symbol.address))
        };
        let preempt_count = match btf.member_offset("pcpu_hot", "preempt_count") {
            // KERNEL: 6.2 to 6.14 keep it in the per-CPU struct pcpu_hot (arch/x86/include/asm/current.h).
            Ok(member) => address("pcpu_hot").map(|addr| addr.0 + u64::from(member.bytes)),
            Err(_) => address("__preempt_count").map(|addr| addr.0),
        };
        Ok(Self {
            tracepoints: btf.has_tracepoint("contention_begin") && btf.has_tracepoint("contention_end"),
            possible_cpus: possible_cpus()?,
            pid_max: pid_max()?,
            per_cpu_offset: address("__per_cpu_offset").filter(|_| preempt_count.is_some()),
            preempt_count,
            offsets,
            layout,
            symbols,
            symbols_error,
        })
    }
}

impl FunctionNames for KernelFacts {
    fn variants(&self, name: &str) -> Vec<String> {
        self.symbols
            .iter()
            .flat_map(|symbols| symbols.find_code(name))
            .filter(|symbol| symbol.module.is_none())
            .map(|symbol| symbol.name.to_owned())
            .collect()
    }
}

fn pid_max() -> Result<u32> {
    let path = "/proc/sys/kernel/pid_max";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} says {:?}, which is no number", text.trim()))
}

fn possible_cpus() -> Result<u32> {
    let path = "/sys/devices/system/cpu/possible";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    highest_cpu(&text)
        .map(|cpu| cpu + 1)
        .with_context(|| format!("{path} says {:?}, which is no CPU list", text.trim()))
}

/// The highest number in a CPU list such as `0-3,8-11`.
fn highest_cpu(list: &str) -> Option<u32> {
    list.trim()
        .rsplit([',', '-'])
        .next()?
        .parse()
        .ok()
        .filter(|&cpu: &u32| cpu < 1 << 16)
}

#[cfg(test)]
mod tests {
    use super::highest_cpu;

    #[test]
    fn cpu_lists() {
        for (list, highest) in [
            ("0\n", Some(0)),
            ("0-3", Some(3)),
            ("0-3,8-11\n", Some(11)),
            ("", None),
            ("0-", None),
            ("0-99999999", None),
        ] {
            assert_eq!(highest_cpu(list), highest, "{list:?}");
        }
    }
}
