//! How a thread came from user space into the kernel: the registers that the entry code saved at the top of its kernel stack.

use syscalls::x86_64::Sysno;

use super::ask::Asker;
use super::file;
use super::syscall_class::{Class, class};
use crate::event::{Activity, Argument};
use crate::kernel::layout::stack_size;
use crate::kernel::offsets::KernelOffsets;

/// `PF_KTHREAD` and `PF_IO_WORKER` (include/linux/sched.h), 5.10 to 6.18: they came from nowhere.
const NO_USER: u32 = 0x0020_0000 | 0x10;
/// Selectors of user space: `__USER_CS`, `__USER32_CS` and `__USER_DS` (arch/x86/include/asm/segment.h).
const USER_CS: u64 = 0x33;
const USER32_CS: u64 = 0x23;
const USER_DS: u64 = 0x2b;
/// `TOP_OF_KERNEL_STACK_PADDING` (arch/x86/include/asm/thread_info.h): 16 where the kernel was built with CONFIG_X86_FRED (6.9+).
const PADDINGS: [u64; 2] = [0, 16];
/// `__X32_SYSCALL_BIT` (arch/x86/include/uapi/asm/unistd.h).
const X32: u32 = 0x4000_0000;
/// `AT_FDCWD` (include/uapi/linux/fcntl.h).
const AT_FDCWD: i32 = -100;

/// Registers of user space, as the entry code saved them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Where it goes on.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer, for code that keeps one.
    pub bp: u64,
    /// A 32-bit program.
    pub narrow: bool,
}

/// Whether a thread with these flags can have come from user space.
#[must_use]
pub fn has_user(flags: u32) -> bool {
    flags & NO_USER == 0
}

/// The registers with which a sleeping thread came into the kernel.
pub fn registers(task: u64, flags: u32, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Registers> {
    let r = &o.regs;
    let (sp, bp) = (r.sp?, r.bp?);
    let ([.., ip, cs, _], at) = saved(task, flags, o, ask)?;
    let [sp, bp] = ask.words([sp, bp].map(|field| at.wrapping_add(field.into())))?;
    Some(Registers {
        ip,
        sp,
        bp,
        narrow: low(cs) == USER32_CS,
    })
}

/// The system call or exception that a sleeping thread is in. Only on x86-64: elsewhere `struct pt_regs` has no `orig_ax`.
///
/// KERNEL: `task_pt_regs` (arch/x86/include/asm/processor.h); the entry code writes the number of the system call to `orig_ax`,
/// and -1 for exceptions and interrupts (arch/x86/entry), 5.10 to 6.18.
pub fn activity(task: u64, flags: u32, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Activity> {
    let ([orig_ax, di, _, cs, _], _) = saved(task, flags, o, ask)?;
    // The number is an int: the upper half of the register says nothing.
    let number = (orig_ax & 0xffff_ffff) as u32;
    if number == u32::MAX {
        return Some(Activity::Exception);
    }
    if low(cs) == USER32_CS {
        // Another table of numbers, which is not looked up.
        return Some(Activity::Syscall {
            number,
            name: None,
            argument: Argument::Other,
        });
    }
    let number = number & !X32;
    let name = Sysno::new(number as usize).map(|sysno| sysno.name());
    let argument = name.map_or(Argument::Other, |name| argument(name, di, task, o, ask));
    Some(Activity::Syscall {
        number,
        name: name.map(Into::into),
        argument,
    })
}

fn low(selector: u64) -> u64 {
    selector & 0xffff
}

/// `orig_ax`, `di`, `ip`, `cs` and `ss`, and where all of them stand.
fn saved(task: u64, flags: u32, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<([u64; 5], u64)> {
    let r = &o.regs;
    let (size, orig_ax, di, ip, cs, ss) = (r.size?, r.orig_ax?, r.di?, r.ip?, r.cs?, r.ss?);
    if !has_user(flags) {
        return None;
    }
    let end = ask.pointer(task, o.task.stack)?.wrapping_add(stack_size(o).into());
    let is_user = |&[.., ip, cs, ss]: &[u64; 5]| {
        // Threads that the kernel made and that never were in user space have no instruction to go back to.
        ip != 0 && [USER_CS, USER32_CS].contains(&low(cs)) && low(ss) == USER_DS
    };
    let saved = PADDINGS.map(|padding| {
        let regs = end.wrapping_sub(padding + u64::from(size));
        let places = [orig_ax, di, ip, cs, ss].map(|field| regs.wrapping_add(field.into()));
        Some((ask.words(places).filter(is_user)?, regs))
    });
    saved.into_iter().flatten().next()
}

fn argument(name: &str, di: u64, task: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Argument {
    // Descriptors are ints, too.
    let number = (di & 0xffff_ffff) as u32;
    match class(name) {
        Class::DirectoryAndPath if number.cast_signed() == AT_FDCWD => Argument::Path,
        Class::Descriptor | Class::DirectoryAndPath => match file::of_descriptor(task, number, o, ask) {
            Some((kind, path)) => Argument::File {
                kind,
                path: path.into(),
            },
            None => Argument::Descriptor { number },
        },
        Class::Path => Argument::Path,
        Class::Address => Argument::Address,
        Class::Other => Argument::Other,
    }
}
