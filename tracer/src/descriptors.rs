//! Room for descriptors, made before it is needed.

use std::fs::File;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a run may need: programs, maps, and two of each kind for each CPU of a large machine.
const ROOM: u64 = 4096;

/// Lets the process have up to 4,096 descriptors, as far as its limits allow, and makes the kernel's table for them that large.
///
/// To be called before any thread is started. KERNEL: `expand_fdtable` (fs/file.c), 5.10 to 6.18: when the table of a process with
/// several threads grows, the kernel waits until every CPU has passed through an RCU quiescent state. A CPU that spins never does, so
/// opening one descriptor too many on such a machine waits for ever. The table never shrinks again.
///
/// Without the room everything works but for that, so nothing is said when it cannot be had.
pub fn make_room() {
    let limits = getrlimit(Resource::Nofile);
    let room = limits.maximum.map_or(ROOM, |most| most.min(ROOM));
    if limits.current.is_some_and(|now| now < room) {
        let raised = Rlimit {
            current: Some(room),
            ..limits
        };
        // A failure leaves the old limit, which the next line meets.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(room).min(room);
    if let Ok(file) = File::open("/dev/null") {
        let last = i32::try_from(allowed.saturating_sub(1)).unwrap_or(i32::MAX);
        drop(fcntl_dupfd_cloexec(&file, last));
    }
}
