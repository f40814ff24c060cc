//! What threads are about: the work a worker executes, the system call somebody sleeps in and the file it is about, the path of
//! a cgroup.
//!
//! All of it is read from kernel memory, of threads that slept before and after with an unchanged switch count: what was read is
//! of one moment then. Nothing is read below `/proc/PID` or `/sys/fs/cgroup`, where a lock that is stuck would hold us up as
//! well, and nothing from the memory of a process, where a page may be missing. It happens between the rounds, never in a probe.

pub(in crate::kernel) mod ask;
mod cgroup;
pub mod container;
pub(in crate::kernel) mod entry;
pub(in crate::kernel) mod file;
mod syscall_class;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use tracer_common::kind::task_field;
use tracer_common::record::TaskRecord;

use self::ask::{Asker, ask_all};
use super::offsets::KernelOffsets;
use super::stackscan::{Memory, Words};
use crate::event::{Activity, Body, CgroupName, Doing, Event, TaskState};
use crate::ids::{CgroupId, KernelAddr, Nanos, TaskKey, Timestamp};
use crate::wire;

/// Threads looked at in one go; the others have their turn in the next round.
const MAX_AT_ONCE: usize = 2_048;
/// Threads and cgroups remembered; beyond it all are looked at again, which is harmless.
const MAX_KNOWN: usize = 65_536;
/// A thread that sleeps on is looked at again after this time: a file may have been renamed, and whoever reads along may have
/// forgotten.
const AGAIN_AFTER: Nanos = Nanos::from_secs(30);

/// A thread that an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Who.
    pub key: TaskKey,
    /// Address of its `task_struct`.
    pub task: u64,
    /// `task_struct.flags`.
    pub flags: u32,
    /// Its context switches, if it was asleep.
    pub asleep: Option<u64>,
    /// Its cgroup, 0 when unknown.
    pub cgroup: CgroupId,
}

impl Met {
    /// The thread of a record; `None` when it is too little known to ask for more.
    #[must_use]
    pub fn of(record: &TaskRecord) -> Option<Self> {
        const ASLEEP: [TaskState; 4] = [
            TaskState::Uninterruptible,
            TaskState::InIo,
            TaskState::Interruptible,
            TaskState::Idle,
        ];
        let has = |fields| record.fields & fields == fields;
        let key = wire::task_ref(record).key;
        let asleep = has(task_field::STATE | task_field::SWITCHES) && ASLEEP.contains(&wire::task_state(record));
        (record.task != 0 && has(task_field::IDENTITY | task_field::START | task_field::FLAGS)).then_some(Self {
            key,
            task: record.task,
            flags: record.pf_flags,
            asleep: asleep.then_some(record.switches),
            cgroup: CgroupId(record.cgroup),
        })
    }
}

/// What was found of a thread, and when.
#[derive(Debug)]
struct Known {
    asleep: Option<u64>,
    at: Timestamp,
    work: Option<KernelAddr>,
}

/// Finds out what threads are about, each once for as long as it sleeps.
#[derive(Debug)]
pub struct TaskFacts {
    offsets: KernelOffsets,
    known: HashMap<TaskKey, Known>,
    cgroups: HashSet<CgroupId>,
}

/// What one look at a thread gave.
#[derive(Debug, Default)]
struct Look {
    activity: Option<Activity>,
    cgroup: Option<Arc<str>>,
}

impl TaskFacts {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(offsets: KernelOffsets) -> Self {
        Self {
            offsets,
            known: HashMap::new(),
            cgroups: HashSet::new(),
        }
    }

    /// Adds to the events from index `from` on what the threads in them are about. `met` are those threads.
    ///
    /// # Errors
    /// When kernel memory cannot be read at all.
    pub fn describe(
        &mut self,
        met: &[Met],
        memory: &mut dyn Memory,
        now: Timestamp,
        from: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        if self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        if self.cgroups.len() > MAX_KNOWN {
            self.cgroups.clear();
        }
        let mut wanted: HashMap<TaskKey, Met> = HashMap::new();
        for met in met {
            if wanted.len() < MAX_AT_ONCE && self.is_news(met, now) {
                wanted.insert(met.key, *met);
            }
        }
        let mut found = HashMap::new();
        if !wanted.is_empty() {
            let mut wanted: Vec<Met> = wanted.into_values().collect();
            wanted.sort_unstable_by_key(|met| met.key);
            found = self.look(&wanted, memory, now)?;
        }
        self.insert(found, from, out);
        Ok(())
    }

    fn is_news(&self, met: &Met, now: Timestamp) -> bool {
        let is_worker = met.flags & worker::PF_WQ_WORKER != 0;
        let sleeps_on =
            |known: &Known| met.asleep.is_some() && known.asleep == met.asleep && now.since(known.at) < AGAIN_AFTER;
        let activity = (met.asleep.is_some() || is_worker) && !self.known.get(&met.key).is_some_and(sleeps_on);
        activity || met.cgroup.0 != 0 && !self.cgroups.contains(&met.cgroup)
    }

