//! System calls that the standard library does not offer.

use anyhow::{Context as _, Result};
use std::ffi::CString;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::PathBuf;

fn checked(result: libc::c_int) -> Result<libc::c_int, Error> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Names the calling thread; only the first 15 bytes count.
pub fn set_name(name: &str) {
    let Ok(name) = CString::new(name) else { return };
    #[expect(unsafe_code, reason = "prctl has no safe interface")]
    // SAFETY: the name ends with a zero byte; the kernel copies at most 16 bytes of it.
    let _ = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Maps some memory, touches it, and unmaps it.
///
/// # Errors
/// `mmap` or `munmap` failed.
pub fn map_once(bytes: usize) -> Result<()> {
    #[expect(unsafe_code, reason = "mmap has no safe interface")]
    // SAFETY: a new private mapping that nobody else knows, unmapped before its address is forgotten.
    let result = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let at = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        );
        if at == libc::MAP_FAILED {
            -1
        } else {
            libc::munmap(at, bytes)
        }
    };
    checked(result).context("mmap")?;
    Ok(())
}

/// Maps memory by the system call itself: the C library's function has no unwind information.
///
/// # Errors
/// `mmap` failed.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub fn map_directly(bytes: usize) -> Result<()> {
    let mut result: i64 = libc::SYS_mmap;
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: a new private mapping that nobody else knows; the call changes no register but these.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") 0usize,
            in("rsi") bytes,
            in("rdx") i64::from(libc::PROT_READ),
            in("r10") i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
            in("r8") -1isize,
            in("r9") 0usize,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    anyhow::ensure!(result > 0, "mmap: error {}", -result);
    Ok(())
}

/// Remounts what is mounted at a path, with the flags it has.
///
/// # Errors
/// `mount` failed.
pub fn remount(path: &str) -> Result<()> {
    let path = CString::new(path)?;
    #[expect(unsafe_code, reason = "mount has no safe interface")]
    // SAFETY: strings that end with a zero byte, and no data.
    let result = unsafe {
        libc::mount(
            std::ptr::null(),
            path.as_ptr(),
            std::ptr::null(),
            libc::MS_REMOUNT,
            std::ptr::null(),
        )
    };
    match checked(result) {
        // Somebody else does the same.
        Err(error) if error.kind() != ErrorKind::ResourceBusy => Err(error).context("remount"),
        _ => Ok(()),
    }
}

/// Takes the loopback device up or down.
///
/// # Errors
/// The socket or the ioctl failed.
pub fn set_loopback(socket: &impl std::os::fd::AsRawFd, up: bool) -> Result<()> {
    #[expect(unsafe_code, reason = "ifreq is a union")]
    // SAFETY: all zeros is a valid ifreq; the kernel reads the name and the flags.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = if up { libc::IFF_UP as libc::c_short } else { 0 };
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)
    };
    checked(result).context("SIOCSIFFLAGS")?;
    Ok(())
}

/// Gives the calling thread a network namespace of its own.
///
/// # Errors
/// `unshare` failed.
pub fn new_network() -> Result<()> {
    #[expect(unsafe_code, reason = "unshare has no safe interface")]
    // SAFETY: a system call on integers.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    checked(result).context("unshare")?;
    Ok(())
}

/// A new pseudo-terminal: its master, and the path of its slave.
///
/// # Errors
/// There is no `/dev/ptmx`, or no devpts.
pub fn pseudo_terminal() -> Result<(File, PathBuf)> {
    let mut name = [0_u8; 64];
    #[expect(unsafe_code, reason = "the C library's interface")]
    // SAFETY: the descriptor is ours from its creation on; the name's buffer has the size that is told.
    let master = unsafe {
        let fd = checked(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY)).context("posix_openpt")?;
        let master = File::from_raw_fd(fd);
        checked(libc::unlockpt(master.as_raw_fd())).context("unlockpt")?;
        checked(libc::ptsname_r(
            master.as_raw_fd(),
            name.as_mut_ptr().cast(),
            name.len(),
        ))
        .context("ptsname")?;
        master
    };
    let name: Vec<u8> = name.into_iter().take_while(|&b| b != 0).collect();
    Ok((master, String::from_utf8(name)?.into()))
}

/// Makes the calling thread the tracer of a process, with `PTRACE_O_*` options; nothing is stopped by that.
///
/// # Errors
/// The kernel refuses it.
pub fn seize(pid: libc::pid_t, options: libc::c_int) -> Result<()> {
    ptrace(
        i64::from(libc::PTRACE_SEIZE),
        pid,
        std::ptr::without_provenance_mut(options as usize),
    )
    .context("PTRACE_SEIZE")
}

