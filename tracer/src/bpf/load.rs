//! Loads the BPF object with the layout of the running kernel and the settings of this run.

use anyhow::{Context, Result};
use aya::{Btf, Ebpf, EbpfLoader};
use tracer_common::config::{Layout, Settings};
use tracer_common::table::BUCKET_SLOTS;
use zerocopy::IntoBytes;

use super::OBJECT;

/// Sizes of the shared tables, chosen from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Buckets of slots for pending waits; a power of two.
    pub wait_buckets: u32,
    /// Lock cells per CPU and bank; a power of two.
    pub cells: u32,
    /// Spin log entries per CPU; a power of two.
    pub spin_log: u32,
    /// Bytes of the ring buffer; a power of two.
    pub ring: u32,
    /// Entries of the log of watched locks per CPU; a power of two.
    pub watch_log: u32,
    /// Possible CPUs.
    pub cpus: u32,
}

impl Sizes {
    /// Sizes for a machine with this many possible CPUs and this highest thread id. Memory stays near 10 MB on a small machine
    /// and below 100 MB on one with 512 CPUs.
    #[must_use]
    pub fn for_machine(cpus: u32, pid_max: u32) -> Self {
        let cpus = cpus.max(1);
        Self {
            wait_buckets: (pid_max / BUCKET_SLOTS as u32)
                .clamp(1 << 10, 1 << 14)
                .next_power_of_two(),
            cells: if cpus <= 16 { 1024 } else { 256 },
            spin_log: match cpus {
                0..=16 => 4096,
                17..=64 => 1024,
                _ => 256,
            },
            ring: if cpus <= 16 { 1 << 22 } else { 1 << 24 },
            watch_log: 1,
            cpus,
        }
    }

    /// The smallest tables, for runs that attach no probes.
    #[must_use]
    pub fn without_probes(cpus: u32) -> Self {
        const PAGE: u32 = 4096;
        Self {
            wait_buckets: 1,
            cells: 1,
            spin_log: 1,
            ring: PAGE,
            watch_log: 1,
            cpus: cpus.max(1),
        }
    }

    /// Entries of the wait table.
    #[must_use]
    pub fn wait_entries(&self) -> u32 {
        self.wait_buckets * BUCKET_SLOTS as u32
    }

    /// Entries of the lock table: two banks, a part per CPU.
    #[must_use]
    pub fn cell_entries(&self) -> u32 {
        2 * self.cpus * self.cells
    }

    /// Makes room to log every acquisition and release of watched locks.
    pub fn with_watched_locks(&mut self) {
        self.watch_log = if self.cpus <= 16 { 1 << 14 } else { 1 << 12 };
    }

    /// Entries of the log of watched locks.
    #[must_use]
    pub fn watch_entries(&self) -> u32 {
        self.cpus * self.watch_log
    }

    /// Entries of the spin log.
    #[must_use]
    pub fn spin_log_entries(&self) -> u32 {
        self.cpus * self.spin_log
    }

    /// Completes the settings with the index masks.
    pub fn apply(&self, settings: &mut Settings) {
        settings.wait_mask = self.wait_buckets - 1;
        settings.cell_mask = self.cells - 1;
        settings.spin_log_mask = self.spin_log - 1;
        settings.watch_log_mask = self.watch_log - 1;
        settings.cpus = self.cpus;
    }
}

/// Loads maps; programs are loaded one by one when they are attached.
///
/// # Errors
/// When the kernel refuses a map, usually for lack of privileges.
pub fn load(btf: &Btf, layout: &Layout, settings: &Settings, sizes: &Sizes, log_level: u8) -> Result<Ebpf> {
    EbpfLoader::new()
        .btf(Some(btf))
        .override_global("LAYOUT", layout.as_bytes(), true)
        .override_global("SETTINGS", settings.as_bytes(), true)
        .override_global("AYA_LOG_LEVEL", &log_level, false)
        .map_max_entries("WAIT_BUCKETS", sizes.wait_buckets)
        .map_max_entries("WAITS", sizes.wait_entries())
        .map_max_entries("CELLS", sizes.cell_entries())
        .map_max_entries("SPIN_LOG", sizes.spin_log_entries())
        .map_max_entries("SPINS", sizes.cpus)
        .map_max_entries("WATCH_LOG", sizes.watch_entries())
        .map_max_entries("WATCH_CPUS", sizes.cpus)
        .map_max_entries("CPUS", sizes.cpus)
        .map_max_entries("SAMPLES", sizes.cpus)
        .map_max_entries("RING", sizes.ring)
        .load(OBJECT)
        .context("loading the BPF object")
}
