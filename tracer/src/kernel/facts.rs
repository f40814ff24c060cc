//! What one start of holdup needs to know of the running kernel, read once.

use std::sync::Arc;

use anyhow::{Context, Result};
use tracer_common::config::Layout;

use super::btf::{self, Btf, BtfLoadError};
use super::cpus::CpuList;
use super::layout::bpf_layout;
use super::names::{Aliases, LockNamer};
use super::offsets::ResolvedOffsets;
use super::preflight::{Machine, Preflight};
use super::symbols::{Symbols, SymbolsError};
use super::sysroot::Sysroot;
use crate::bpf::probes::FunctionNames;
use crate::ids::KernelAddr;

/// The kernel's own files, read once and shared by everything that asks.
#[derive(Debug)]
pub struct KernelFiles {
    root: Sysroot,
    btf: Result<Arc<Btf>, BtfLoadError>,
    symbols: Result<Arc<Symbols>, SymbolsError>,
}

impl KernelFiles {
    /// Reads BTF and symbols below `root`.
    #[must_use]
    pub fn read(root: Sysroot) -> Self {
        let btf = Btf::load(&root.path(btf::VMLINUX)).map(Arc::new);
        let symbols = Symbols::load(&root.path("/proc/kallsyms")).map(Arc::new);
        Self { root, btf, symbols }
    }

    /// Every check of this machine.
    #[must_use]
    pub fn preflight(&self) -> Preflight {
        Preflight::of(Machine {
            root: &self.root,
            btf: self.btf.as_ref().map(AsRef::as_ref),
            symbols: self.symbols.as_ref().map(AsRef::as_ref),
        })
    }

    /// The kernel's types, where it has them.
    #[must_use]
    pub fn btf(&self) -> Option<&Arc<Btf>> {
        self.btf.as_ref().ok()
    }

    /// Where the files are.
    #[must_use]
    pub fn root(&self) -> &Sysroot {
        &self.root
    }

    /// The kernel's symbols, where they can be read.
    #[must_use]
    pub fn symbols(&self) -> Option<&Arc<Symbols>> {
        self.symbols.as_ref().ok()
    }

    /// Whether the kernel has `lock:contention_begin` and `contention_end` (5.19 and newer).
    #[must_use]
    pub fn tracepoints(&self) -> bool {
        self.btf()
            .is_some_and(|btf| btf.has_tracepoint("contention_begin") && btf.has_tracepoint("contention_end"))
    }
}

impl FunctionNames for KernelFiles {
    fn variants(&self, name: &str) -> Vec<String> {
        let symbols = self.symbols();
        let found = symbols.into_iter().flat_map(|symbols| symbols.find_code(name));
        found
            .filter(|symbol| symbol.module.is_none())
            .map(|symbol| symbol.name.to_owned())
            .collect()
    }
}

/// What the BPF programs are set up with.
#[derive(Debug)]
pub struct KernelFacts {
    /// Host name; empty when unreadable.
    pub host: String,
    /// Kernel release, as `uname -r` prints it; empty when unreadable.
    pub release: String,
    /// The files they come from.
    pub files: KernelFiles,
    /// Offsets from BTF, with what is missing.
    pub offsets: ResolvedOffsets,
    /// The same as the BPF programs take them.
    pub layout: Layout,
    /// One more than the highest possible CPU number.
    pub possible_cpus: u32,
    /// Upper bound of thread ids.
    pub pid_max: u32,
    /// Address of the array `__per_cpu_offset` and place of the preempt count in a CPU's area, where kallsyms shows data symbols.
    pub preempt_count: Option<PreemptCount>,
}

/// Where to read a CPU's preempt count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreemptCount {
    /// Address of the array `__per_cpu_offset`.
    pub per_cpu_offset: KernelAddr,
    /// Address of the count relative to a CPU's offset.
    pub address: u64,
}

impl KernelFacts {
    /// Reads everything and checks that holdup can work here.
    ///
    /// # Errors
    /// When a check is fatal: the error is one paragraph that says what is missing and what to do.
    pub fn of_this_machine() -> Result<Self> {
        let root = Sysroot::host();
        let files = KernelFiles::read(root.clone());
        files.preflight().pass()?;
        let btf = files.btf().context("no BTF, although the checks passed")?;
        let offsets = ResolvedOffsets::resolve(btf);
        // Only shown: a machine that hides them can still be traced.
        let shown = |path| root.text(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        Ok(Self {
            host: shown("/proc/sys/kernel/hostname"),
            release: shown("/proc/sys/kernel/osrelease"),
            layout: bpf_layout(&offsets.offsets),
            possible_cpus: CpuList::possible(&root)?.slots(),
            pid_max: pid_max(&root)?,
            preempt_count: preempt_count(btf, files.symbols().map(AsRef::as_ref)),
            offsets,
            files,
        })
    }

    /// What names this kernel's locks.
    #[must_use]
    pub fn lock_namer(&self) -> LockNamer {
        LockNamer::new(
            self.files.symbols().cloned(),
            self.files.btf().cloned(),
            &self.offsets.offsets,
            Aliases::read(self.files.root()),
            self.possible_cpus,
            self.files.root().clone(),
        )
    }
}

/// KERNEL: x86 keeps the count in `pcpu_hot.preempt_count` (6.2 to 6.14, arch/x86/include/asm/current.h), before and after in
/// `__preempt_count` (arch/x86/include/asm/preempt.h).
fn preempt_count(btf: &Btf, symbols: Option<&Symbols>) -> Option<PreemptCount> {
    let address = |name| symbols?.find(name).next().map(|symbol| symbol.address);
    let member = btf.member_offset("pcpu_hot", "preempt_count");
    let variable = match &member {
        Ok(member) => address("pcpu_hot")?.0 + u64::from(member.bytes),
        Err(_) => address("__preempt_count")?.0,
    };
    Some(PreemptCount {
        per_cpu_offset: address("__per_cpu_offset")?,
        address: variable,
    })
}

fn pid_max(root: &Sysroot) -> Result<u32> {
    const PATH: &str = "/proc/sys/kernel/pid_max";
    let text = root.text(PATH).with_context(|| format!("reading {PATH}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{PATH} says {:?}, which is no number", text.trim()))
}
