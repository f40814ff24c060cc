//! A kernel of words: tasks with stacks, locks and lists, laid out with made-up offsets.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use tracer_common::record::{Header, TaskRecord};
use tracer_common::snapshot::ThreadRecord;

use super::super::code::{Class, Pointers};
use super::super::{CodeMap, Found, Kernel, Memory, Thread, ThreadIx, Threads, scan};
use crate::ids::Timestamp;
use crate::kernel::offsets::KernelOffsets;

/// Size of a stack.
pub const STACK: u64 = 0x4000;
/// `wq_barrier_func`.
pub const BARRIER: u64 = 0xffff_ffff_8100_9000;
/// `percpu_rwsem_wake_function`.
pub const PERCPU_WAKE: u64 = 0xffff_ffff_8100_a000;
/// `autoremove_wake_function`.
pub const QUEUE_WAKE: u64 = 0xffff_ffff_8100_b000;
/// D.
pub const UNINTERRUPTIBLE: u32 = 2;
/// S.
pub const INTERRUPTIBLE: u32 = 1;

/// Return address into a function of a class.
pub fn ret(class: Class) -> u64 {
    start(class) + 0x40
}

fn start(class: Class) -> u64 {
    0xffff_ffff_8100_0000 + 0x100 * class as u64
}

/// The made-up layout.
pub fn offsets() -> KernelOffsets {
    let mut o = KernelOffsets::default();
    (o.task.pid, o.task.tgid, o.task.comm) = (Some(0x100), Some(0x104), Some(0x110));
    (o.task.start_time, o.task.exit_state) = (Some(0x120), Some(0x128));
    (o.task.nvcsw, o.task.nivcsw, o.task.on_cpu) = (Some(0x130), Some(0x138), Some(0x140));
    (o.task.ptrace, o.task.parent) = (Some(0x148), Some(0x150));
    (o.task.jobctl, o.task.vfork_done) = (Some(0x158), Some(0x160));
    (o.mutex.owner, o.mutex.wait_list) = (Some(0), Some(16));
    (o.mutex_waiter.list, o.mutex_waiter.task) = (Some(0), Some(16));
    (o.rwsem.count, o.rwsem.owner, o.rwsem.wait_list) = (Some(0), Some(8), Some(24));
    (o.rwsem_waiter.list, o.rwsem_waiter.task, o.rwsem_waiter.waits_as) = (Some(0), Some(16), Some(24));
    (o.semaphore.count, o.semaphore.wait_list) = (Some(4), Some(8));
    (o.semaphore_waiter.list, o.semaphore_waiter.task) = (Some(0), Some(16));
    (o.rt_mutex.owner, o.rt_mutex_waiter.task, o.rt_mutex_waiter.lock) = (Some(24), Some(48), Some(56));
    (o.percpu_rwsem.writer_task, o.percpu_rwsem.waiters) = (Some(64), Some(72));
    (
        o.wait_queue.private,
        o.wait_queue.func,
        o.wait_queue.entry,
        o.wait_queue.head,
    ) = (Some(8), Some(16), Some(24), Some(8));
    (o.completion.wait_list, o.swait.task, o.swait.list) = (Some(16), Some(0), Some(8));
    (o.work.entry, o.work.func, o.work.barrier_work, o.work.barrier_task) = (Some(8), Some(24), Some(0), Some(64));
    (o.worker.kthread_data, o.worker.kthread_exited) = (Some(8), Some(32));
    (o.worker.task, o.worker.current_func, o.worker.current_pwq) = (Some(0), Some(8), Some(16));
    (o.worker.scheduled, o.worker.pool, o.worker_pool.worklist) = (Some(24), Some(40), Some(16));
    (
        o.workqueue.flusher_done,
        o.workqueue.first_flusher,
        o.workqueue.flusher_queue,
    ) = (Some(24), Some(8), Some(16));
    o.workqueue.pwq_wq = Some(8);
    (o.mm.mmap_lock, o.sizes.rwsem, o.sizes.semaphore) = (Some(0x78), Some(40), Some(24));
    o
}

