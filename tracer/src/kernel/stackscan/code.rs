//! What a return address on a stack tells: the slowpath or wait it belongs to.

use std::collections::HashMap;

use crate::ids::KernelAddr;
use crate::kernel::symbols::Symbols;

/// What a function does with its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Waits for a mutex.
    Mutex,
    /// Waits for a ww_mutex.
    WwMutex,
    /// Waits for a rwsem as a reader.
    RwsemRead,
    /// Waits for a rwsem as a writer.
    RwsemWrite,
    /// Waits for a semaphore.
    Semaphore,
    /// Waits for an rt_mutex, or for what PREEMPT_RT builds from one.
    RtMutex,
    /// Waits for a sleeping spinlock of PREEMPT_RT.
    RtSpinlock,
    /// Waits in the queue of a percpu-rwsem.
    PercpuWait,
    /// Takes a percpu-rwsem for writing; in here it waits for the readers to leave.
    PercpuWrite,
    /// Waits for a completion.
    Completion,
    /// Waits for a work item.
    FlushWork,
    /// Waits for all work of a workqueue.
    FlushWorkqueue,
    /// Waits for an RCU grace period.
    Rcu,
    /// Waits for a bit of a page or folio.
    Page,
    /// Waits for block I/O.
    BlockIo,
    /// Serves a page fault, which takes the mmap_lock for reading.
    PageFault,
    /// Makes a new task; in vfork it waits until that one has called exec or exited.
    Fork,
}

/// KERNEL: kernel/locking, kernel/workqueue.c, kernel/rcu, kernel/sched, kernel/fork.c, mm/filemap.c and block of 5.10 to 6.18.
const FUNCTIONS: &[(Class, &[&str])] = &[
    (
        Class::Mutex,
        &[
            "__mutex_lock",
            "__mutex_lock_common",
            "__mutex_lock_slowpath",
            "__mutex_lock_killable_slowpath",
            "__mutex_lock_interruptible_slowpath",
            "mutex_lock",
            "mutex_lock_killable",
            "mutex_lock_interruptible",
            "mutex_lock_io",
            "mutex_lock_nested",
            "mutex_lock_killable_nested",
            "mutex_lock_interruptible_nested",
        ],
    ),
    (
        Class::WwMutex,
        &[
            "__ww_mutex_lock",
            "__ww_mutex_lock_slowpath",
            "__ww_mutex_lock_interruptible_slowpath",
            "ww_mutex_lock",
            "ww_mutex_lock_interruptible",
        ],
    ),
    (
        Class::RwsemRead,
        &[
            "rwsem_down_read_slowpath",
            "__down_read",
            "__down_read_killable",
            "__down_read_interruptible",
            "down_read",
            "down_read_killable",
            "down_read_interruptible",
            "rwbase_read_lock",
            "__rwbase_read_lock",
        ],
    ),
    (
        Class::RwsemWrite,
        &[
            "rwsem_down_write_slowpath",
            "__down_write",
            "__down_write_killable",
            "down_write",
            "down_write_killable",
            "rwbase_write_lock",
        ],
    ),
    (
        Class::Semaphore,
        &[
            "__down",
            "__down_common",
            "___down_common",
            "__down_interruptible",
            "__down_killable",
            "__down_timeout",
        ],
    ),
    (
        Class::RtMutex,
        &[
            "rt_mutex_slowlock",
            "rt_mutex_slowlock_block",
            "__rt_mutex_slowlock",
            "__rt_mutex_slowlock_locked",
            "__rt_mutex_lock",
            "rt_mutex_lock",
            "rt_mutex_lock_killable",
            "rt_mutex_lock_interruptible",
        ],
    ),
    (
        Class::RtSpinlock,
        &[
            "rtlock_slowlock",
            "rtlock_slowlock_locked",
            "rt_spin_lock",
            "rt_read_lock",
            "rt_write_lock",
        ],
    ),
    (Class::PercpuWait, &["percpu_rwsem_wait"]),
    (Class::PercpuWrite, &["percpu_down_write"]),
    (
        Class::Completion,
        &[
            "__wait_for_common",
            "do_wait_for_common",
            "wait_for_common",
            "wait_for_completion",
            "wait_for_completion_io",
            "wait_for_completion_timeout",
            "wait_for_completion_io_timeout",
            "wait_for_completion_killable",
            "wait_for_completion_killable_timeout",
            "wait_for_completion_state",
        ],
    ),
    (
        Class::FlushWork,
        &[
            "__flush_work",
            "flush_work",
            "__cancel_work_timer",
            "__cancel_work_sync",
            "cancel_work_sync",
        ],
    ),
    (
        Class::FlushWorkqueue,
        &["flush_workqueue", "__flush_workqueue", "drain_workqueue"],
    ),
    (
        Class::Rcu,
        &[
            "__wait_rcu_gp",
            "synchronize_rcu",
            "synchronize_rcu_normal",
            "synchronize_rcu_expedited",
            "synchronize_rcu_tasks",
            "synchronize_rcu_tasks_generic",
            "__synchronize_srcu",
            "synchronize_srcu",
            "synchronize_srcu_expedited",
            "rcu_barrier",
        ],
    ),
    (
        Class::Page,
        &[
            "wait_on_page_bit_common",
            "folio_wait_bit_common",
            "__lock_page",
            "__lock_page_killable",
            "__folio_lock",
            "__folio_lock_killable",
            "__folio_lock_or_retry",
        ],
    ),
    (
        Class::BlockIo,
        &[
            "blk_mq_get_tag",
            "rq_qos_wait",
            "submit_bio_wait",
            "bit_wait_io",
            "folio_wait_writeback",
            "wait_on_page_writeback",
            "blk_wait_io",
        ],
    ),
    (
        Class::PageFault,
        &[
            "do_user_addr_fault",
            "handle_mm_fault",
            "__do_page_fault",
            "do_page_fault",
            "__do_fault",
            "do_fault",
        ],
    ),
    (Class::Fork, &["kernel_clone", "_do_fork"]),
];

