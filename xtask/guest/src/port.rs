//! The channel's wire: QEMU's debug port, written with `outsb`.
//!
//! Why not a serial line or virtio: both need interrupts, workqueues or a live tty layer, and this machine exists to
//! have its kernel broken. A port write needs nothing of the kernel once `ioperm` is granted, is never buffered, and
//! gives about 680 kB/s under emulation (measured), more than `/dev/ttyS1`.

use std::io;
use xtask_guest::plan::{CHANNEL_PORT, EXIT_PORT};

/// The right of this thread, and of those it starts later, to write the channel's two ports.
pub struct Port(());

impl Port {
    /// Asks the kernel for the ports.
    ///
    /// # Errors
    /// Not root, or a locked-down kernel.
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "ioperm(2) has no safe wrapper")]
    pub fn open() -> io::Result<Self> {
        for port in [CHANNEL_PORT, EXIT_PORT] {
            // SAFETY: takes three integers and touches no memory of this process.
            if unsafe { libc::ioperm(port.into(), 1, 1) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(()))
    }

    /// There are no ports elsewhere; the VM is x86-64.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn open() -> io::Result<Self> {
        let _ = Self(());
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends bytes to the host; they have arrived when it returns.
    pub fn write(&self, bytes: &[u8]) {
        out(CHANNEL_PORT, bytes);
    }

    /// Ends the machine.
    pub fn power_off(&self) {
        out(EXIT_PORT, &[0]);
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "there is no other way to a port on kernels without /dev/port")]
fn out(port: u16, bytes: &[u8]) {
    // SAFETY: reads exactly `bytes`, writes no memory; `Port` proves that the kernel allows both ports.
    unsafe {
        core::arch::asm!(
            "rep outsb",
            in("dx") port,
            inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, readonly, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn out(_port: u16, _bytes: &[u8]) {}