/// The same of a PREEMPT_RT kernel: its mutexes and rwsems have an rt_mutex inside.
fn rt_offsets() -> KernelOffsets {
    let mut o = offsets();
    (o.mutex.owner, o.mutex.rtmutex, o.mutex.wait_list) = (Some(24), Some(0), None);
    (o.rwsem.count, o.rwsem.owner, o.rwsem.wait_list) = (None, None, None);
    (o.rwsem.rt_readers, o.rwsem.rt_rtmutex, o.rwsem.rt_owner) = (Some(0), Some(8), Some(32));
    o
}

/// A task in the making; its stack is written from the end down.
#[derive(Clone, Debug)]
pub struct Task {
    /// Address of its `task_struct`.
    pub addr: u64,
    /// The record, changed at will.
    pub record: ThreadRecord,
    frames: Vec<u64>,
    base: u64,
    sp: u64,
}

/// The kernel.
#[derive(Debug, Default)]
pub struct Rig {
    pub words: HashMap<u64, u64>,
    /// What is read instead from the second reading on.
    pub later: HashMap<u64, u64>,
    pub tasks: Vec<Task>,
    pub all: bool,
    /// The kernel is PREEMPT_RT.
    pub rt: bool,
    pub runs: usize,
    seen: HashMap<u64, u32>,
}

impl Memory for Rig {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        self.runs += 1;
        assert!(self.runs < 500, "reads without end");
        Ok(addrs
            .iter()
            .map(|addr| {
                let seen = self.seen.entry(*addr).or_default();
                *seen += 1;
                let changed = if *seen > 1 { self.later.get(addr) } else { None };
                changed.or_else(|| self.words.get(addr)).copied()
            })
            .collect())
    }
}

impl Rig {
    /// A task in this state; its place among the threads is its number.
    pub fn task(&mut self, tid: u32, state: u32) -> usize {
        let addr = 0xffff_8880_0000_0000 + 0x4000 * u64::from(tid);
        let base = 0xffff_c900_0000_0000 + 0x8000 * u64::from(tid);
        let name = format!("task{tid}");
        let task = TaskRecord {
            task: addr,
            start: 1000,
            switches: 7,
            cgroup: 0,
            tid,
            tgid: tid,
            comm: comm(&name),
            state,
            pf_flags: 0,
            cpu: 0,
            on_cpu: 0,
            in_iowait: 0,
            fields: 0x7f,
        };
        let record = ThreadRecord {
            header: Header {
                kind: 6,
                size: 0,
                cpu: 0,
                time: 1_000_000_000_000,
            },
            task,
            stack_base: base,
            saved_sp: 0,
            words_from: 0,
            blocker: 0,
            blocked_on: 0,
            pi_blocked_on: 0,
            kthread: 0,
            mm: 0,
            exec_start: 500_000_000_000,
            stack_len: 0,
            words_len: 0,
        };
        for (offset, word) in [(0x120, task.start), (0x130, 7), (0x138, 0), (0x140, 0)] {
            self.words.insert(addr + offset, word);
        }
        self.rename(addr, &name);
        self.tasks.push(Task {
            addr,
            record,
            frames: Vec::new(),
            base,
            sp: base + STACK,
        });
        self.tasks.len() - 1
    }

    /// Gives the thread at this address another name.
    pub fn rename(&mut self, task: u64, name: &str) {
        let words = comm(name);
        let words = words
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
        self.words.extend((task + 0x110..).step_by(8).zip(words));
    }

    /// Pushes words, the last one at the lowest address; returns the address of the lowest.
    pub fn push(&mut self, task: usize, words: &[u64]) -> u64 {
        let task = &mut self.tasks[task];
        for &word in words {
            task.sp -= 8;
            self.words.insert(task.sp, word);
        }
        task.sp
    }

