//! What it costs to name 10,000 contended locks: inodes of a tmpfs, each told with its file system, device and number.
//!
//! `cargo bench -p tracer --bench names`. The kernel's memory is made up after this machine's own types. `with_the_real_reader` also
//! fetches as many words of the running kernel, by the iterator that live uses; without the right to load it, it says so.
//! The goal is less than a second.

#![allow(clippy::expect_used, reason = "a benchmark may stop anywhere")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tracer::bpf::load::{self, Sizes};
use tracer::event::LockKind;
use tracer::ids::LockAddr;
use tracer::kernel::btf::{Btf, VMLINUX};
use tracer::kernel::facts::KernelFacts;
use tracer::kernel::names::{Aliases, LockNamer};
use tracer::kernel::offsets::{KernelOffsets, ResolvedOffsets};
use tracer::kernel::stackscan::Memory;
use tracer::kernel::symbols::Symbols;
use tracer::kernel::sysroot::Sysroot;
use tracer::source::snapshot::Walker;
use tracer_common::config::Settings;

const LOCKS: u64 = 10_000;
const DIRECT: u64 = 0xffff_8880_0000_0000;
const PAGES: u64 = 0xffff_ea00_0000_0000;
const VARIABLES: u64 = 0xffff_ffff_8200_0000;
const CACHE: u64 = DIRECT + 0x4000_0000;
const SUPER: u64 = CACHE + 0x1000;
const TYPE: u64 = CACHE + 0x2000;
const TEXT: u64 = CACHE + 0x3000;
const PAGE: u64 = 4096;

fn main() {
    if Path::new(VMLINUX).exists() {
        divan::main();
    } else {
        println!("not measured: this kernel has no {VMLINUX}");
    }
}

/// Memory by pages.
#[derive(Default)]
struct Made(HashMap<u64, Vec<u8>>);

impl Made {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (at, &byte) in (at..).zip(bytes) {
            let page = self.0.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize]);
            if let Some(cell) = page.get_mut((at % PAGE) as usize) {
                *cell = byte;
            }
        }
    }

    fn word(&self, at: u64) -> Option<u64> {
        let byte = |at: u64| self.0.get(&(at / PAGE))?.get((at % PAGE) as usize).copied();
        let mut word = [0; 8];
        for (at, cell) in (at..).zip(&mut word) {
            *cell = byte(at)?;
        }
        Some(u64::from_le_bytes(word))
    }
}

impl Memory for &Made {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        Ok(addrs.iter().map(|&at| self.word(at)).collect())
    }
}

/// A kernel with so many inodes, and where their locks are.
fn kernel(btf: &Btf, o: &KernelOffsets) -> Result<(Made, Vec<(LockAddr, LockKind)>)> {
    const STRUCT: &str = "shmem_inode_info";
    let mut made = Made::default();
    let size = u64::from(btf.struct_size(STRUCT)?);
    let inode = u64::from(btf.member_offset(STRUCT, "vfs_inode")?.bytes);
    let lock = u64::from(btf.member_offset("inode", "i_rwsem")?.bytes);
    let at =
        |base: u64, offset: Option<u32>| Ok::<u64, anyhow::Error>(base + u64::from(offset.context("no such field")?));
    made.put(VARIABLES, &DIRECT.to_le_bytes());
    made.put(VARIABLES + 8, &PAGES.to_le_bytes());
    made.put(at(CACHE, o.cache.name)?, &TEXT.to_le_bytes());
    made.put(at(CACHE, o.cache.size)?, &(size as u32).to_le_bytes());
    made.put(at(CACHE, o.cache.object_size)?, &(size as u32).to_le_bytes());
    made.put(at(CACHE, o.cache.refcount)?, &1_u32.to_le_bytes());
    made.put(TEXT, b"shmem_inode_cache\0");
    made.put(TEXT + 64, b"tmpfs\0");
    made.put(at(SUPER, o.inode.device)?, &23_u32.to_le_bytes());
    made.put(at(SUPER, o.inode.fs_type)?, &TYPE.to_le_bytes());
    made.put(at(SUPER, o.inode.device_name)?, b"tmpfs\0");
    made.put(at(TYPE, o.inode.fs_name)?, &(TEXT + 64).to_le_bytes());
    let each = PAGE / size;
    let flag = btf.enumerator("PG_slab").filter(|bit| (0..64).contains(bit));
    let code = btf.enumerator("PGTY_slab");
    let mut locks = Vec::new();
    for n in 0..LOCKS {
        let (page, place) = (n / each, n % each);
        let head = PAGES + page * u64::from(o.sizes.page.context("no struct page")?);
        made.put(
            at(head, o.page.flags)?,
            &flag.map_or(0, |bit| 1_u64 << bit).to_le_bytes(),
        );
        made.put(at(head, o.page.slab_cache)?, &CACHE.to_le_bytes());
        if let Some(code) = code {
            made.put(at(head, o.page.page_type)?, &((code as u32) << 24).to_le_bytes());
        }
        let object = DIRECT + page * PAGE + place * size + inode;
        made.put(at(object, o.inode.number)?, &n.to_le_bytes());
        made.put(at(object, o.inode.sb)?, &SUPER.to_le_bytes());
        locks.push((LockAddr(object + lock), LockKind::Rwsem));
    }
    Ok((made, locks))
}

