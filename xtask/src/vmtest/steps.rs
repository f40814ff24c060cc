//! Writes the guest's part of a test.

use crate::vm::script::{ATTACHED, ESTABLISHED_WITHIN_MS, READY_WITHIN_MS};
use std::collections::BTreeMap;
use std::time::Duration;
use xtask_guest::plan::{Command, CommandId, Job, JobId, LOCKFAULT, Ready, Step};

/// Commands get this long unless [`Steps::limit`] says otherwise.
const LIMIT: Duration = Duration::from_secs(120);

/// The steps of one test, in order. Commands are named by labels, which the check uses to find their output.
#[derive(Debug)]
pub struct Steps {
    job: JobId,
    next: u16,
    limit: Duration,
    steps: Vec<Step>,
    labels: BTreeMap<String, CommandId>,
    /// Labels that were waited for or signalled without having been started.
    unknown: Vec<String>,
    total: Duration,
}

impl Steps {
    /// For job number `job`, whose commands are numbered from `first`.
    pub fn new(job: u16, first: u16) -> Self {
        let (labels, unknown) = (BTreeMap::new(), Vec::new());
        Self {
            job: JobId(job),
            next: first,
            limit: LIMIT,
            steps: Vec::new(),
            labels,
            unknown,
            total: Duration::ZERO,
        }
    }

    /// Run time allowed to each command from here on; then it is stopped, which its exit status shows.
    pub fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Runs `holdup ARGS` to its end.
    pub fn holdup(&mut self, label: &str, arguments: &[&str]) {
        let id = self.start_with(label, holdup(arguments), None);
        self.steps.push(Step::Wait { id });
    }

    /// Starts `holdup ARGS` and goes on once it has said that it is attached.
    pub fn start_attached(&mut self, label: &str, arguments: &[&str]) {
        let ready = Ready {
            text: ATTACHED.to_owned(),
            within_ms: READY_WITHIN_MS,
        };
        self.start_with(label, holdup(arguments), Some(ready));
    }

    /// Starts a shell script that becomes `holdup` with `exec`, and goes on once that has said that it is attached.
    pub fn start_attached_shell(&mut self, label: &str, script: &str) {
        let ready = Ready {
            text: ATTACHED.to_owned(),
            within_ms: READY_WITHIN_MS,
        };
        self.start_with(label, shell(script), Some(ready));
    }

    /// Runs a shell script (busybox) to its end.
    pub fn shell(&mut self, label: &str, script: &str) {
        let id = self.start_with(label, shell(script), None);
        self.steps.push(Step::Wait { id });
    }

    /// Starts a shell script and goes on.
    pub fn start_shell(&mut self, label: &str, script: &str) {
        self.start_with(label, shell(script), None);
    }

    /// Waits for the end of what was started.
    pub fn wait(&mut self, label: &str) {
        let id = self.id(label);
        self.steps.push(Step::Wait { id });
    }

    /// Sends a signal (`INT`, `TERM`, ...) to what was started.
    pub fn signal(&mut self, label: &str, signal: &str) {
        let id = self.id(label);
        self.steps.push(Step::Signal {
            id,
            signal: signal.to_owned(),
        });
    }

    /// Starts a scenario: `NAME` or `NAME param=value ...`.
    pub fn trigger(&mut self, scenario: &str) {
        self.steps.push(Step::Trigger {
            text: scenario.to_owned(),
        });
    }

    /// Ends a scenario that lasts until it is told.
    pub fn end(&mut self, scenario: &str) {
        self.shell(
            &format!("end {scenario}"),
            &format!("echo 'end {scenario}' > {LOCKFAULT}"),
        );
    }

    /// Waits until a scenario's break is in place.
    pub fn established(&mut self, scenario: &str) {
        self.await_state(scenario, "established");
    }

    /// Waits until a scenario that ends by itself is over.
    pub fn done(&mut self, scenario: &str) {
        self.await_state(scenario, "done");
    }

    /// Captures what the fault module says is true; [`super::GuestRun::truth`] reads it.
    pub fn truth(&mut self, label: &str) {
        self.shell(label, &format!("cat {LOCKFAULT}"));
    }

    /// What the steps trigger.
    pub fn triggers(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Trigger { text } => Some(text.as_str()),
            _ => None,
        })
    }

    /// Labels that were waited for or signalled without having been started: mistakes in the table.
    #[cfg(test)]
    pub fn unknown_labels(&self) -> &[String] {
        &self.unknown
    }

    /// The job, the commands' numbers by label, and an upper bound for its time.
    pub fn finish(self) -> (Job, BTreeMap<String, CommandId>, Duration) {
        (
            Job {
                id: self.job,
                steps: self.steps,
            },
            self.labels,
            self.total,
        )
    }

    fn await_state(&mut self, scenario: &str, state: &str) {
        let scenario = scenario.split_whitespace().next().unwrap_or_default().to_owned();
        let within_ms = ESTABLISHED_WITHIN_MS;
        self.total += Duration::from_millis(within_ms);
        self.steps.push(Step::AwaitState {
            scenario,
            state: state.to_owned(),
            within_ms,
        });
    }

    fn start_with(&mut self, label: &str, argv: Vec<String>, ready: Option<Ready>) -> CommandId {
        let id = CommandId(self.next);
        self.next += 1;
        self.total += self.limit;
        self.labels.insert(label.to_owned(), id);
        let command = Command {
            id,
            argv,
            timeout_ms: self.limit.as_millis() as u64,
        };
        self.steps.push(Step::Start { command, ready });
        id
    }

    fn id(&mut self, label: &str) -> CommandId {
        self.labels.get(label).copied().unwrap_or_else(|| {
            self.unknown.push(label.to_owned());
            CommandId(u16::MAX)
        })
    }
}

fn holdup(arguments: &[&str]) -> Vec<String> {
    std::iter::once("holdup")
        .chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}
