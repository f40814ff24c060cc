//! Where the programs for watched locks go: onto the fast paths of locks, by trampolines, and only when a lock is watched.
//!
//! A function that this kernel lacks or has inlined is reported: acquisitions or releases through it are not seen.

use anyhow::{Context, Result};
use aya::programs::{FEntry, FExit};
use aya::{Btf, Ebpf};

use super::attach::Attached;
use super::leave::{Asks, Attachment, Links};
use crate::event::LockKind;

/// One program and the function it hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchProbe {
    /// Name of the program in the BPF object.
    pub program: &'static str,
    /// The function.
    pub function: &'static str,
    /// Kind of the locks that it takes or gives back.
    pub kind: LockKind,
    /// Takes it, else gives it back.
    takes: bool,
}

const fn takes(program: &'static str, function: &'static str, kind: LockKind) -> WatchProbe {
    WatchProbe {
        program,
        function,
        kind,
        takes: true,
    }
}

const fn gives(program: &'static str, function: &'static str, kind: LockKind) -> WatchProbe {
    WatchProbe {
        program,
        function,
        kind,
        takes: false,
    }
}

/// Every function that takes or gives back a lock of these kinds. KERNEL: kernel/locking/{spinlock,mutex,rwsem}.c, 5.10 to 6.18,
/// without lock debugging (with it the nested variants are called instead).
pub const PROBES: &[WatchProbe] = &[
    takes("w_spin_lock", "_raw_spin_lock", LockKind::Spinlock),
    takes("w_spin_lock_bh", "_raw_spin_lock_bh", LockKind::Spinlock),
    takes("w_spin_lock_irq", "_raw_spin_lock_irq", LockKind::Spinlock),
    takes("w_spin_lock_irqsave", "_raw_spin_lock_irqsave", LockKind::Spinlock),
    takes("w_spin_trylock", "_raw_spin_trylock", LockKind::Spinlock),
    takes("w_spin_trylock_bh", "_raw_spin_trylock_bh", LockKind::Spinlock),
    gives("w_spin_unlock", "_raw_spin_unlock", LockKind::Spinlock),
    gives("w_spin_unlock_bh", "_raw_spin_unlock_bh", LockKind::Spinlock),
    gives("w_spin_unlock_irq", "_raw_spin_unlock_irq", LockKind::Spinlock),
    gives(
        "w_spin_unlock_restore",
        "_raw_spin_unlock_irqrestore",
        LockKind::Spinlock,
    ),
    takes("w_read_lock", "_raw_read_lock", LockKind::Rwlock),
    takes("w_read_lock_bh", "_raw_read_lock_bh", LockKind::Rwlock),
    takes("w_read_lock_irq", "_raw_read_lock_irq", LockKind::Rwlock),
    takes("w_read_lock_irqsave", "_raw_read_lock_irqsave", LockKind::Rwlock),
    takes("w_read_trylock", "_raw_read_trylock", LockKind::Rwlock),
    gives("w_read_unlock", "_raw_read_unlock", LockKind::Rwlock),
    gives("w_read_unlock_bh", "_raw_read_unlock_bh", LockKind::Rwlock),
    gives("w_read_unlock_irq", "_raw_read_unlock_irq", LockKind::Rwlock),
    gives("w_read_unlock_restore", "_raw_read_unlock_irqrestore", LockKind::Rwlock),
    takes("w_write_lock", "_raw_write_lock", LockKind::Rwlock),
    takes("w_write_lock_bh", "_raw_write_lock_bh", LockKind::Rwlock),
    takes("w_write_lock_irq", "_raw_write_lock_irq", LockKind::Rwlock),
    takes("w_write_lock_irqsave", "_raw_write_lock_irqsave", LockKind::Rwlock),
    takes("w_write_trylock", "_raw_write_trylock", LockKind::Rwlock),
    gives("w_write_unlock", "_raw_write_unlock", LockKind::Rwlock),
    gives("w_write_unlock_bh", "_raw_write_unlock_bh", LockKind::Rwlock),
    gives("w_write_unlock_irq", "_raw_write_unlock_irq", LockKind::Rwlock),
    gives(
        "w_write_unlock_restore",
        "_raw_write_unlock_irqrestore",
        LockKind::Rwlock,
    ),
    takes("w_mutex_lock", "mutex_lock", LockKind::Mutex),
    takes("w_mutex_lock_io", "mutex_lock_io", LockKind::Mutex),
    takes("w_mutex_lock_int", "mutex_lock_interruptible", LockKind::Mutex),
    takes("w_mutex_lock_kill", "mutex_lock_killable", LockKind::Mutex),
    takes("w_mutex_trylock", "mutex_trylock", LockKind::Mutex),
    gives("w_mutex_unlock", "mutex_unlock", LockKind::Mutex),
    takes("w_down_read", "down_read", LockKind::Rwsem),
    takes("w_down_read_int", "down_read_interruptible", LockKind::Rwsem),
    takes("w_down_read_kill", "down_read_killable", LockKind::Rwsem),
    takes("w_down_read_try", "down_read_trylock", LockKind::Rwsem),
    takes("w_down_write", "down_write", LockKind::Rwsem),
    takes("w_down_write_kill", "down_write_killable", LockKind::Rwsem),
    takes("w_down_write_try", "down_write_trylock", LockKind::Rwsem),
    gives("w_up_read", "up_read", LockKind::Rwsem),
    gives("w_up_write", "up_write", LockKind::Rwsem),
    gives("w_downgrade", "downgrade_write", LockKind::Rwsem),
];

/// Why the releases of these locks cannot all be seen: whoever was seen to take one would be accused for ever.
#[must_use]
pub fn blind(attached: &[Attached]) -> Option<String> {
    let gives = |a: &&Attached| PROBES.iter().any(|p| !p.takes && p.program == a.program);
    let missing: Vec<String> = attached
        .iter()
        .filter(gives)
        .filter(|a| a.error.is_some())
        .map(ToString::to_string)
        .collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Attaches the programs for locks of these kinds.
pub fn attach(ebpf: &mut Ebpf, btf: &Btf, kinds: &[LockKind], links: &mut Links) -> Vec<Attached> {
    let wanted = PROBES.iter().filter(|probe| kinds.contains(&probe.kind));
    wanted
        .map(|probe| Attached {
            program: probe.program,
            target: probe.function.into(),
            error: one(ebpf, btf, probe, links).err().map(|error| format!("{error:#}")),
        })
        .collect()
}

fn one(ebpf: &mut Ebpf, btf: &Btf, probe: &WatchProbe, links: &mut Links) -> Result<()> {
    let program = ebpf.program_mut(probe.program).context("not in the BPF object")?;
    let link = if probe.takes {
        let program: &mut FExit = program.try_into()?;
        program.load(probe.function, btf).context("loading")?;
        let link = program.attach().context("attaching")?;
        program.take_link(link).context("attaching")?.into()
    } else {
        let program: &mut FEntry = program.try_into()?;
        program.load(probe.function, btf).context("loading")?;
        let link = program.attach().context("attaching")?;
        program.take_link(link).context("attaching")?.into()
    };
    links.keep(probe.program, Attachment::Function(link), Asks::GracePeriod)
}
