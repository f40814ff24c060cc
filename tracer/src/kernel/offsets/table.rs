//! The table: every kernel field holdup reads.
//!
//! `field: kind("newest.place" | "older.place") => Feature [if|unless "marker.member"]`. Kinds are the functions of
//! [`super::lookup`]. A row with a condition applies only to kernels that have (or lack) the marker: PREEMPT_RT builds
//! mutexes and rw_semaphores from rt_mutexes. Line comments give the first kernel of a place where that matters.

use serde::Serialize;

use super::{
    Feature, OffsetRow,
    lookup::{self, BitOffset},
};
use crate::kernel::btf::Btf;

offsets! {
    /// `struct task_struct` (include/linux/sched.h).
    task: TaskOffsets {
        /// Thread id.
        pid: offset("task_struct.pid") => TaskIdentity,
        /// Process id.
        tgid: offset("task_struct.tgid") => TaskIdentity,
        /// Name, NUL-terminated.
        comm: offset("task_struct.comm") => TaskIdentity,
        /// Size of the name with its NUL.
        comm_size: width("task_struct.comm") => TaskIdentity,
        /// Start in ns of CLOCK_MONOTONIC: tells a reused pid from the old one.
        start_time: offset("task_struct.start_time") => TaskIdentity,
        /// The process's first thread.
        group_leader: offset("task_struct.group_leader") => TaskIdentity,
        /// Sleep state: `unsigned int __state` since 5.14, `long state` before.
        state: offset("task_struct.__state" | "task_struct.state") => TaskState,
        /// Size of the sleep state.
        state_size: width("task_struct.__state" | "task_struct.state") => TaskState,
        /// Zombie or dead.
        exit_state: offset("task_struct.exit_state") => TaskState,
        /// PF_* flags.
        flags: offset("task_struct.flags") => TaskState,
        /// Whether it runs, or is being switched.
        on_cpu: offset("task_struct.on_cpu") => OnCpu,
        /// Whether it is on a run queue.
        on_rq: offset("task_struct.on_rq") => OnCpu,
        /// CPU it runs or last ran on; in thread_info since 5.16.
        cpu: offset("task_struct.thread_info.cpu" | "task_struct.cpu") => OnCpu,
        /// Lowest address of the kernel stack.
        stack: offset("task_struct.stack") => KernelStack,
        /// Saved stack pointer of a task that is not running (x86-64, then arm64).
        saved_sp: offset("task_struct.thread.sp" | "task_struct.thread.cpu_context.sp") => KernelStack,
        /// KASAN keeps it; stacks are twice as large then.
        kasan_depth: offset("task_struct.kasan_depth") => KernelStack [if "task_struct.kasan_depth"],
        /// Voluntary switches.
        nvcsw: offset("task_struct.nvcsw") => SwitchCounts,
        /// Involuntary switches.
        nivcsw: offset("task_struct.nivcsw") => SwitchCounts,
        /// Asleep in block I/O.
        in_iowait: bits("task_struct.in_iowait") => IoWait,
        /// Address space; null for kernel threads.
        mm: offset("task_struct.mm") => AddressSpace,
        /// `struct signal_struct *`.
        signal: offset("task_struct.signal") => UserObjects,
        /// `struct sighand_struct *`.
        sighand: offset("task_struct.sighand") => UserObjects,
        /// `struct files_struct *`.
        files: offset("task_struct.files") => OpenFile,
        /// `struct fs_struct *`.
        fs: offset("task_struct.fs") => UserObjects,
        /// `struct css_set *`.
        cgroups: offset("task_struct.cgroups") => Cgroup,
        /// Jiffies at which the hung-task watcher last saw it switch (CONFIG_DETECT_HUNG_TASK).
        last_switch_time: offset("task_struct.last_switch_time") => HungSince,
        /// Switches that the hung-task watcher last saw.
        last_switch_count: offset("task_struct.last_switch_count") => HungSince,
        /// Run-queue clock in ns at the last update of its run time.
        exec_start: offset("task_struct.se.exec_start") => SchedTimes,
        /// Run time in ns.
        sum_exec_runtime: offset("task_struct.se.sum_exec_runtime") => SchedTimes,
        /// Run-queue clock in ns when it last got a CPU (CONFIG_SCHED_INFO).
        last_arrival: offset("task_struct.sched_info.last_arrival") => SchedTimes,
        /// `struct rt_mutex_waiter *`.
        pi_blocked_on: offset("task_struct.pi_blocked_on") => PiBlockedOn,
        /// See [`super::blocked_on_target`].
        blocked_on: offset("task_struct.blocked_on") => BlockedOn,
        /// Lock address with its type in the two low bits: 0 mutex, 1 semaphore, 2 and 3 rw_semaphore wanted by a reader and
        /// by a writer (include/linux/hung_task.h). 6.15 records mutexes only, 6.16 semaphores too, 6.17 all.
        blocker: offset("task_struct.blocker" | "task_struct.blocker_mutex") => Blocker,
        /// PT_* flags; 0 when nobody traces it.
        ptrace: offset("task_struct.ptrace") => Stops,
        /// Its tracer; its parent when nobody traces it.
        parent: offset("task_struct.parent") => Stops,
        /// JOBCTL_* flags.
        jobctl: offset("task_struct.jobctl") => Stops,
        /// `struct completion *` of a parent that waits in vfork.
        vfork_done: offset("task_struct.vfork_done") => Completion,
        /// `struct kthread *` of a kernel thread; in set_child_tid up to 5.15.
        kthread: offset("task_struct.worker_private" | "task_struct.set_child_tid") => Workqueue,
    }
    /// From a task's css_set to its cgroup's id.
    cgroup: CgroupOffsets {
        /// `struct cgroup *` in the unified hierarchy.
        dfl_cgrp: offset("css_set.dfl_cgrp") => Cgroup,
        /// `struct kernfs_node *`.
        kn: offset("cgroup.kn") => Cgroup,
        /// Inode number of the cgroup's directory.
        id: offset("kernfs_node.id") => Cgroup,
        /// Name of that directory.
        node_name: offset("kernfs_node.name") => CgroupPath,
        /// The directory above it.
        node_parent: offset("kernfs_node.__parent" | "kernfs_node.parent") => CgroupPath,
    }
    /// `struct pt_regs` (arch/x86/include/asm/ptrace.h), as the entry code leaves it at the top of the kernel stack.
    regs: RegsOffsets {
        /// Size of all of them.
        size: size("pt_regs") => Syscall,
        /// Number of the system call.
        orig_ax: offset("pt_regs.orig_ax") => Syscall,
        /// First argument.
        di: offset("pt_regs.di") => Syscall,
        /// Where user space goes on.
        ip: offset("pt_regs.ip") => Syscall,
        /// Code segment.
        cs: offset("pt_regs.cs") => Syscall,
        /// Stack segment.
        ss: offset("pt_regs.ss") => Syscall,
        /// Stack pointer.
        sp: offset("pt_regs.sp") => UserStack,
        /// Frame pointer.
        bp: offset("pt_regs.bp") => UserStack,
    }
    /// From a descriptor to the path of its file (include/linux/fdtable.h, fs.h, dcache.h; fs/mount.h).
    file: FileOffsets {
        /// `struct fdtable *`.
        fdt: offset("files_struct.fdt") => OpenFile,
        /// Size of the table.
        max_fds: offset("fdtable.max_fds") => OpenFile,
        /// Array of `struct file *`.
        fd: offset("fdtable.fd") => OpenFile,
        /// `struct inode *`.
        inode: offset("file.f_inode") => OpenFile,
        /// `struct dentry *`.
        path_dentry: offset("file.f_path.dentry") => OpenFile,
        /// `struct vfsmount *`.
        path_mnt: offset("file.f_path.mnt") => OpenFile,
        /// Type and permissions.
        inode_mode: offset("inode.i_mode") => OpenFile,
        /// Inode number.
        inode_number: offset("inode.i_ino") => OpenFile,
        /// `struct super_block *`.
        inode_sb: offset("inode.i_sb") => OpenFile,
        /// `struct file_system_type *`.
        sb_type: offset("super_block.s_type") => OpenFile,
        /// Name of a file system.
        fs_name: offset("file_system_type.name") => OpenFile,
        /// The directory it is in; itself for a root.
        dentry_parent: offset("dentry.d_parent") => OpenFile,
        /// Name.
        dentry_name: offset("dentry.d_name.name") => OpenFile,
        /// Length of the name.
        dentry_name_len: offset("dentry.d_name.len") => OpenFile,
        /// `struct vfsmount` in a mount.
        mount_mnt: offset("mount.mnt") => OpenFile,
        /// The mount it is mounted on; itself for a root.
        mount_parent: offset("mount.mnt_parent") => OpenFile,
        /// Directory it is mounted on.
        mount_point: offset("mount.mnt_mountpoint") => OpenFile,
        /// Root of what is mounted.
        mnt_root: offset("vfsmount.mnt_root") => OpenFile,
    }
    /// `struct mm_struct` (include/linux/mm_types.h).
    mm: MmOffsets {
        /// The rw_semaphore that page faults and mmap take.
        mmap_lock: offset("mm_struct.mmap_lock") => AddressSpace,
        /// `struct task_struct *` of its process (CONFIG_MEMCG).
        owner: offset("mm_struct.owner") => MmOwner,
        /// Top level of its page tables.
        pgd: offset("mm_struct.pgd") => UserStack,
        /// Root of the tree of its mappings (6.1+).
        mappings: offset("mm_struct.mm_mt.ma_root") => UserStack,
    }
    /// `struct vm_area_struct` (include/linux/mm_types.h).
    vma: VmaOffsets {
        /// First address.
        start: offset("vm_area_struct.vm_start") => UserStack,
        /// Behind the last address.
        end: offset("vm_area_struct.vm_end") => UserStack,
        /// Its address space.
        mm: offset("vm_area_struct.vm_mm") => UserStack,
        /// VM_* flags.
        flags: offset("vm_area_struct.vm_flags") => UserStack,
        /// Pages into the file.
        pgoff: offset("vm_area_struct.vm_pgoff") => UserStack,
        /// `struct file *`.
        file: offset("vm_area_struct.vm_file") => UserStack,
    }
    /// Nodes of the tree of mappings (include/linux/maple_tree.h): the slots follow the pivots, of which there is one less.
    maple: MapleOffsets {
        /// Last addresses of the slots but the last.
        range_pivot: offset("maple_range_64.pivot") => UserStack,
        /// Children, or mappings.
        range_slot: offset("maple_range_64.slot") => UserStack,
        /// Last addresses of the slots but the last.
        alloc_pivot: offset("maple_arange_64.pivot") => UserStack,
        /// Children.
        alloc_slot: offset("maple_arange_64.slot") => UserStack,
    }
    /// `struct page` (include/linux/mm_types.h) and the `struct slab` that lies over it since 5.17 (mm/slab.h).
    page: PageOffsets {
        /// Pointer to the first page of a compound page, with bit 0 set.
        compound_head: offset("page.compound_head") => ObjectNames,
        /// Flags; up to 6.9 one says that the page belongs to a slab.
        flags: offset("page.flags") => ObjectNames,
        /// Type of the page in its upper byte since 6.12.
        page_type: offset("page.page_type") => ObjectNames,
        /// The slab's cache.
        slab_cache: offset("slab.slab_cache" | "page.slab_cache") => ObjectNames,
    }
    /// `struct kmem_cache` (mm/slab.h).
    cache: CacheOffsets {
        /// `const char *`.
        name: offset("kmem_cache.name") => ObjectNames,
        /// Distance of its objects.
        size: offset("kmem_cache.size") => ObjectNames,
        /// Size that was asked for.
        object_size: offset("kmem_cache.object_size") => ObjectNames,
        /// One more than the caches that were merged into it.
        refcount: offset("kmem_cache.refcount") => ObjectNames,
        /// Debugging: bytes before each object.
        red_left_pad: offset("kmem_cache.red_left_pad") => ObjectNames [if "kmem_cache.red_left_pad"],
    }
    /// From an inode to its file system (include/linux/fs.h).
    inode: InodeOffsets {
        /// Number.
        number: offset("inode.i_ino") => InodeNames,
        /// `struct super_block *`.
        sb: offset("inode.i_sb") => InodeNames,
        /// Device number, 12 bits major and 20 bits minor.
        device: offset("super_block.s_dev") => InodeNames,
        /// `struct file_system_type *`.
        fs_type: offset("super_block.s_type") => InodeNames,
        /// Name of the device, for file systems that have one.
        device_name: offset("super_block.s_id") => InodeNames,
        /// Name of the type, `const char *`.
        fs_name: offset("file_system_type.name") => InodeNames,
        /// `const unsigned char *` of a directory entry.
        entry_name: offset("dentry.d_name.name") => InodeNames,
        /// `struct super_block *` of a directory entry.
        entry_sb: offset("dentry.d_sb") => InodeNames,
    }
    /// `struct mutex` (include/linux/mutex_types.h).
    mutex: MutexOffsets {
        /// Owner, with flags in its low three bits; on PREEMPT_RT that of the rt_mutex, with one flag.
        owner: offset("mutex.owner" | "mutex.rtmutex.owner") => MutexOwner,
        /// Its spinlock.
        wait_lock: offset("mutex.wait_lock") => MutexWaiters [unless "mutex.rtmutex"],
        /// Head of its waiters.
        wait_list: offset("mutex.wait_list") => MutexWaiters [unless "mutex.rtmutex"],
        /// The rt_mutex that a mutex is on PREEMPT_RT.
        rtmutex: offset("mutex.rtmutex") => RtMutexOwner [if "mutex.rtmutex"],
    }
    /// `struct mutex_waiter` (kernel/locking/mutex.h), on the waiter's stack.
    mutex_waiter: MutexWaiterOffsets {
        /// List node.
        list: offset("mutex_waiter.list") => MutexWaiters [unless "mutex.rtmutex"],
        /// The waiter.
        task: offset("mutex_waiter.task") => MutexWaiters [unless "mutex.rtmutex"],
        /// `struct ww_acquire_ctx *`, null, or a poison for plain mutexes.
        ww_ctx: offset("mutex_waiter.ww_ctx") => WwMutex [unless "mutex.rtmutex"],
    }
    /// `struct ww_mutex` and `struct ww_acquire_ctx` (include/linux/ww_mutex.h).
    ww: WwMutexOffsets {
        /// The mutex (on PREEMPT_RT: the rt_mutex) inside.
        base: offset("ww_mutex.base") => WwMutex,
        /// Acquire context of its owner.
        ctx: offset("ww_mutex.ctx") => WwMutex,
        /// Task of an acquire context.
        ctx_task: offset("ww_acquire_ctx.task") => WwMutex,
        /// Age of an acquire context.
        ctx_stamp: offset("ww_acquire_ctx.stamp") => WwMutex,
    }
    /// `struct rw_semaphore` (include/linux/rwsem.h).
    rwsem: RwsemOffsets {
        /// Writer, waiters, hand-off and readers.
        count: offset("rw_semaphore.count") => RwsemOwner [unless "rw_semaphore.rwbase"],
        /// Owner (for readers: a hint), with flags in its low bits.
        owner: offset("rw_semaphore.owner") => RwsemOwner [unless "rw_semaphore.rwbase"],
        /// Its spinlock.
        wait_lock: offset("rw_semaphore.wait_lock") => RwsemWaiters [unless "rw_semaphore.rwbase"],
        /// Head of its waiters.
        wait_list: offset("rw_semaphore.wait_list") => RwsemWaiters [unless "rw_semaphore.rwbase"],
        /// PREEMPT_RT: reader count with bias.
        rt_readers: offset("rw_semaphore.rwbase.readers") => RtRwsem [if "rw_semaphore.rwbase"],
        /// PREEMPT_RT: the rt_mutex inside, which has its own contention events.
        rt_rtmutex: offset("rw_semaphore.rwbase.rtmutex") => RtRwsem [if "rw_semaphore.rwbase"],
        /// PREEMPT_RT: owner of that rt_mutex, the writer.
        rt_owner: offset("rw_semaphore.rwbase.rtmutex.owner") => RtRwsem [if "rw_semaphore.rwbase"],
    }
    /// `struct rwsem_waiter` (kernel/locking/rwsem.c), on the waiter's stack.
    rwsem_waiter: RwsemWaiterOffsets {
        /// List node.
        list: offset("rwsem_waiter.list") => RwsemWaiters [unless "rw_semaphore.rwbase"],
        /// The waiter; null once a reader has been granted the lock.
        task: offset("rwsem_waiter.task") => RwsemWaiters [unless "rw_semaphore.rwbase"],
        /// 0 writer, 1 reader.
        waits_as: offset("rwsem_waiter.type") => RwsemWaiters [unless "rw_semaphore.rwbase"],
    }
    /// `struct rt_mutex_base` (include/linux/rtmutex.h, 5.15+), `struct rt_mutex` before.
    rt_mutex: RtMutexOffsets {
        /// Owner, with one flag.
        owner: offset("rt_mutex_base.owner" | "rt_mutex.owner") => RtMutexOwner,
        /// Its spinlock.
        wait_lock: offset("rt_mutex_base.wait_lock" | "rt_mutex.wait_lock") => RtMutexWaiters,
        /// Tree of its waiters.
        waiters: offset("rt_mutex_base.waiters" | "rt_mutex.waiters") => RtMutexWaiters,
    }
    /// `struct rt_mutex_waiter` (kernel/locking/rtmutex_common.h), on the waiter's stack.
    rt_mutex_waiter: RtMutexWaiterOffsets {
        /// Tree node; inside of another struct since 6.1.
        tree: offset("rt_mutex_waiter.tree.entry" | "rt_mutex_waiter.tree_entry") => RtMutexWaiters,
        /// The waiter.
        task: offset("rt_mutex_waiter.task") => RtMutexWaiters,
        /// What it waits for.
        lock: offset("rt_mutex_waiter.lock") => RtMutexWaiters,
    }
    /// `struct semaphore` (include/linux/semaphore.h).
    semaphore: SemaphoreOffsets {
        /// Its spinlock.
        lock: offset("semaphore.lock") => Semaphore,
        /// Free places.
        count: offset("semaphore.count") => Semaphore,
        /// Head of its waiters.
        wait_list: offset("semaphore.wait_list") => Semaphore,
        /// Who took it last: a hint, since anyone may release.
        last_holder: offset("semaphore.last_holder") => SemaphoreHolder,
    }
    /// `struct semaphore_waiter` (kernel/locking/semaphore.c), on the waiter's stack.
    semaphore_waiter: SemaphoreWaiterOffsets {
        /// List node.
        list: offset("semaphore_waiter.list") => Semaphore,
        /// The waiter.
        task: offset("semaphore_waiter.task") => Semaphore,
        /// Set when it was given a place.
        up: offset("semaphore_waiter.up") => Semaphore,
    }
    /// `struct percpu_rw_semaphore` (include/linux/percpu-rwsem.h).
    percpu_rwsem: PercpuRwsemOffsets {
        /// RCU state of the writer side.
        rss: offset("percpu_rw_semaphore.rss") => PercpuRwsem,
        /// Per-CPU reader count.
        read_count: offset("percpu_rw_semaphore.read_count") => PercpuRwsem,
        /// Writer that waits for the readers to leave.
        writer_task: offset("percpu_rw_semaphore.writer.task") => PercpuRwsem,
        /// Wait queue of those who cannot enter.
        waiters: offset("percpu_rw_semaphore.waiters") => PercpuRwsem,
        /// Set while a writer is in or wants in.
        block: offset("percpu_rw_semaphore.block") => PercpuRwsem,
    }
    /// `struct completion` (include/linux/completion.h).
    completion: CompletionOffsets {
        /// Times it was completed and not yet consumed.
        done: offset("completion.done") => Completion,
        /// Its wait queue.
        wait: offset("completion.wait") => Completion,
        /// The wait queue's spinlock.
        wait_lock: offset("completion.wait.lock") => Completion,
        /// Head of its waiters.
        wait_list: offset("completion.wait.task_list") => Completion,
    }
    /// `struct swait_queue` (include/linux/swait.h), on the waiter's stack.
    swait: SwaitOffsets {
        /// The waiter.
        task: offset("swait_queue.task") => Completion,
        /// List node.
        list: offset("swait_queue.task_list") => Completion,
    }
    /// `struct wait_queue_head` and `struct wait_queue_entry` (include/linux/wait.h).
    wait_queue: WaitQueueOffsets {
        /// Head of the waiters.
        head: offset("wait_queue_head.head") => WaitQueue,
        /// The waiter, if its function is one of the default ones.
        private: offset("wait_queue_entry.private") => WaitQueue,
        /// Wake function.
        func: offset("wait_queue_entry.func") => WaitQueue,
        /// List node.
        entry: offset("wait_queue_entry.entry") => WaitQueue,
    }
    /// `struct qspinlock` and `struct qrwlock` (include/asm-generic).
    spin: SpinOffsets {
        /// Lock word of a spinlock.
        word: offset("qspinlock.val") => SpinlockWord,
        /// Lock word of a rwlock.
        rwlock_word: offset("qrwlock.cnts") => RwlockWord [unless "mutex.rtmutex"],
        /// The spinlock inside of a rwlock on which its waiters queue.
        rwlock_queue: offset("qrwlock.wait_lock") => RwlockWord [unless "mutex.rtmutex"],
        /// PREEMPT_RT: owner of a sleeping spinlock.
        rt_owner: offset("spinlock.lock.owner") => RtSpinlock [if "mutex.rtmutex"],
    }
    /// `struct work_struct` and `struct wq_barrier` (kernel/workqueue.c).
    work: WorkOffsets {
        /// Flags and pool_workqueue.
        data: offset("work_struct.data") => Workqueue,
        /// List node.
        entry: offset("work_struct.entry") => Workqueue,
        /// What it does.
        func: offset("work_struct.func") => Workqueue,
        /// A flusher's own work item.
        barrier_work: offset("wq_barrier.work") => Workqueue,
        /// Completed when the flush is done.
        barrier_done: offset("wq_barrier.done") => Workqueue,
        /// The flusher.
        barrier_task: offset("wq_barrier.task") => Workqueue,
    }
    /// `struct kthread` (kernel/kthread.c) and `struct worker` (kernel/workqueue_internal.h).
    worker: WorkerOffsets {
        /// `struct worker *` of a worker's kthread.
        kthread_data: offset("kthread.data") => Workqueue,
        /// Completion that says that a kernel thread has exited; `kthread_stop` waits for it.
        kthread_exited: offset("kthread.exited") => Completion,
        /// Its task.
        task: offset("worker.task") => Workqueue,
        /// What it executes.
        current_work: offset("worker.current_work") => Workqueue,
        /// The function it executes.
        current_func: offset("worker.current_func") => Workqueue,
        /// Of which workqueue.
        current_pwq: offset("worker.current_pwq") => Workqueue,
        /// What it will execute next, barriers among it.
        scheduled: offset("worker.scheduled") => Workqueue,
        /// Its pool.
        pool: offset("worker.pool") => Workqueue,
    }
    /// `struct workqueue_struct`, `struct wq_flusher` and `struct pool_workqueue` (kernel/workqueue.c).
    workqueue: WorkqueueOffsets {
        /// Its name.
        name: offset("workqueue_struct.name") => Workqueue,
        /// Size of the name.
        name_size: width("workqueue_struct.name") => Workqueue,
        /// Its pool_workqueues.
        pwqs: offset("workqueue_struct.pwqs") => Workqueue,
        /// Who flushes.
        first_flusher: offset("workqueue_struct.first_flusher") => Workqueue,
        /// Who flushes next.
        flusher_queue: offset("workqueue_struct.flusher_queue") => Workqueue,
        /// Colour of a flusher.
        flusher_color: offset("wq_flusher.flush_color") => Workqueue,
        /// What a flusher waits for.
        flusher_done: offset("wq_flusher.done") => Workqueue,
        /// Link among the pool_workqueues of a workqueue.
        pwq_node: offset("pool_workqueue.pwqs_node") => Workqueue,
        /// Pool of a pool_workqueue.
        pwq_pool: offset("pool_workqueue.pool") => Workqueue,
        /// Workqueue of a pool_workqueue.
        pwq_wq: offset("pool_workqueue.wq") => Workqueue,
        /// Work items in flight, by colour.
        pwq_in_flight: offset("pool_workqueue.nr_in_flight") => Workqueue,
        /// Size of that array.
        pwq_in_flight_size: width("pool_workqueue.nr_in_flight") => Workqueue,
    }
    /// `struct worker_pool` (kernel/workqueue.c).
    worker_pool: WorkerPoolOffsets {
        /// Head of its workers.
        workers: offset("worker_pool.workers") => Workqueue,
        /// Link of a worker in that list.
        worker_node: offset("worker.node") => Workqueue,
        /// Head of pending work.
        worklist: offset("worker_pool.worklist") => Workqueue,
        /// CPU; negative for unbound pools.
        cpu: offset("worker_pool.cpu") => Workqueue,
        /// Number in its name.
        id: offset("worker_pool.id") => Workqueue,
    }
    /// What says that a CPU neither schedules nor ticks: `struct hrtimer_cpu_base` (include/linux/hrtimer_defs.h), `struct rcu_state`,
    /// `struct rcu_data` and `struct rcu_node` (kernel/rcu/tree.h).
    stall: StallOffsets {
        /// When its next timer is due, ns of CLOCK_MONOTONIC.
        expires_next: offset("hrtimer_cpu_base.expires_next") => OverdueTimer,
        /// Whether that is kept up to date.
        hres_active: bits("hrtimer_cpu_base.hres_active") => OverdueTimer,
        /// Number of the grace period.
        gp_seq: offset("rcu_state.gp_seq") => GracePeriod,
        /// Jiffies at which it began.
        gp_start: offset("rcu_state.gp_start") => GracePeriod,
        /// `struct rcu_node *` of a CPU.
        node: offset("rcu_data.mynode") => GracePeriod,
        /// The CPU's bit there.
        mask: offset("rcu_data.grpmask") => GracePeriod,
        /// Bits of the CPUs that have not let the grace period pass.
        qs_mask: offset("rcu_node.qsmask") => GracePeriod,
    }
    /// Sizes of structs.
    sizes: StructSizes {
        /// `struct task_struct`.
        task: size("task_struct") => TaskIdentity,
        /// `struct mutex`.
        mutex: size("mutex") => MutexOwner,
        /// `struct rw_semaphore`.
        rwsem: size("rw_semaphore") => RwsemOwner,
        /// `struct semaphore`.
        semaphore: size("semaphore") => Semaphore,
        /// `struct completion`.
        completion: size("completion") => Completion,
        /// `struct page`.
        page: size("page") => ObjectNames,
    }
}
