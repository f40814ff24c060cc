//! What holdup can do only where the kernel has certain fields.

use serde::Serialize;

macro_rules! features {
    ($($(#[doc = $doc:literal])* $name:ident: $essential:literal, $loses:literal;)*) => {
        /// A thing that holdup can do, and that some kernels lack a field for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Feature { $($(#[doc = $doc])* $name,)* }

        impl Feature {
            /// All features, in the order they are printed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Whether nothing useful can be said without it.
            pub fn is_essential(self) -> bool {
                match self { $(Self::$name => $essential,)* }
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
    TaskIdentity: true, "tasks cannot be named";
    /// Sleeping, runnable, kernel thread, exiting.
    TaskState: true, "blocked tasks cannot be told from running ones";
    /// Whether and where a task runs.
    OnCpu: false, "whether a holder is running, and on which CPU, is not known";
    /// The kernel stack of a sleeping task.
    KernelStack: false, "locks of tasks that were blocked before holdup started are not found by stack search";
    /// How often a task was switched out.
    SwitchCounts: false, "a deadlock cannot be proven by two samples and stays `likely`";
    /// Sleeping in block I/O.
    IoWait: false, "a holder asleep in I/O is shown as merely asleep";
    /// The address space of a task, and its lock.
    AddressSpace: false, "mmap_lock is not named and kernel threads are told by their flag only";
    /// The cgroup of a task.
    Cgroup: false, "victims are not grouped by cgroup";
    /// Since when a task has not run, as the hung-task watcher sees it.
    HungSince: false, "the age of a wait from before the start is taken from the scheduler's run times, or unknown";
    /// Run times of the scheduler.
    SchedTimes: false, "the age of a wait from before the start may be unknown";
    /// Owner of a mutex.
    MutexOwner: true, "owners of mutexes are not shown";
    /// Queue of a mutex.
    MutexWaiters: false, "waiters of mutexes from before the start are not found";
    /// Context of a ww_mutex.
    WwMutex: false, "ww_mutexes are shown as mutexes, and their back-off is not recognised";
    /// Owner and readers of a rw_semaphore.
    RwsemOwner: true, "owners of rw_semaphores are not shown";
    /// Queue of a rw_semaphore.
    RwsemWaiters: false, "waiters of rw_semaphores from before the start are not found";
    /// rw_semaphore of PREEMPT_RT.
    RtRwsem: false, "rw_semaphores of this PREEMPT_RT kernel are not decoded";
    /// Owner of an rt_mutex.
    RtMutexOwner: false, "owners of rt_mutexes are not shown";
    /// Waiters of an rt_mutex.
    RtMutexWaiters: false, "waiters of rt_mutexes from before the start are not found";
    /// Spinlocks of PREEMPT_RT, which sleep.
    RtSpinlock: false, "sleeping spinlocks of this PREEMPT_RT kernel have no owner";
    /// Counting semaphores.
    Semaphore: false, "semaphores are not decoded";
    /// Who took a semaphore last.
    SemaphoreHolder: false, "the last holder of a semaphore is not known (the kernel records it with CONFIG_DETECT_HUNG_TASK_BLOCKER)";
    /// Per-CPU rw semaphores.
    PercpuRwsem: false, "per-CPU rw_semaphores are not decoded";
    /// Completions and simple wait queues.
    Completion: false, "waits for completions are not decoded";
    /// Wait queues.
    WaitQueue: false, "waits on wait queues are not decoded";
    /// Word of a spinlock.
    SpinlockWord: false, "the queue of spinning CPUs is not decoded";
    /// Word of a rwlock.
    RwlockWord: false, "rwlock words are not decoded";
    /// What a task is blocked on, for priority inheritance.
    PiBlockedOn: false, "rt_mutex waits are found by stack search only";
    /// What mutex a task is blocked on.
    BlockedOn: false, "mutex waits are found by other means (kernels before 6.17 have no such field)";
    /// What a task is blocked on, for the hung-task watcher.
    Blocker: false, "lock waits are found by other means (the kernel records them with CONFIG_DETECT_HUNG_TASK_BLOCKER, 6.16+)";
    /// Who flushes which work, and who executes it.
    Workqueue: false, "a wait for a workqueue is not followed to its worker";
}
