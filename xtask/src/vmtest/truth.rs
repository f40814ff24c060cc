//! What the fault module says is true: `/proc/lockfault`, read back.

use anyhow::{Context as _, Result, bail};
use std::time::Duration;

/// The module's listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Name and address, in the order of the listing.
    pub locks: Vec<(String, u64)>,
    /// Scenario and state.
    pub states: Vec<(String, String)>,
    /// Tasks of the scenarios that were started, in the order of their creation.
    pub tasks: Vec<Task>,
    /// Where tasks that said so spent their time.
    pub spent: Vec<Spent>,
    /// How often tasks had the lock of their scenario.
    pub took: Vec<(String, Took)>,
}

/// How often a task had the lock of its scenario, as it counted itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    pub pid: u32,
    pub shared: u64,
    pub exclusive: u64,
}

/// A task that a scenario created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub scenario: String,
    pub role: String,
    pub pid: u32,
}

/// Where a task spent its time, by the scheduler's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    pub pid: u32,
    /// On a CPU.
    pub ran: Duration,
    /// Runnable, without a CPU.
    pub starved: Duration,
    /// In all.
    pub lasted: Duration,
}

impl Truth {
    /// Reads a listing.
    ///
    /// # Errors
    /// A line of unknown form: the contract with the module is broken.
    pub fn parse(text: &str) -> Result<Self> {
        let mut truth = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["lock", name, address] => {
                    let digits = address.strip_prefix("0x").unwrap_or(address);
                    let address = u64::from_str_radix(digits, 16).with_context(|| format!("address in \"{line}\""))?;
                    truth.locks.push(((*name).to_owned(), address));
                }
                ["state", scenario, state] => truth.states.push(((*scenario).to_owned(), (*state).to_owned())),
                ["task", scenario, role, pid] => {
                    let pid = pid.parse().with_context(|| format!("pid in \"{line}\""))?;
                    truth.tasks.push(Task {
                        scenario: (*scenario).to_owned(),
                        role: (*role).to_owned(),
                        pid,
                    });
                }
                ["spent", _, _, pid, times @ ..] => {
                    let pid = pid.parse().with_context(|| format!("pid in \"{line}\""))?;
                    let times = times
                        .iter()
                        .map(|ns| Ok(Duration::from_nanos(ns.parse()?)))
                        .collect::<Result<Vec<_>>>()
                        .with_context(|| format!("times in \"{line}\""))?;
                    let &[ran, starved, lasted] = times.as_slice() else {
                        bail!("/proc/lockfault has a line of unknown form: \"{line}\"");
                    };
                    truth.spent.push(Spent {
                        pid,
                        ran,
                        starved,
                        lasted,
                    });
                }
                ["took", scenario, _, pid, shared, exclusive] => {
                    let number = |text: &str| text.parse::<u64>().with_context(|| format!("number in \"{line}\""));
                    let pid = pid.parse().with_context(|| format!("pid in \"{line}\""))?;
                    let (shared, exclusive) = (number(shared)?, number(exclusive)?);
                    let took = Took { pid, shared, exclusive };
                    truth.took.push(((*scenario).to_owned(), took));
                }
                _ => bail!("/proc/lockfault has a line of unknown form: \"{line}\""),
            }
        }
        Ok(truth)
    }

    /// Address of a lock.
    ///
    /// # Errors
    /// No lock of that name.
    pub fn lock(&self, name: &str) -> Result<u64> {
        let found = self.locks.iter().find(|(known, _)| known == name);
        found
            .map(|(_, address)| *address)
            .with_context(|| format!("no lock {name} in {:?}", self.locks))
    }

    /// State of a scenario.
    ///
    /// # Errors
    /// No scenario of that name.
    pub fn state(&self, scenario: &str) -> Result<&str> {
        let found = self.states.iter().find(|(known, _)| known == scenario);
        found
            .map(|(_, state)| state.as_str())
            .with_context(|| format!("no scenario {scenario} in {:?}", self.states))
    }

    /// Pids of all tasks with a role, in the order of their creation.
    pub fn tasks(&self, scenario: &str, role: &str) -> Vec<u32> {
        let wanted = |task: &&Task| task.scenario == scenario && task.role == role;
        self.tasks.iter().filter(wanted).map(|task| task.pid).collect()
    }

    /// How often each task of a scenario had its lock.
    pub fn took<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = Took> + 'a {
        let own = self.took.iter().filter(move |(name, _)| name == scenario);
        own.map(|(_, took)| *took)
    }

    /// Where a task spent its time.
    ///
    /// # Errors
    /// It did not say so.
    pub fn spent(&self, pid: u32) -> Result<&Spent> {
        let found = self.spent.iter().find(|spent| spent.pid == pid);
        found.with_context(|| format!("{pid} did not tell where its time went: {:?}", self.spent))
    }

    /// Pid of the only task with a role.
    ///
    /// # Errors
    /// None, or several.
    pub fn task(&self, scenario: &str, role: &str) -> Result<u32> {
        match self.tasks(scenario, role).as_slice() {
            [pid] => Ok(*pid),
            other => bail!(
                "{} tasks with the role {role} of {scenario} in {:?}",
                other.len(),
                self.tasks
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_is_read() {
        let text = "lock lockfault_aa_mutex 0xffffffffc05ee280\nstate mutex-aa established\ntask mutex-aa worker 52\n\
            task mutex-aa flusher 118\nstate mutex-abba idle\ntask x waiter 1\ntask x waiter 2\nspent x waiter 2 5 6 70\n\
            took x waiter 2 3 4\n";
        let truth = Truth::parse(text).unwrap();
        assert_eq!(truth.lock("lockfault_aa_mutex").unwrap(), 0xffff_ffff_c05e_e280);
        assert_eq!(truth.state("mutex-abba").unwrap(), "idle");
        assert_eq!(truth.task("mutex-aa", "flusher").unwrap(), 118);
        assert_eq!(truth.tasks("x", "waiter"), [1, 2]);
        let told = truth.spent(2).unwrap();
        assert_eq!(
            [told.ran, told.starved, told.lasted],
            [5, 6, 70].map(Duration::from_nanos)
        );
        assert!(truth.spent(1).is_err(), "not told");
        let own: Vec<Took> = truth.took("x").collect();
        let twice = Took {
            pid: 2,
            shared: 3,
            exclusive: 4,
        };
        assert_eq!(own, [twice]);
        assert_eq!(truth.took("mutex-aa").count(), 0);
        assert!(truth.task("x", "waiter").is_err(), "two");
        assert!(truth.task("mutex-abba", "first").is_err(), "none");
        assert!(truth.lock("nope").is_err() && truth.state("nope").is_err());
    }

    #[test]
    fn unknown_lines_break_the_contract() {
        for text in [
            "lock a",
            "lock a 0xzz",
            "state a b c",
            "task a b c",
            "spent a b 1 2 3",
            "took a b 1 2",
            "hello",
        ] {
            assert!(Truth::parse(text).is_err(), "{text}");
        }
    }
}