    fn look(&mut self, wanted: &[Met], memory: &mut dyn Memory, now: Timestamp) -> Result<HashMap<TaskKey, Look>> {
        let o = &self.offsets;
        let mut words = Words::new(memory);
        let activities = ask_all(&mut words, wanted, |met, ask| activity(met, o, ask))?;
        let news: Vec<Met> = {
            let mut asked = HashSet::new();
            let is_new =
                |met: &&Met| met.cgroup.0 != 0 && !self.cgroups.contains(&met.cgroup) && asked.insert(met.cgroup);
            wanted.iter().filter(is_new).copied().collect()
        };
        let paths = ask_all(&mut words, &news, |met, ask| cgroup::path(met.task, met.cgroup, o, ask))?;
        let unmoved = settled(wanted, o, &mut words)?;
        let mut found: HashMap<TaskKey, Look> = HashMap::new();
        for ((met, activity), unmoved) in wanted.iter().zip(activities).zip(unmoved) {
            let activity = activity.filter(|_| unmoved);
            let work = match activity {
                Some(Activity::Work { function, .. }) => Some(function),
                _ => None,
            };
            // Who has moved is looked at again.
            let asleep = met.asleep.filter(|_| unmoved);
            self.known.insert(met.key, Known { asleep, at: now, work });
            found.entry(met.key).or_default().activity = activity.filter(|_| met.asleep.is_some());
        }
        for (met, path) in news.iter().zip(paths) {
            if let Some(path) = path {
                self.cgroups.insert(met.cgroup);
                found.entry(met.key).or_default().cgroup = Some(path.into());
            }
        }
        Ok(found)
    }

    /// Puts what was found behind the last event about each thread, and the name of its cgroup before the first.
    fn insert(&self, mut found: HashMap<TaskKey, Look>, from: usize, out: &mut Vec<Event>) {
        let events = out.split_off(from.min(out.len()));
        let mut last: HashMap<TaskKey, usize> = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            if let Body::Task(sample) = &event.body {
                last.insert(sample.task.key, at);
            }
        }
        for (at, mut event) in events.into_iter().enumerate() {
            let time = event.time;
            let Body::Task(sample) = &mut event.body else {
                out.push(event);
                continue;
            };
            let key = sample.task.key;
            if sample.work.is_none() {
                sample.work = self.known.get(&key).and_then(|known| known.work);
            }
            let look = found.get_mut(&key);
            let cgroup = sample.cgroup;
            let (path, activity) = look.map_or((None, None), |look| {
                let activity = (last.get(&key) == Some(&at)).then(|| look.activity.take()).flatten();
                (look.cgroup.take(), activity)
            });
            let push = |out: &mut Vec<Event>, body| out.push(Event { time, body });
            if let Some(path) = path {
                push(out, Body::CgroupName(CgroupName { cgroup, path }));
            }
            out.push(event);
            if let Some(activity) = activity {
                push(out, Body::Doing(Doing { task: key, activity }));
            }
        }
    }
}

fn activity(met: &Met, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Activity> {
    if met.flags & worker::PF_WQ_WORKER != 0 {
        worker::work(met.task, o, ask)
    } else if met.asleep.is_some() {
        entry::activity(met.task, met.flags, o, ask)
    } else {
        None
    }
}

/// Which of the threads are still who they were, and have slept all the time if they were asleep.
pub(in crate::kernel) fn settled(wanted: &[Met], o: &KernelOffsets, words: &mut Words<'_>) -> Result<Vec<bool>> {
    let t = &o.task;
    let fields = [t.start_time, t.state, t.on_cpu, t.nvcsw, t.nivcsw];
    let [Some(_), Some(_), Some(_), Some(_), Some(_)] = fields else {
        return Ok(vec![false; wanted.len()]);
    };
    let addrs: Vec<u64> = wanted
        .iter()
        .flat_map(|met| {
            fields
                .iter()
                .flatten()
                .map(|&field| met.task.wrapping_add(field.into()))
        })
        .collect();
    let values = words.again(&addrs)?;
    let low = |word: u64| word & 0xffff_ffff;
    let is_settled = |(met, words): (&Met, &[Option<u64>])| match *words {
        [
            Some(start),
            Some(state),
            Some(on_cpu),
            Some(voluntary),
            Some(involuntary),
        ] => {
            let slept =
                |switches| low(state) != 0 && low(on_cpu) == 0 && voluntary.wrapping_add(involuntary) == switches;
            start == met.key.start.0 && met.asleep.is_none_or(slept)
        }
        _ => false,
    };
    Ok(wanted.iter().zip(values.chunks(fields.len())).map(is_settled).collect())
}
