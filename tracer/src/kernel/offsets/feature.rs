//! What holdup can do only where the kernel has certain fields.

use serde::Serialize;

/// How much is lost with a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Nothing: the same is known by other means.
    Covered,
    /// Something that no other means can tell.
    Lossy,
    /// Nothing useful can be said without it.
    Essential,
}

macro_rules! features {
    ($($(#[doc = $doc:literal])* $name:ident: $weight:ident, $loses:literal;)*) => {
        /// A thing that holdup can do, and that some kernels lack a field for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Feature { $($(#[doc = $doc])* $name,)* }

        impl Feature {
            /// All features, in the order they are printed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// How much is lost without it.
            pub fn weight(self) -> Weight {
                match self { $(Self::$name => Weight::$weight,)* }
            }

            /// What is lost without it, as a clause: "owners of mutexes are not shown".
            pub fn loses(self) -> &'static str {
                match self { $(Self::$name => $loses,)* }
            }
        }
    };
}

features! {
    /// Who waits and who holds.
    TaskIdentity: Essential, "tasks cannot be named";
    /// Sleeping, runnable, kernel thread, exiting.
    TaskState: Essential, "blocked tasks cannot be told from running ones";
    /// Whether and where a task runs.
    OnCpu: Lossy, "whether a holder is running, and on which CPU, is not known";
    /// The kernel stack of a sleeping task.
    KernelStack: Lossy, "locks of tasks that were blocked before holdup started are not found by stack search";
    /// How often a task was switched out.
    SwitchCounts: Lossy, "a deadlock cannot be proven by two samples and stays `likely`";
    /// Sleeping in block I/O.
    IoWait: Lossy, "a holder asleep in I/O is shown as merely asleep";
    /// The address space of a task, and its lock.
    AddressSpace: Lossy, "mmap_lock is not named and kernel threads are told by their flag only";
    /// The process of an address space.
    MmOwner: Covered, "the process of an mmap_lock is found through the threads that use it";
    /// The object that a lock lies in.
    ObjectNames: Lossy, "locks inside of kernel objects are named by their call site only";
    /// What a thread shares with others of its process.
    UserObjects: Lossy, "locks of signal handlers, open files and the like are shown without their process";
    /// The file system of an inode.
    InodeNames: Lossy, "inodes and super blocks are shown without device and number";
    /// The cgroup of a task.
    Cgroup: Lossy, "victims are not grouped by cgroup";
    /// The path of a cgroup.
    CgroupPath: Lossy, "cgroups are shown by number, and containers are not recognised";
    /// The system call a task is in.
    Syscall: Lossy, "the system call in which a task is blocked is not shown (x86-64 only)";
    /// Where a task came from in user space.
    UserStack: Lossy, "user-space stacks cannot be shown (x86-64, 6.1 and newer)";
    /// The file a system call is about.
    OpenFile: Lossy, "the file that a blocked system call is about is not shown";
    /// Since when a task has not run, as the hung-task watcher sees it.
    HungSince: Covered, "the age of a wait from before the start is taken from the scheduler's run times, or unknown";
    /// Who keeps a task stopped.
    Stops: Lossy, "a tracer or a freezer that keeps a task stopped is not shown";
    /// Run times of the scheduler.
    SchedTimes: Covered, "the age of a wait from before the start may be unknown";
    /// Owner of a mutex.
    MutexOwner: Essential, "owners of mutexes are not shown";
    /// Queue of a mutex.
    MutexWaiters: Lossy, "waiters of mutexes from before the start are not found";
    /// Context of a ww_mutex.
    WwMutex: Lossy, "ww_mutexes are shown as mutexes, and their back-off is not recognised";
    /// Owner and readers of a rw_semaphore.
    RwsemOwner: Essential, "owners of rw_semaphores are not shown";
    /// Queue of a rw_semaphore.
    RwsemWaiters: Lossy, "waiters of rw_semaphores from before the start are not found";
    /// rw_semaphore of PREEMPT_RT.
    RtRwsem: Lossy, "rw_semaphores of this PREEMPT_RT kernel are not decoded";
    /// Owner of an rt_mutex.
    RtMutexOwner: Lossy, "owners of rt_mutexes are not shown";
    /// Waiters of an rt_mutex.
    RtMutexWaiters: Lossy, "waiters of rt_mutexes from before the start are not found";
    /// Spinlocks of PREEMPT_RT, which sleep.
    RtSpinlock: Lossy, "sleeping spinlocks of this PREEMPT_RT kernel have no owner";
    /// Counting semaphores.
    Semaphore: Lossy, "semaphores are not decoded";
    /// Who took a semaphore last.
    SemaphoreHolder: Lossy, "the last holder of a semaphore is not known (the kernel records it with CONFIG_DETECT_HUNG_TASK_BLOCKER)";
    /// Per-CPU rw semaphores.
    PercpuRwsem: Lossy, "per-CPU rw_semaphores are not decoded";
    /// Completions and simple wait queues.
    Completion: Lossy, "waits for completions are not decoded";
    /// Wait queues.
    WaitQueue: Lossy, "waits on wait queues are not decoded";
    /// Word of a spinlock.
    SpinlockWord: Lossy, "the queue of spinning CPUs is not decoded";
    /// Word of a rwlock.
    RwlockWord: Lossy, "rwlock words are not decoded";
    /// What a task is blocked on, for priority inheritance.
    PiBlockedOn: Covered, "rt_mutex waits are found by stack search only";
    /// What mutex a task is blocked on.
    BlockedOn: Covered, "mutex waits are found by other means (kernels before 6.17 have no such field)";
    /// What a task is blocked on, for the hung-task watcher.
    Blocker: Covered, "lock waits are found by other means (the kernel records them with CONFIG_DETECT_HUNG_TASK_BLOCKER, 6.16+)";
    /// Who flushes which work, and who executes it.
    Workqueue: Lossy, "a wait for a workqueue is not followed to its worker";
    /// Timers that a CPU does not serve.
    OverdueTimer: Lossy, "timers that a CPU does not serve are not shown";
    /// CPUs that RCU waits for.
    GracePeriod: Lossy, "CPUs that hold up RCU's grace period are not shown";
}