/// Asks a traced process to stop.
///
/// # Errors
/// It is not traced by the calling thread.
pub fn interrupt(pid: libc::pid_t) -> Result<()> {
    ptrace(i64::from(libc::PTRACE_INTERRUPT), pid, std::ptr::null_mut()).context("PTRACE_INTERRUPT")
}

/// Lets a stopped process run on.
///
/// # Errors
/// It is not stopped, or not traced by the calling thread.
pub fn go_on(pid: libc::pid_t) -> Result<()> {
    ptrace(i64::from(libc::PTRACE_CONT), pid, std::ptr::null_mut()).context("PTRACE_CONT")
}

/// The process that the last event of a traced one tells of.
///
/// # Errors
/// There was no event, or it is not traced by the calling thread.
pub fn event_message(pid: libc::pid_t) -> Result<libc::pid_t> {
    let mut message: libc::c_ulong = 0;
    ptrace(i64::from(libc::PTRACE_GETEVENTMSG), pid, (&raw mut message).cast()).context("PTRACE_GETEVENTMSG")?;
    Ok(message.try_into()?)
}

fn ptrace(request: i64, pid: libc::pid_t, data: *mut libc::c_void) -> Result<(), Error> {
    #[expect(unsafe_code, reason = "ptrace has no safe interface")]
    // SAFETY: of the requests above only one writes to our memory, to a number that outlives the call.
    let result = unsafe { libc::ptrace(request as _, pid, std::ptr::null_mut::<libc::c_void>(), data) };
    checked(result as libc::c_int).map(|_| ())
}

/// Waits until a traced process or thread stops; gives its status.
///
/// # Errors
/// It is no tracee and no child.
pub fn wait(pid: libc::pid_t) -> Result<libc::c_int> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "waitpid has no safe interface")]
    // SAFETY: the kernel writes the status to a number that outlives the call.
    let result = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    checked(result).context("waitpid")?;
    Ok(status)
}

/// Mounts a new tmpfs at a path.
///
/// # Errors
/// `mount` failed.
pub fn mount_tmpfs(path: &str) -> Result<()> {
    let path = CString::new(path)?;
    #[expect(unsafe_code, reason = "mount has no safe interface")]
    // SAFETY: strings that end with a zero byte, and no data.
    let result = unsafe { libc::mount(c"work".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()) };
    checked(result).context("mount")?;
    Ok(())
}

/// Unmounts what is mounted at a path.
///
/// # Errors
/// `umount` failed.
pub fn unmount(path: &str) -> Result<()> {
    let path = CString::new(path)?;
    #[expect(unsafe_code, reason = "umount has no safe interface")]
    // SAFETY: a string that ends with a zero byte.
    let result = unsafe { libc::umount(path.as_ptr()) };
    checked(result).context("umount")?;
    Ok(())
}

/// Maps a file shared, writes to every page, and unmaps it.
///
/// # Errors
/// `mmap` or `munmap` failed.
pub fn map_file_once(file: &File, bytes: usize) -> Result<()> {
    #[expect(unsafe_code, reason = "mmap has no safe interface")]
    // SAFETY: a new mapping of a file that is never made shorter, unmapped before its address is forgotten; others write the same
    // bytes there, which nobody reads.
    let result = unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if at == libc::MAP_FAILED {
            -1
        } else {
            for page in (0..bytes).step_by(4096) {
                at.cast::<u8>().add(page).write_volatile(1);
            }
            libc::munmap(at, bytes)
        }
    };
    checked(result).context("mmap of a file")?;
    Ok(())
}

/// Sends the own process a signal that is ignored.
///
/// # Errors
/// `kill` failed.
pub fn signal_self() -> Result<()> {
    #[expect(unsafe_code, reason = "a system call on integers")]
    // SAFETY: SIGURG is ignored unless somebody asks for it.
    let result = unsafe { libc::kill(libc::getpid(), libc::SIGURG) };
    checked(result).context("kill")?;
    Ok(())
}

/// Sets the process's timer of virtual time to an hour, and off again.
///
/// # Errors
/// `setitimer` failed.
pub fn interval_timer() -> Result<()> {
    for seconds in [3600, 0] {
        #[expect(unsafe_code, reason = "setitimer has no safe interface")]
        // SAFETY: all zeros is a valid itimerval, and the old value is not asked for.
        let result = unsafe {
            let mut value: libc::itimerval = std::mem::zeroed();
            value.it_value.tv_sec = seconds;
            libc::setitimer(libc::ITIMER_VIRTUAL, &value, std::ptr::null_mut())
        };
        checked(result).context("setitimer")?;
    }
    Ok(())
}

