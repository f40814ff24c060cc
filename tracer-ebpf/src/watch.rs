//! Acquisitions and releases of watched locks.
//!
//! These programs hang on the fast paths of every lock of a kind, among them the locks of the kernel's tracing and of BPF itself.
//! So they compare the address, and that is all for other locks; for a watched one they write to an array and nothing else: no
//! lock, no allocation, no ring buffer. They are attached by trampolines (fentry, fexit), never by kretprobes. The kernel skips a
//! program that is already running on the CPU, and counts it.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_smp_processor_id, bpf_get_stack, bpf_ktime_get_ns},
    },
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use tracer_common::{
    counter,
    kind::{lock_kind, mode},
    watch::{WATCH_FRAMES, act},
};

use crate::{
    layout::{SETTINGS, constant, setting},
    maps::{CONTROL, WATCH_CPUS, WATCH_LOG},
    mem::lost,
    spin,
};

macro_rules! any_of {
    ($lock:ident: $($index:literal)*) => {
        $((constant(&SETTINGS.watch[$index]) != 0 && $lock == constant(&SETTINGS.watch[$index])))||*
    };
}

/// Whether a lock is watched. The addresses are constants to the verifier, so unused places cost nothing.
#[inline(always)]
pub fn is_watched(lock: u64) -> bool {
    any_of!(lock: 0 1 2 3 4 5 6 7)
}

/// Notes one act; of a lock that is not watched it is a few comparisons.
#[inline(always)]
fn note(ctx: *mut c_void, lock: u64, act: u8, kind: u8, mode: u8) {
    if !is_watched(lock) || CONTROL.get(0).is_none_or(|control| control.watching == 0) {
        return;
    }
    // SAFETY: helpers without arguments.
    let (cpu, time) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    let Some(state) = WATCH_CPUS.get_ptr_mut(cpu) else {
        return;
    };
    // SAFETY: just looked up; the add is atomic against interrupts on this CPU.
    let number = unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(
            &raw mut (*state).logged,
            1,
        )
    };
    let mask = setting!(watch_log_mask);
    let at = cpu
        .wrapping_mul(mask.wrapping_add(1))
        .wrapping_add(number as u32 & mask);
    let Some(entry) = WATCH_LOG.get_ptr_mut(at) else { return };
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: the number is ours alone, so is the entry until the log wraps; readers check `seq` before and after.
    unsafe {
        core::ptr::write_volatile(&raw mut (*entry).seq, 0);
        (*entry).time = time;
        (*entry).lock = lock;
        (*entry).tid = pid_tgid as u32;
        (*entry).tgid = (pid_tgid >> 32) as u32;
        (*entry).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*entry).act = act;
        (*entry).kind = kind;
        (*entry).mode = mode;
        (*entry).context = spin::current_context(cpu);
        (*entry).stack_len = 0;
        if setting!(stacks) != 0 {
            let bytes = bpf_get_stack(ctx, (&raw mut (*entry).frames).cast(), (WATCH_FRAMES * 8) as u32, 0);
            if bytes < 0 {
                lost(counter::STACK_LOST);
            } else {
                (*entry).stack_len = bytes as u32 / 8;
            }
        }
        core::ptr::write_volatile(&raw mut (*entry).seq, number + 1);
    }
}

/// Functions that take a lock and always get it.
macro_rules! takes {
    ($kind:ident, $mode:ident: $($program:ident $function:literal;)*) => {$(
        #[doc = concat!("Return of `", $function, "`.")]
        #[fexit]
        pub fn $program(ctx: FExitContext) -> i32 {
            note(ctx.as_ptr(), ctx.arg(0), act::ACQUIRED, lock_kind::$kind, mode::$mode);
            0
        }
    )*};
}

/// Functions of one argument that say by their result whether they got it: by this value.
macro_rules! tries {
    ($kind:ident, $mode:ident, $got:pat => $($program:ident $function:literal;)*) => {$(
        #[doc = concat!("Return of `", $function, "`.")]
        #[fexit]
        pub fn $program(ctx: FExitContext) -> i32 {
            if matches!(ctx.arg::<i32>(1), $got) {
                note(ctx.as_ptr(), ctx.arg(0), act::ACQUIRED, lock_kind::$kind, mode::$mode);
            }
            0
        }
    )*};
}

