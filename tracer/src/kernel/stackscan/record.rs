//! Waiter records on a stack.
//!
//! Who waits for a sleeping lock puts a small record on its own stack and links it into the lock's list. The record names the
//! waiter, so it is found by looking for the thread's own address; what kind of record it is follows from the slowpath whose
//! frame it lies in. Nothing found here is believed before the list has been walked ([`super::ring`]).

use super::code::{Class, CodeMap};
use super::memory::is_pointer;
use super::thread::{Thread, ThreadIx};
use crate::event::LockKind;
use crate::kernel::offsets::KernelOffsets;

/// What a waiter record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// A lock of this kind.
    Lock(LockKind),
    /// A completion, or another simple wait queue.
    Completion,
    /// A wait queue, as `wait_event` uses them.
    Event,
}

/// Where a record and its list lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it waits for.
    pub queue: Queue,
    /// Offset of the list node in the record.
    pub list: u32,
    /// Offset of the waiter's `task_struct *` in the record.
    pub task: u32,
    /// Offset of the list head in the lock.
    pub head: u32,
}

/// A record that may be a waiter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose stack it lies on.
    pub thread: ThreadIx,
    /// Address of the record.
    pub at: u64,
    /// How it is laid out.
    pub shape: Shape,
}

impl Record {
    /// Address of its list node.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.at.wrapping_add(self.shape.list.into())
    }

    /// Address of its waiter word.
    #[must_use]
    pub fn task_word(&self) -> u64 {
        self.at.wrapping_add(self.shape.task.into())
    }
}

/// The shapes of this kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shapes {
    mutex: Option<Shape>,
    ww_mutex: Option<Shape>,
    rwsem: Option<Shape>,
    semaphore: Option<Shape>,
    completion: Option<Shape>,
    percpu: Option<Shape>,
    wait_queue: Option<Shape>,
    /// Offset of the wake function in a wait queue entry.
    wake: Option<u32>,
}

impl Shapes {
    /// From the kernel's offsets; a missing field takes the shape away.
    #[must_use]
    pub fn new(o: &KernelOffsets) -> Self {
        let shape = |queue, list, task, head| {
            Some(Shape {
                queue,
                list: list?,
                task: task?,
                head: head?,
            })
        };
        let mutex = |kind| {
            let (list, task) = (o.mutex_waiter.list, o.mutex_waiter.task);
            shape(Queue::Lock(kind), list, task, o.mutex.wait_list)
        };
        Self {
            mutex: mutex(LockKind::Mutex),
            ww_mutex: mutex(LockKind::WwMutex),
            rwsem: shape(
                Queue::Lock(LockKind::Rwsem),
                o.rwsem_waiter.list,
                o.rwsem_waiter.task,
                o.rwsem.wait_list,
            ),
            semaphore: shape(
                Queue::Lock(LockKind::Semaphore),
                o.semaphore_waiter.list,
                o.semaphore_waiter.task,
                o.semaphore.wait_list,
            ),
            completion: shape(Queue::Completion, o.swait.list, o.swait.task, o.completion.wait_list),
            percpu: shape(
                Queue::Lock(LockKind::PercpuRwsem),
                o.wait_queue.entry,
                o.wait_queue.private,
                o.percpu_rwsem
                    .waiters
                    .zip(o.wait_queue.head)
                    .map(|(queue, head)| queue + head),
            ),
            wait_queue: shape(
                Queue::Event,
                o.wait_queue.entry,
                o.wait_queue.private,
                o.wait_queue.head,
            ),
            wake: o.wait_queue.func,
        }
    }

    fn of(&self, class: Class) -> Option<Shape> {
        match class {
            Class::Mutex => self.mutex,
            Class::WwMutex => self.ww_mutex,
            Class::RwsemRead | Class::RwsemWrite => self.rwsem,
            Class::Semaphore => self.semaphore,
            Class::PercpuWait => self.percpu,
            // Whoever flushes or waits for RCU does so through a completion.
            Class::Completion | Class::FlushWork | Class::FlushWorkqueue | Class::Rcu => self.completion,
            _ => None,
        }
    }
}

/// Every place on the stack of a thread which looks like its waiter record.
pub fn records(ix: ThreadIx, thread: &Thread, shapes: &Shapes, code: &CodeMap, out: &mut Vec<Record>) {
    let (from, words) = thread.stack();
    let own = thread.record.task.task;
    if own == 0 {
        return;
    }
    for (index, _) in words.iter().enumerate().filter(|(_, word)| **word == own) {
        let word_at = |addr: u64| {
            let index = usize::try_from(addr.checked_sub(from)? / 8).ok()?;
            words.get(index).copied()
        };
        let at = from.wrapping_add(8 * index as u64);
        // An entry of a wait queue names the function that wakes it: that is sure, whatever frame it lies in.
        let by_frame = shapes_at(words, index, shapes, code);
        for shape in std::iter::once(shapes.wait_queue).chain(by_frame).flatten() {
            let record = Record {
                thread: ix,
                at: at.wrapping_sub(shape.task.into()),
                shape,
            };
            let node = record.node();
            let linked = [node, node.wrapping_add(8)]
                .iter()
                .all(|&link| word_at(link).is_some_and(is_pointer));
            let waker = shapes
                .wake
                .and_then(|wake| word_at(record.at.wrapping_add(wake.into())));
            let possible = match shape.queue {
                Queue::Lock(LockKind::PercpuRwsem) => waker.is_some() && waker == code.pointers.percpu_wake,
                Queue::Event => waker.is_some() && code.pointers.queue_wake.contains(&waker),
                _ => true,
            };
            if linked && possible {
                out.push(record);
                break;
            }
        }
    }
}

/// The shapes a record at this place may have, the most probable first: by the slowpath into whose frame the next return
/// address below leads back (the frame the record lies in), then by the one above.
fn shapes_at(words: &[u64], index: usize, shapes: &Shapes, code: &CodeMap) -> [Option<Shape>; 2] {
    let shape = |word: &u64| shapes.of(code.class(*word)?);
    let below = words.get(..index).and_then(|below| below.iter().rev().find_map(shape));
    let above = words.get(index..).and_then(|above| above.iter().find_map(shape));
    [below, above.filter(|_| below != above)]
}
