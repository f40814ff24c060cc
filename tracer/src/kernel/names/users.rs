//! Who uses an object, and on whose stack an address lies. Asked of the kernel only when a lock needs it, and seldom.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_common::snapshot::UserRecord;

use crate::kernel::stackscan::Memory;

/// Threads come and go; asking for all of them costs time.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Threads as they were when they were last asked for.
#[derive(Debug, Default)]
pub struct Users {
    stack_size: u64,
    /// (lowest address of the stack, place in `threads`), sorted.
    stacks: Vec<(u64, usize)>,
    /// The processes that use an object: the first one, and how many others.
    objects: HashMap<u64, (String, usize)>,
    threads: Vec<String>,
    asked: Option<Instant>,
    /// Something that is known only by asking again was wanted.
    wanted: Cell<bool>,
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
        self.threads = records.iter().map(|r| format!("{} ({})", comm(r), r.tid)).collect();
        self.stacks = records.iter().map(|r| r.stack).zip(0..).filter(|s| s.0 != 0).collect();
        self.stacks.sort_unstable();
        let mut processes: HashMap<u64, Vec<(u32, &UserRecord)>> = HashMap::new();
        for record in records {
            for &object in record.objects.iter().filter(|&&object| object != 0) {
                let users = processes.entry(object).or_default();
                match users.iter_mut().find(|(tgid, _)| *tgid == record.tgid) {
                    // The first thread names the process.
                    Some(known) if record.tid == record.tgid => known.1 = record,
                    Some(_) => {}
                    None => users.push((record.tgid, record)),
                }
            }
        }
        let named = processes.into_iter().filter_map(|(object, mut users)| {
            users.sort_unstable_by_key(|(tgid, _)| *tgid);
            let (tgid, first) = users.first()?;
            Some((object, (format!("{} ({tgid})", comm(first)), users.len() - 1)))
        });
        self.objects = named.collect();
    }

    /// The process that uses an object.
    pub fn of_object(&self, object: u64) -> Option<String> {
        match self.objects.get(&object) {
            Some((process, 0)) => Some(process.clone()),
            Some((process, others)) => Some(format!("{process} and {others} others")),
            None => {
                self.wanted.set(true);
                None
            }
        }
    }

    /// The thread on whose stack an address lies.
    pub fn on_stack(&self, addr: u64) -> Option<&str> {
        let after = self.stacks.partition_point(|&(stack, _)| stack <= addr);
        let found = after.checked_sub(1).and_then(|at| self.stacks.get(at));
        match found.filter(|(stack, _)| addr - stack < self.stack_size) {
            Some(&(_, thread)) => self.threads.get(thread).map(String::as_str),
            None => {
                self.wanted.set(true);
                None
            }
        }
    }
}

fn comm(record: &UserRecord) -> String {
    let bytes: Vec<u8> = record.comm.iter().copied().take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
