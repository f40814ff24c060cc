//! Narrowing a live run down to some tasks or locks (`--only`).
//!
//! Only waits that the probes tell are left out, and what they add to a lock's statistics. Whatever lasts is re-read from its
//! lock and always kept: a chain goes through tasks and locks that nobody thought of, and a filter must not hide a deadlock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::diagnosis::lock_kind_name;
use crate::event::{Actor, Body, Event, Evidence, LockKind, Owner, TaskRef, WaitSample};
use crate::ids::LockAddr;
use crate::tui::filter::{Field, Fields, Filter};

/// Names of locks remembered; beyond it they are forgotten, and locks are known by address and kind again.
const MAX_NAMES: usize = 65_536;
/// Waits of which the end is to be let through; beyond it they are forgotten, and their ends are missing.
const MAX_OPEN: usize = 262_144;

/// What is let through.
#[derive(Debug)]
pub struct Only {
    filter: Filter,
    names: HashMap<LockAddr, Arc<str>>,
    /// Waits that were let through and have not ended.
    open: HashSet<(Actor, LockAddr)>,
}

impl Only {
    /// From the words of `--only`.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            names: HashMap::new(),
            open: HashSet::new(),
        }
    }

    /// Takes out of a batch what was not asked for.
    pub fn retain(&mut self, events: &mut Vec<Event>) {
        events.retain(|event| self.lets_through(&event.body));
    }

    fn lets_through(&mut self, body: &Body) -> bool {
        match body {
            Body::LockName(name) => {
                if self.names.len() >= MAX_NAMES {
                    self.names.clear();
                }
                self.names.insert(name.lock, Arc::clone(&name.name));
                true
            }
            Body::Wait(wait) => {
                let kept = self.wanted(wait);
                if kept {
                    if self.open.len() >= MAX_OPEN {
                        self.open.clear();
                    }
                    self.open.insert((wait.waiter, wait.lock));
                }
                kept
            }
            Body::WaitEnd(end) => self.open.remove(&(end.waiter, end.lock)),
            Body::Release(release) => self.matches(Some(&release.task), release.lock, release.kind),
            Body::Stats(stats) => self.matches(None, stats.lock, stats.kind),
            _ => true,
        }
    }

    fn wanted(&self, wait: &WaitSample) -> bool {
        let told = matches!(wait.evidence, Evidence::Tracepoint | Evidence::Kprobe);
        let itself = match (&wait.owner, wait.waiter) {
            (Owner::Task(owner), Actor::Task(waiter)) => owner.key == waiter,
            _ => false,
        };
        !told || itself || self.matches(wait.task.as_ref(), wait.lock, wait.kind)
    }

    /// `task` is `None` for what concerns all tasks: then its words say nothing.
    fn matches(&self, task: Option<&TaskRef>, lock: LockAddr, kind: LockKind) -> bool {
        let mut fields = Fields::default();
        fields.add(Field::Lock, lock);
        fields.add(Field::Kind, lock_kind_name(kind));
        if let Some(name) = self.names.get(&lock) {
            fields.add(Field::Lock, name);
        }
        match task {
            Some(task) => {
                fields.add(
                    Field::Task,
                    format_args!("{} {} {}", task.comm, task.key.tid, task.tgid),
                );
                self.filter.matches(&fields)
            }
            None => self.filter.without(Field::Task).matches(&fields),
        }
    }
}

/// Parses the words of `--only`.
pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let filter = Filter::parse(text);
    if filter.is_empty() {
        return Err("it names nothing; write for example kind:mutex or task:postgres".to_owned());
    }
    if filter.names(Field::Cgroup) {
        return Err("the cgroup of a task is not known when its wait ends; use task:, lock: or kind:".to_owned());
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::script::Script;

    fn kept(only: &str, script: &str) -> Vec<Event> {
        let mut events: Vec<Event> = Script::parse(script).unwrap().events().cloned().collect();
        Only::new(parse(only).unwrap()).retain(&mut events);
        events
    }

    fn waiters(only: &str, script: &str) -> Vec<u32> {
        let tid = |actor: &Actor| match actor {
            Actor::Task(key) => key.tid.0,
            Actor::Interrupt { .. } => 0,
        };
        let waiter = |event: &Event| match &event.body {
            Body::Wait(wait) => Some(tid(&wait.waiter)),
            Body::WaitEnd(end) => Some(tid(&end.waiter)),
            _ => None,
        };
        kept(only, script).iter().filter_map(waiter).collect()
    }

    const TOLD: &str = "task a 11 postgres\ntask b 12 bash\nlock M mutex lf_m\nlock R rwsem lf_r\nat 1s\n\
         wait a M owner=b by=tracepoint\nend a M\nwait b R owner=a by=tracepoint\nend b R\n";

    #[test]
    fn waits_that_were_not_asked_for_go_with_their_ends() {
        for (only, expected) in [
            ("task:postgres", &[11, 11][..]),
            ("12", &[12, 12]),
            ("kind:mutex", &[11, 11]),
            ("lock:lf_r", &[12, 12]),
            ("task:postgres kind:rw", &[]),
            ("f", &[11, 11, 12, 12]),
        ] {
            assert_eq!(waiters(only, TOLD), expected, "{only}");
        }
    }

    #[test]
    fn what_lasts_and_what_waits_for_itself_stays() {
        let text = "task a 11 postgres\ntask b 12 bash\nlock M mutex lf_m\nat 1s\n\
             wait a M owner=a by=tracepoint\nwait b M owner=a by=tracepoint\nat 2s\nwait b M owner=a by=reread\nat 3s\nend b M\n";
        assert_eq!(waiters("task:nobody", text), [11, 12, 12]);
    }

    #[test]
    fn words_that_cannot_be_judged_are_refused() {
        assert!(parse(" ").is_err());
        assert!(parse("cgroup:7").unwrap_err().contains("cgroup"));
    }
}