fn namer(btf: &Arc<Btf>, offsets: &KernelOffsets) -> Result<LockNamer> {
    let text = format!(
        "{VARIABLES:x} D page_offset_base\n{:x} D vmemmap_base\n{:x} D next\n",
        VARIABLES + 8,
        VARIABLES + 16
    );
    let symbols = Symbols::parse(Path::new("kallsyms"), text.as_bytes())?;
    Ok(LockNamer::new(
        Some(Arc::new(symbols)),
        Some(Arc::clone(btf)),
        offsets,
        Aliases::default(),
        1,
        Sysroot::at("/no/such"),
    ))
}

/// Names all of them once with a new namer; every one must be right.
fn name(
    btf: &Arc<Btf>,
    offsets: &KernelOffsets,
    locks: &[(LockAddr, LockKind)],
    memory: &mut dyn Memory,
) -> Result<()> {
    let names = namer(btf, offsets)?.name(black_box(locks), memory)?;
    let last = names.last().cloned().flatten().context("the last lock has no name")?;
    let expected = format!("inode.i_rwsem of inode {} (tmpfs, 0:23)", LOCKS - 1);
    anyhow::ensure!(last.name == expected, "{last:?} instead of {expected}");
    anyhow::ensure!(names.iter().flatten().all(|named| named.firm), "some have no name");
    Ok(())
}

#[divan::bench(sample_count = 20)]
fn ten_thousand(bencher: Bencher<'_, '_>) {
    let btf = Arc::new(Btf::load(Path::new(VMLINUX)).expect("BTF"));
    let offsets = ResolvedOffsets::resolve(&btf).offsets;
    let (made, locks) = kernel(&btf, &offsets).expect("a kernel that has tmpfs");
    bencher
        .counter(ItemsCount::new(LOCKS))
        .bench(|| name(&btf, &offsets, &locks, &mut &made).expect("names"));
}

/// Answers from made-up memory, after having fetched as many words from the kernel.
struct Both<'m, M> {
    made: &'m Made,
    real: M,
    /// Something readable.
    address: u64,
}

impl<M: Memory> Memory for Both<'_, M> {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        let real: Vec<u64> = (0..addrs.len() as u64).map(|n| self.address + n % 512 * 8).collect();
        let fetched = self.real.read(&real)?;
        anyhow::ensure!(fetched.iter().all(Option::is_some), "kernel code is not readable");
        let mut made = self.made;
        made.read(addrs)
    }
}

#[divan::bench(sample_count = 20)]
fn with_the_real_reader(bencher: Bencher<'_, '_>) {
    let real = (|| {
        let facts = KernelFacts::of_this_machine()?;
        let btf = aya::Btf::from_sys_fs()?;
        let sizes = Sizes::without_probes(facts.possible_cpus);
        let mut settings = Settings::NONE;
        sizes.apply(&mut settings);
        let mut ebpf = load::load(&btf, &facts.layout, &settings, &sizes, 0)?;
        let walker = Walker::new(&mut ebpf, &btf, &facts)?;
        let symbols = facts.files.symbols().context("no symbols")?;
        let text = symbols.find("_stext").next().context("no _stext")?.address.0;
        Ok::<_, anyhow::Error>((ebpf, walker, text))
    })();
    let (mut ebpf, walker, address) = match real {
        Ok(real) => real,
        Err(error) => {
            println!("not measured: {error:#}");
            return bencher.bench(|| ());
        }
    };
    let btf = Arc::new(Btf::load(Path::new(VMLINUX)).expect("BTF"));
    let offsets = ResolvedOffsets::resolve(&btf).offsets;
    let (made, locks) = kernel(&btf, &offsets).expect("a kernel that has tmpfs");
    bencher.counter(ItemsCount::new(LOCKS)).bench_local(|| {
        let mut memory = Both {
            made: &made,
            real: walker.memory(&mut ebpf),
            address,
        };
        name(&btf, &offsets, &locks, &mut memory).expect("names");
    });
}
