//! Who uses an object, and on whose stack an address lies. Asked of the kernel only when a lock needs it, and seldom.
//!
//! What was asked for a while ago may be another thread's by now, or the thread have another name: an answer counts only if the thread itself
//! says the same when a lock is named, and its name is read then.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_common::snapshot::{USED_OBJECTS, UserRecord};

use super::LockNamer;
use super::reader::{Reader, Soon};
use crate::kernel::offsets::KernelOffsets;
use crate::kernel::stackscan::Memory;

/// Threads come and go; asking for all of them costs time.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Threads as they were when they were last asked for.
#[derive(Debug, Default)]
pub struct Users {
    stack_size: u64,
    /// (lowest address of the stack, `task_struct`), sorted.
    stacks: Vec<(u64, u64)>,
    /// The processes that use an object.
    objects: HashMap<u64, Use>,
    asked: Option<Instant>,
    /// Something that is known only by asking again was wanted.
    wanted: Cell<bool>,
}

/// Who uses an object.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// A thread of the first process.
    task: u64,
    /// Which of [`UserRecord::objects`] it is.
    member: usize,
    /// How many other processes do.
    others: usize,
}

impl Users {
    /// For stacks of this size.
    pub fn new(stack_size: u32) -> Self {
        Self {
            stack_size: stack_size.into(),
            ..Self::default()
        }
    }

    /// Asks anew if something is wanted and the last time is long enough ago; true if it was asked.
    pub fn ask(&mut self, memory: &mut dyn Memory) -> Result<bool> {
        let due = self.asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN_AFTER);
        if !self.wanted.replace(false) || !due {
            return Ok(false);
        }
        self.take(&memory.users()?);
        self.asked = Some(Instant::now());
        Ok(true)
    }

    fn take(&mut self, records: &[UserRecord]) {
        self.stacks = records.iter().map(|r| (r.stack, r.task)).filter(|s| s.0 != 0).collect();
        self.stacks.sort_unstable();
        let mut processes: HashMap<u64, Vec<(u32, u64, usize)>> = HashMap::new();
        for record in records {
            for (member, &object) in record.objects.iter().enumerate().filter(|(_, object)| **object != 0) {
                let users = processes.entry(object).or_default();
                if users.iter().all(|(tgid, ..)| *tgid != record.tgid) {
                    users.push((record.tgid, record.task, member));
                }
            }
        }
        let known = processes.into_iter().filter_map(|(object, users)| {
            let &(_, task, member) = users.iter().min_by_key(|(tgid, ..)| *tgid)?;
            let others = users.len() - 1;
            Some((object, Use { task, member, others }))
        });
        self.objects = known.collect();
    }
}

/// Offset in `task_struct` of each of [`UserRecord::objects`].
fn members(o: &KernelOffsets) -> [Option<u32>; USED_OBJECTS] {
    [o.task.mm, o.task.signal, o.task.sighand, o.task.files, o.task.fs]
}

impl LockNamer {
    /// The process that uses an object, and how many others do.
    pub(super) fn used(&self, reader: &mut Reader, object: u64) -> Soon<Option<String>> {
        let user = self.users.objects.get(&object);
        let member = user.and_then(|user| *members(&self.offsets).get(user.member)?);
        let (Some(user), Some(member)) = (user, member) else {
            self.users.wanted.set(true);
            return Ok(None);
        };
        let (held, process) = (
            reader.word(user.task.wrapping_add(member.into())),
            self.process(reader, user.task),
        );
        if held? != Some(object) {
            self.users.wanted.set(true);
            return Ok(None);
        }
        Ok(process?.map(|process| match user.others {
            0 => process,
            others => format!("{process} and {others} others"),
        }))
    }

    /// The thread on whose stack an address lies.
    pub(super) fn stack_of(&self, reader: &mut Reader, addr: u64) -> Soon<Option<String>> {
        let after = self.users.stacks.partition_point(|&(stack, _)| stack <= addr);
        let found = after.checked_sub(1).and_then(|at| self.users.stacks.get(at));
        let found = found.filter(|(stack, _)| addr - stack < self.users.stack_size);
        let (Some(&(stack, task)), Some(member)) = (found, self.offsets.task.stack) else {
            self.users.wanted.set(true);
            return Ok(None);
        };
        let (own, thread) = (reader.word(task.wrapping_add(member.into())), self.task(reader, task));
        if own? != Some(stack) {
            self.users.wanted.set(true);
            return Ok(None);
        }
        thread
    }
}
