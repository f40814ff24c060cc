//! Waiting for BPF ring buffers with tokio.

use std::io;
use std::os::fd::AsRawFd;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Objects that own one open descriptor and name the same one as long as they live.
pub trait OwnsDescriptor: AsRawFd {}
impl OwnsDescriptor for RingBuf<MapData> {}
impl<T> OwnsDescriptor for EbpfLogger<T> {}

/// Registers a ring buffer for readiness.
///
/// # Errors
/// When the descriptor cannot be polled.
#[expect(unsafe_code, reason = "tokio cannot know that the object keeps its descriptor open")]
pub fn readable<T: OwnsDescriptor>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: by the trait's contract the descriptor is owned by `inner`, which the AsyncFd owns.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(Into::into)
}