/// Functions that give a lock back.
macro_rules! gives {
    ($kind:ident, $mode:ident: $($program:ident $function:literal;)*) => {$(
        #[doc = concat!("Entry of `", $function, "`.")]
        #[fentry]
        pub fn $program(ctx: FEntryContext) -> i32 {
            note(ctx.as_ptr(), ctx.arg(0), act::RELEASED, lock_kind::$kind, mode::$mode);
            0
        }
    )*};
}

takes! { SPINLOCK, EXCLUSIVE:
    w_spin_lock "_raw_spin_lock";
    w_spin_lock_bh "_raw_spin_lock_bh";
    w_spin_lock_irq "_raw_spin_lock_irq";
    w_spin_lock_irqsave "_raw_spin_lock_irqsave";
}
tries! { SPINLOCK, EXCLUSIVE, 1.. =>
    w_spin_trylock "_raw_spin_trylock";
    w_spin_trylock_bh "_raw_spin_trylock_bh";
}
gives! { SPINLOCK, EXCLUSIVE:
    w_spin_unlock "_raw_spin_unlock";
    w_spin_unlock_bh "_raw_spin_unlock_bh";
    w_spin_unlock_irq "_raw_spin_unlock_irq";
    w_spin_unlock_restore "_raw_spin_unlock_irqrestore";
}

takes! { RWLOCK, SHARED:
    w_read_lock "_raw_read_lock";
    w_read_lock_bh "_raw_read_lock_bh";
    w_read_lock_irq "_raw_read_lock_irq";
    w_read_lock_irqsave "_raw_read_lock_irqsave";
}
tries! { RWLOCK, SHARED, 1.. =>
    w_read_trylock "_raw_read_trylock";
}
gives! { RWLOCK, SHARED:
    w_read_unlock "_raw_read_unlock";
    w_read_unlock_bh "_raw_read_unlock_bh";
    w_read_unlock_irq "_raw_read_unlock_irq";
    w_read_unlock_restore "_raw_read_unlock_irqrestore";
}
takes! { RWLOCK, EXCLUSIVE:
    w_write_lock "_raw_write_lock";
    w_write_lock_bh "_raw_write_lock_bh";
    w_write_lock_irq "_raw_write_lock_irq";
    w_write_lock_irqsave "_raw_write_lock_irqsave";
}
tries! { RWLOCK, EXCLUSIVE, 1.. =>
    w_write_trylock "_raw_write_trylock";
}
gives! { RWLOCK, EXCLUSIVE:
    w_write_unlock "_raw_write_unlock";
    w_write_unlock_bh "_raw_write_unlock_bh";
    w_write_unlock_irq "_raw_write_unlock_irq";
    w_write_unlock_restore "_raw_write_unlock_irqrestore";
}

takes! { MUTEX, EXCLUSIVE:
    w_mutex_lock "mutex_lock";
    w_mutex_lock_io "mutex_lock_io";
}
tries! { MUTEX, EXCLUSIVE, 0 =>
    w_mutex_lock_int "mutex_lock_interruptible";
    w_mutex_lock_kill "mutex_lock_killable";
}
tries! { MUTEX, EXCLUSIVE, 1.. =>
    w_mutex_trylock "mutex_trylock";
}
gives! { MUTEX, EXCLUSIVE:
    w_mutex_unlock "mutex_unlock";
}

takes! { RWSEM, SHARED:
    w_down_read "down_read";
}
tries! { RWSEM, SHARED, 0 =>
    w_down_read_int "down_read_interruptible";
    w_down_read_kill "down_read_killable";
}
tries! { RWSEM, SHARED, 1.. =>
    w_down_read_try "down_read_trylock";
}
gives! { RWSEM, SHARED:
    w_up_read "up_read";
}
takes! { RWSEM, EXCLUSIVE:
    w_down_write "down_write";
}
tries! { RWSEM, EXCLUSIVE, 0 =>
    w_down_write_kill "down_write_killable";
}
tries! { RWSEM, EXCLUSIVE, 1.. =>
    w_down_write_try "down_write_trylock";
}
gives! { RWSEM, EXCLUSIVE:
    w_up_write "up_write";
}

/// Entry of `downgrade_write`: the writer becomes a reader.
#[fentry]
pub fn w_downgrade(ctx: FEntryContext) -> i32 {
    let lock = ctx.arg(0);
    note(ctx.as_ptr(), lock, act::RELEASED, lock_kind::RWSEM, mode::EXCLUSIVE);
    note(ctx.as_ptr(), lock, act::ACQUIRED, lock_kind::RWSEM, mode::SHARED);
    0
}