/// A message queue, a semaphore and a segment of shared memory.
#[derive(Debug)]
pub struct SystemV {
    queue: libc::c_int,
    semaphore: libc::c_int,
    memory: libc::c_int,
}

impl SystemV {
    /// New ones.
    ///
    /// # Errors
    /// The kernel has none of one of them.
    pub fn new() -> Result<Self> {
        let mode = libc::IPC_CREAT | 0o600;
        #[expect(unsafe_code, reason = "no safe interface")]
        // SAFETY: system calls on integers.
        let (queue, semaphore, memory) = unsafe {
            (
                libc::msgget(libc::IPC_PRIVATE, mode),
                libc::semget(libc::IPC_PRIVATE, 1, mode),
                libc::shmget(libc::IPC_PRIVATE, 1 << 16, mode),
            )
        };
        Ok(Self {
            queue: checked(queue).context("msgget")?,
            semaphore: checked(semaphore).context("semget")?,
            memory: checked(memory).context("shmget")?,
        })
    }

    /// A message there and back, the semaphore up and down, the memory attached and detached; sometimes another one of each is made
    /// and removed.
    ///
    /// # Errors
    /// A call failed otherwise than because a queue is full or empty.
    pub fn once(&self, remake: bool) -> Result<()> {
        #[repr(C)]
        struct Message {
            kind: libc::c_long,
            text: [u8; 64],
        }
        let mut message = Message { kind: 1, text: [1; 64] };
        #[expect(unsafe_code, reason = "no safe interface")]
        // SAFETY: the message has the size that is told, behind its kind; the two operations are an array of two; the memory that is
        // attached is detached before its address is forgotten.
        unsafe {
            let at = std::ptr::from_mut(&mut message).cast::<libc::c_void>();
            // Full, or empty, or taken by another thread.
            let _ = libc::msgsnd(self.queue, at, 64, libc::IPC_NOWAIT);
            let _ = libc::msgrcv(self.queue, at, 64, 0, libc::IPC_NOWAIT);
            let mut operations = [1, -1].map(|sem_op| libc::sembuf {
                sem_num: 0,
                sem_op,
                sem_flg: libc::IPC_NOWAIT as libc::c_short,
            });
            checked(libc::semop(self.semaphore, operations.as_mut_ptr(), 2)).context("semop")?;
            let attached = libc::shmat(self.memory, std::ptr::null(), 0);
            if attached.addr() != usize::MAX {
                attached.cast::<u8>().write_volatile(1);
                checked(libc::shmdt(attached)).context("shmdt")?;
            }
        }
        if remake {
            Self::new()?.remove()?;
        }
        Ok(())
    }

    fn remove(self) -> Result<()> {
        #[expect(unsafe_code, reason = "no safe interface")]
        // SAFETY: IPC_RMID takes no pointer.
        let results = unsafe {
            [
                libc::msgctl(self.queue, libc::IPC_RMID, std::ptr::null_mut()),
                libc::semctl(self.semaphore, 0, libc::IPC_RMID),
                libc::shmctl(self.memory, libc::IPC_RMID, std::ptr::null_mut()),
            ]
        };
        for result in results {
            checked(result).context("IPC_RMID")?;
        }
        Ok(())
    }
}

/// Adds a key of this number to the keyring of the user, or clears that.
///
/// # Errors
/// The kernel has no keys.
pub fn add_key(number: usize, clear: bool) -> Result<()> {
    /// KERNEL: include/uapi/linux/keyctl.h.
    const USER_KEYRING: libc::c_long = -4;
    const CLEAR: libc::c_long = 7;
    let description = CString::new(format!("work{number}"))?;
    #[expect(unsafe_code, reason = "no safe interface")]
    // SAFETY: strings that end with a zero byte, and a payload of the size that is told.
    let result = unsafe {
        if clear {
            libc::syscall(libc::SYS_keyctl, CLEAR, USER_KEYRING)
        } else {
            let payload = [0_u8; 16];
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                description.as_ptr(),
                payload.as_ptr(),
                payload.len(),
                USER_KEYRING,
            )
        }
    };
    if result < 0 {
        return Err(Error::last_os_error()).context("add_key");
    }
    Ok(())
}