    /// Adds a frame to what the unwinder gives.
    pub fn frame(&mut self, task: usize, class: Class) {
        self.tasks[task].frames.push(ret(class));
    }

    /// Links nodes into a list with this head.
    pub fn list(&mut self, head: u64, nodes: &[u64]) {
        let mut all = vec![head];
        all.extend(nodes);
        for (i, at) in all.iter().enumerate() {
            self.words.insert(*at, all[(i + 1) % all.len()]);
            self.words.insert(at + 8, all[(i + all.len() - 1) % all.len()]);
        }
    }

    /// Pushes the frame of a slowpath with a waiter record `{list, task, extra}`; returns the record's address.
    pub fn waiter(&mut self, task: usize, class: Class, extra: u64) -> u64 {
        let own = self.tasks[task].addr;
        let record = self.push(task, &[0x1234, extra, own, 0, 0]);
        self.push(task, &[0x55, ret(class), 0]);
        record
    }

    /// A lock `wait_list` bytes before a list of these records.
    pub fn lock(&mut self, lock: u64, wait_list: u64, words: &[(u64, u64)], records: &[u64]) {
        for (offset, word) in words {
            self.words.insert(lock + offset, *word);
        }
        self.list(lock + wait_list, records);
    }

    /// What is found.
    pub fn scan(&mut self) -> Found {
        self.walk().1
    }

    /// The threads, and what is found.
    pub fn walk(&mut self) -> (Threads, Found) {
        let mut threads = Threads::default();
        for task in &self.tasks {
            let words: Vec<u64> = (task.sp..task.base + STACK)
                .step_by(8)
                .map(|at| self.words[&at])
                .collect();
            let mut record = task.record;
            (record.saved_sp, record.words_from) = (task.sp, task.sp);
            threads.push(Thread::with_stack(record, &task.frames, &words));
        }
        let offsets = if self.rt { rt_offsets() } else { offsets() };
        let code = code();
        let kernel = Kernel {
            offsets: &offsets,
            blocked_on_mutex: true,
            code: &code,
            is_static: &|addr| addr >= 0xffff_ffff_8000_0000,
            own: u32::MAX,
            clock: &|| Timestamp(2_000_000_000_000),
            all: self.all,
        };
        self.seen.clear();
        let found = scan(&threads, &kernel, self).expect("the rig answers");
        (threads, found)
    }
}

/// A name as the kernel keeps it.
pub fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

/// One function for each class.
pub fn code() -> CodeMap {
    let all = [
        Class::Mutex,
        Class::WwMutex,
        Class::RwsemRead,
        Class::RwsemWrite,
        Class::Semaphore,
        Class::RtMutex,
        Class::PercpuWait,
        Class::PercpuWrite,
        Class::Completion,
        Class::FlushWorkqueue,
        Class::Rcu,
        Class::Page,
        Class::BlockIo,
        Class::PageFault,
        Class::Fork,
    ];
    let pointers = Pointers {
        barrier: Some(BARRIER),
        percpu_wake: Some(PERCPU_WAKE),
        queue_wake: [Some(QUEUE_WAKE), None, None],
    };
    CodeMap::from_ranges(all.map(|class| (start(class), start(class) + 0x100, class)), pointers)
}

/// Number of a task as the analysis names it.
pub fn ix(task: usize) -> ThreadIx {
    ThreadIx(task as u32)
}

/// Waits as `(task, lock, kind, mode, place, evidence)` in words, by task.
pub fn waits(found: &Found) -> BTreeMap<u32, String> {
    let told = |w: &super::super::Waiting| {
        format!(
            "{:#x} {:?} {:?} {:?} {:?}",
            w.lock, w.kind, w.mode, w.queued, w.evidence
        )
    };
    found.waits.iter().map(|wait| (wait.thread.0, told(wait))).collect()
}
