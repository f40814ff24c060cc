//! A page of memory that is never filled: whoever touches it sleeps in the page fault.
//!
//! KERNEL: userfaultfd(2); include/uapi/linux/userfaultfd.h.
#![expect(
    unsafe_code,
    reason = "a page without contents cannot be had, nor be touched, in safe Rust"
)]

use anyhow::Result;
use rustix::fd::OwnedFd;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, userfaultfd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const PAGE: usize = 4096;
const GROUP: u8 = 0xaa;
const UFFD_API: u64 = 0xaa;
const REGISTER_MISSING: u64 = 1;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// See the module.
pub struct MissingPage {
    start: *mut u8,
    handler: Mutex<Option<OwnedFd>>,
}

// SAFETY: the page is only read, and lives as long as the process.
unsafe impl Sync for MissingPage {}

impl MissingPage {
    /// Maps it.
    ///
    /// # Errors
    /// The kernel has no userfaultfd, or refuses it.
    pub fn new() -> Result<Self> {
        // SAFETY: faults are only delayed: closing the descriptor lets them all go on.
        let handler = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?;
        let mut api = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_API reads and writes a `struct uffdio_api`, which `Api` is.
        unsafe {
            ioctl(
                &handler,
                Updater::<{ opcode::read_write::<Api>(GROUP, 0x3f) }, Api>::new(&mut api),
            )
        }?;
        // SAFETY: a new private mapping, of which nobody knows.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let mut register = Register {
            start: start as u64,
            len: PAGE as u64,
            mode: REGISTER_MISSING,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_REGISTER reads and writes a `struct uffdio_register`, which `Register` is; the range is ours.
        unsafe {
            ioctl(
                &handler,
                Updater::<{ opcode::read_write::<Register>(GROUP, 0) }, Register>::new(&mut register),
            )
        }?;
        Ok(Self {
            start: start.cast(),
            handler: Mutex::new(Some(handler)),
        })
    }

    /// Its contents. Whoever looks sleeps until [`Self::fill`]; then they are zeros.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the page is mapped, readable, never written and never unmapped.
        unsafe { std::slice::from_raw_parts(self.start, 64) }
    }

    /// Lets everybody go on.
    pub fn fill(&self) {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// CPU time.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub system: Duration,
    pub user: Duration,
}

/// CPU time of all children that were waited for.
///
/// # Errors
/// Never, as far as is known.
pub fn children_cpu() -> Result<Cpu> {
    // SAFETY: zeros are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a `struct rusage`.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let time =
        |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1_000);
    Ok(Cpu {
        system: time(usage.ru_stime),
        user: time(usage.ru_utime),
    })
}
