//! Short words for cells, where findings use whole sentences.

use crate::diagnosis::{About, Certainty, LockRef, Name, Severity, lock_kind_name};
use crate::event::{Mode, Phase, TaskState};
use crate::ids::{CgroupId, Nanos};
use crate::report::{OwnerRow, WaitRow};
use crate::tui::theme::Role;
use crate::view::units::duration;

pub fn severity(severity: Severity) -> Role {
    match severity {
        Severity::Critical => Role::Critical,
        Severity::Warning => Role::Warning,
        Severity::Info => Role::Info,
    }
}

pub fn certainty(certainty: Certainty) -> Role {
    match certainty {
        Certainty::Proven => Role::Strong,
        Certainty::Likely => Role::Text,
        Certainty::Possible => Role::Dim,
    }
}

pub fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Runnable => "runnable",
        TaskState::InIo => "in I/O",
        TaskState::Uninterruptible => "D",
        TaskState::Interruptible => "sleeping",
        TaskState::Idle => "idle",
        TaskState::Stopped => "stopped",
        TaskState::Exited => "exited",
        TaskState::Unknown => "?",
    }
}

pub fn long_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Runnable => "runnable, but has no CPU",
        TaskState::InIo => "asleep in block I/O",
        TaskState::Uninterruptible => "asleep, uninterruptible (D)",
        TaskState::Interruptible => "asleep, interruptible",
        TaskState::Idle => "idle",
        TaskState::Stopped => "stopped",
        TaskState::Exited => "exited",
        TaskState::Unknown => "in an unknown state",
    }
}

pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "excl",
        Mode::Shared => "read",
    }
}

pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Spinning => "spins",
        Phase::Sleeping => "waits",
    }
}

/// `>=` before what is only a lower bound.
pub fn waited(wait: &WaitRow) -> String {
    at_least(wait.waited, wait.waited_is_lower_bound)
}

pub fn at_least(time: Nanos, lower_bound: bool) -> String {
    format!("{}{}", if lower_bound { ">=" } else { "" }, duration(time))
}

/// Kind and name, or address.
pub fn lock(lock: &LockRef) -> String {
    match &lock.name {
        Some(name) => format!("{} {name}", lock_kind_name(lock.kind)),
        None => format!("{} {}", lock_kind_name(lock.kind), lock.address),
    }
}

pub fn lock_name(lock: &LockRef) -> String {
    lock.name
        .as_ref()
        .map_or_else(|| lock.address.to_string(), ToString::to_string)
}

pub fn wanted(wait: &WaitRow) -> String {
    match (&wait.lock, &wait.dependency) {
        (Some(l), _) => lock(l),
        (None, Some(what)) => what.clone(),
        (None, None) => "?".to_owned(),
    }
}

/// `, number 2 in the queue` behind what is waited for, where the place is known.
pub fn place(wait: &WaitRow) -> String {
    wait.place.map_or_else(String::new, |place| {
        format!(", number {} in the queue", place.saturating_add(1))
    })
}

/// Who holds it, as far as is known, and the first name that can be followed.
pub fn owner(owner: &OwnerRow) -> (String, Option<&Name>) {
    match owner {
        OwnerRow::Nobody => ("nobody".to_owned(), None),
        OwnerRow::Task { name } => (name.to_string(), Some(name)),
        OwnerRow::Handed { name } => (format!("handed to {name}"), Some(name)),
        OwnerRow::Unreadable { address } => (format!("unreadable {address}"), None),
        OwnerRow::Unrecorded { readers, candidates } => {
            let readers = match readers {
                Some(1) => "1 reader".to_owned(),
                Some(n) => format!("{n} readers"),
                None => "not recorded".to_owned(),
            };
            match candidates.first() {
                Some(first) => (format!("{readers}, maybe {first}"), Some(first)),
                None => (readers, None),
            }
        }
    }
}

/// The container, else the last directory of the path, else the number.
pub fn cgroup(cgroup: CgroupId, about: &About) -> String {
    match (&about.container, about.cgroup_path.as_deref()) {
        (Some(container), _) => container.to_string(),
        (None, Some("/")) => "/".to_owned(),
        (None, Some(path)) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        (None, None) => cgroup.to_string(),
    }
}