/// Wake functions of `wait_event`, `prepare_to_wait`, `add_wait_queue` and `wait_woken` (kernel/sched/wait.c, core.c; 5.10 to 6.18).
const WAKERS: [&str; 3] = [
    "autoremove_wake_function",
    "default_wake_function",
    "woken_wake_function",
];

/// Functions whose address itself, as a pointer, stands in a record on a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// `wq_barrier_func`: what a flusher queues behind the work it waits for.
    pub barrier: Option<u64>,
    /// `percpu_rwsem_wake_function`: wakes who waits in the queue of a percpu-rwsem.
    pub percpu_wake: Option<u64>,
    /// What wakes who waits in an ordinary wait queue.
    pub queue_wake: [Option<u64>; WAKERS.len()],
}

/// Code of the running kernel, as far as it tells what a thread waits for.
#[derive(Clone, Debug, Default)]
pub struct CodeMap {
    /// Start, end, class; sorted, without overlaps.
    ranges: Vec<(u64, u64, Class)>,
    /// See [`Pointers`].
    pub pointers: Pointers,
}

impl CodeMap {
    /// Looks up the functions.
    #[must_use]
    pub fn new(symbols: &Symbols) -> Self {
        let mut ranges = HashMap::new();
        for &(class, names) in FUNCTIONS {
            for name in names {
                for symbol in symbols.find_code(name) {
                    let start = symbol.address.0;
                    if let Some(KernelAddr(end)) = symbols.next_after(symbol.address) {
                        ranges.entry(start).or_insert((end, class));
                    }
                }
            }
        }
        let pointer = |name: &str| symbols.find_code(name).first().map(|symbol| symbol.address.0);
        Self::from_ranges(
            ranges.into_iter().map(|(start, (end, class))| (start, end, class)),
            Pointers {
                barrier: pointer("wq_barrier_func"),
                percpu_wake: pointer("percpu_rwsem_wake_function"),
                queue_wake: WAKERS.map(pointer),
            },
        )
    }

    /// From address ranges.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u64, u64, Class)>, pointers: Pointers) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        Self { ranges, pointers }
    }

    /// Whether no function was found: then stacks tell nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The class of the function that a return address leads back into.
    #[must_use]
    pub fn class(&self, word: u64) -> Option<Class> {
        // A return address lies behind its call, in the worst case behind the function's last instruction.
        let inside = word.checked_sub(1)?;
        // Most words of a stack are no code at all.
        if inside < self.ranges.first()?.0 || inside >= self.ranges.last()?.1 {
            return None;
        }
        let after = self.ranges.partition_point(|&(start, ..)| start <= inside);
        let &(_, end, class) = self.ranges.get(after.checked_sub(1)?)?;
        (inside < end).then_some(class)
    }
}
