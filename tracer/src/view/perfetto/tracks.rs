//! Tracks: described once, when they are first used.

use std::collections::HashMap;
use std::sync::Arc;

use super::proto::{ProcessDescriptor, ThreadDescriptor, TrackDescriptor};
use crate::event::{Context, TaskRef};
use crate::ids::{CpuId, LockAddr, TaskKey, Tgid, Tid};

/// What a track is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// A thread, with its waits.
    Thread(TaskKey),
    /// An interrupt context of a CPU, with its waits.
    Interrupt(CpuId, Context),
    /// A lock, with its holders, and its name.
    Lock(LockAddr, String),
    /// All findings.
    Findings,
    /// Parent of a process' threads.
    Process(Tgid),
    /// Parent of the locks.
    Locks,
    /// Parent of the interrupts.
    Interrupts,
}

/// All tracks so far.
#[derive(Debug, Default)]
pub struct Tracks {
    uuids: HashMap<Track, u64>,
    locks: HashMap<LockAddr, u64>,
    names: HashMap<TaskKey, (Tgid, Arc<str>)>,
    current: HashMap<Tid, TaskKey>,
}

impl Tracks {
    /// Takes note of a thread's name.
    pub fn name(&mut self, task: &TaskRef) {
        let key = self.thread(task.key);
        self.names.insert(key, (task.tgid, Arc::clone(&task.comm)));
    }

    /// Name of a thread.
    pub fn comm(&self, task: TaskKey) -> Option<&Arc<str>> {
        self.names.get(&task).map(|(_, comm)| comm)
    }

    /// The track's identity, and what has to be described before it is used.
    pub fn uuid(&mut self, track: Track) -> (u64, Vec<TrackDescriptor>) {
        let mut new = Vec::new();
        let track = match track {
            Track::Thread(key) => Track::Thread(self.thread(key)),
            other => other,
        };
        let uuid = self.find(track, &mut new);
        (uuid, new)
    }

    /// The thread under the key by which it is known: some events do not tell when it started.
    fn thread(&mut self, key: TaskKey) -> TaskKey {
        let current = self.current.entry(key.tid).or_insert(key);
        if current.start.0 != 0 && key.start.0 != 0 {
            *current = key;
        }
        *current
    }

    fn find(&mut self, track: Track, new: &mut Vec<TrackDescriptor>) -> u64 {
        let known = match &track {
            // A lock that gets its name later keeps its track.
            Track::Lock(lock, _) => self.locks.get(lock),
            track => self.uuids.get(track),
        };
        if let Some(&uuid) = known {
            return uuid;
        }
        let uuid = (self.uuids.len() + self.locks.len() + 1) as u64;
        match &track {
            Track::Lock(lock, _) => self.locks.insert(*lock, uuid),
            track => self.uuids.insert(track.clone(), uuid),
        };
        let descriptor = self.describe(track, uuid, new);
        new.push(descriptor);
        uuid
    }

    fn describe(&mut self, track: Track, uuid: u64, new: &mut Vec<TrackDescriptor>) -> TrackDescriptor {
        let mut descriptor = TrackDescriptor {
            uuid: Some(uuid),
            ..TrackDescriptor::default()
        };
        match track {
            Track::Thread(key) => {
                let (tgid, comm) = self.names.get(&key).cloned().unwrap_or((Tgid(0), Arc::from("")));
                // Without a known process a thread stands for itself.
                let tgid = if tgid.0 == 0 { Tgid(key.tid.0) } else { tgid };
                descriptor.parent_uuid = Some(self.find(Track::Process(tgid), new));
                descriptor.thread = Some(ThreadDescriptor {
                    pid: i32::try_from(tgid.0).ok(),
                    tid: i32::try_from(key.tid.0).ok(),
                    thread_name: (!comm.is_empty()).then(|| comm.to_string()),
                });
            }
            Track::Process(tgid) => {
                let leader = self.names.iter().find(|(key, _)| key.tid.0 == tgid.0);
                descriptor.process = Some(ProcessDescriptor {
                    pid: i32::try_from(tgid.0).ok(),
                    process_name: leader.map(|(_, (_, comm))| comm.to_string()),
                });
            }
            Track::Interrupt(cpu, context) => {
                descriptor.parent_uuid = Some(self.find(Track::Interrupts, new));
                descriptor.name = Some(format!("CPU {cpu} {context:?}").to_lowercase());
            }
            Track::Lock(_, name) => {
                descriptor.parent_uuid = Some(self.find(Track::Locks, new));
                descriptor.name = Some(name);
            }
            Track::Findings => descriptor.name = Some("findings".to_owned()),
            Track::Locks => descriptor.name = Some("locks: who held them".to_owned()),
            Track::Interrupts => descriptor.name = Some("interrupts that waited".to_owned()),
        }
        descriptor
    }
}
