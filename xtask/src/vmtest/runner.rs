//! Runs the tests: one boot for each kernel and group, side by side where there are CPUs for it.

use super::results::{GuestRun, Output};
use super::{Steps, TABLES, VmTest, names, power_cut};
use crate::setup::{self, Part};
use crate::test::{Count, Line, matches};
use crate::vm::boot::{self, Outcome};
use crate::vm::console::Marker;
use crate::vm::files::Returned;
use crate::vm::kernels::{self, Kernel};
use crate::vm::module::{self, Module};
use crate::vm::scenarios;
use crate::vm::session::{Session, Sink};
use crate::vm::stock_modules;
use crate::{build, paths, ui};
use anyhow::{Context as _, Result, anyhow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use xtask_guest::message::Message;
use xtask_guest::plan::{CommandId, Job, JobId, Plan};

/// Name of the test that each boot is itself.
pub const MACHINE: &str = "machine";
/// CPUs of each guest.
const CPUS: u16 = 4;
/// No boot may take longer, whatever its steps would allow.
const BOOT_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Full name of a test.
pub fn full_name(kernel: &str, group: &str, name: &str) -> String {
    format!("boot/{kernel}/{group}/{name}")
}

/// Full names of all tests that match.
pub fn names(filter: Option<&str>) -> Vec<String> {
    let mut names = Vec::new();
    for ((kernel, group), tests) in boots(filter) {
        names.extend(tests.iter().map(|test| full_name(kernel, group, test.name)));
        names.push(full_name(kernel, group, MACHINE));
    }
    names
}

/// Runs every test that matches.
///
/// # Errors
/// Only [`boot::Interrupted`]; everything else is a failed test.
pub fn run(filter: Option<&str>, count: &mut Count) -> Result<()> {
    let boots = boots(filter);
    if boots.is_empty() {
        return Ok(());
    }
    let kernels: BTreeSet<&str> = boots.keys().map(|(kernel, _)| *kernel).collect();
    let tests: usize = boots.values().map(|tests| tests.len() + 1).sum();
    ui::step(format!(
        "{tests} tests in {} boots of {} kernels",
        boots.len(),
        kernels.len()
    ));
    let holdup = setup::ensure(&[Part::Machine, Part::Modules]).and_then(|()| build::guest_holdup());
    let holdup = holdup.map_err(|error| format!("{error:#}"));
    let mut prepared: BTreeMap<&str, Result<(Kernel, Vec<Module>), String>> = BTreeMap::new();
    for kernel in kernels {
        prepared.insert(kernel, prepare(kernel).map_err(|error| format!("{error:#}")));
    }
    let mut queue: VecDeque<Boot<'_>> = VecDeque::new();
    for ((kernel, group), tests) in boots {
        let ready = match (&holdup, prepared.get(kernel)) {
            (Ok(holdup), Some(Ok((kernel, modules)))) => Ok((holdup.clone(), kernel.clone(), modules.clone())),
            (Err(error), _) | (_, Some(Err(error))) => Err(error.clone()),
            (Ok(_), None) => Err(format!("kernel {kernel} was not prepared")),
        };
        match ready {
            Ok((holdup, image, modules)) => queue.push_back(Boot {
                kernel,
                group,
                tests,
                holdup,
                image,
                modules,
            }),
            Err(error) => {
                for name in tests.iter().map(|test| test.name).chain([MACHINE]) {
                    count.add(&full_name(kernel, group, name), Line::Failed(error.clone()));
                }
            }
        }
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = guests_at_once(cpus).min(queue.len().max(1));
    let (queue, count) = (Mutex::new(queue), Mutex::new(count));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    // Not in the loop's condition: the lock would be held while the boot runs.
                    let next = lock(&queue).pop_front();
                    let Some(boot) = next else { return };
                    let started = Instant::now();
                    let results = boot.run();
                    if boot::interrupted() {
                        return;
                    }
                    let seconds = started.elapsed().as_secs();
                    ui::step(format!("boot of {} for {} took {seconds} s", boot.kernel, boot.group));
                    let mut count = lock(&count);
                    for (name, line) in results {
                        count.add(&full_name(boot.kernel, boot.group, name), line);
                    }
                }
            });
        }
    });
    if boot::interrupted() {
        return Err(boot::Interrupted.into());
    }
    Ok(())
}

/// How many guests run at the same time. One under emulation takes one CPU and rests now and then; of a larger machine half is left for
/// its other work.
fn guests_at_once(cpus: usize) -> usize {
    (cpus / 2).max(cpus.min(2))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Boots = BTreeMap<(&'static str, &'static str), Vec<&'static VmTest>>;

fn boots(filter: Option<&str>) -> Boots {
    let mut boots = Boots::new();
    for test in TABLES.iter().copied().flatten() {
        for kernel in test.kernels {
            if matches(filter, &full_name(kernel, test.group, test.name)) {
                boots.entry((kernel, test.group)).or_default().push(test);
            }
        }
    }
    boots
}

fn prepare(name: &str) -> Result<(Kernel, Vec<Module>)> {
    let kernel = kernels::ensure(name, None)?;
    let modules = module::build(&module::lockfault_source(), &kernel)?;
    Ok((kernel, modules))
}

/// One boot to be made.
struct Boot<'a> {
    kernel: &'a str,
    group: &'a str,
    tests: Vec<&'static VmTest>,
    holdup: PathBuf,
    image: Kernel,
    modules: Vec<Module>,
}

impl Boot<'_> {
    /// Boots, and judges every test and the boot itself.
    fn run(&self) -> Vec<(&'static str, Line)> {
        match self.boot() {
            Ok(results) => results,
            Err(error) => {
                let failed = |name| (name, Line::Failed(format!("{error:#}")));
                self.tests
                    .iter()
                    .map(|test| test.name)
                    .chain([MACHINE])
                    .map(failed)
                    .collect()
            }
        }
    }

    /// The modules and the disk of the machine.
    fn equipment(&self, directory: &Path) -> Result<(Vec<Module>, Option<PathBuf>)> {
        if self.group != names::GROUP {
            return Ok((self.modules.clone(), None));
        }
        let mut modules = stock_modules::collect(&self.image, &names::MODULES.map(str::to_owned))?;
        modules.extend(self.modules.iter().cloned());
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let disk = directory.join("disk.img");
        power_cut::make_disk(&disk)?;
        Ok((modules, Some(disk)))
    }

    fn boot(&self) -> Result<Vec<(&'static str, Line)>> {
        let directory = paths::target()
            .join("vm")
            .join(format!("{}-{}", self.kernel, self.group));
        if directory.exists() {
            std::fs::remove_dir_all(&directory).with_context(|| format!("clearing {}", directory.display()))?;
        }
        let mut jobs: Vec<Job> = Vec::new();
        let mut labels: Vec<BTreeMap<String, CommandId>> = Vec::new();
        let mut expected: Vec<Marker> = Vec::new();
        let (mut parallel, mut isolated) = (false, false);
        let mut timeout = Duration::ZERO;
        let mut next = 0;
        for (number, test) in self.tests.iter().enumerate() {
            let mut steps = Steps::new(number as u16, next);
            (test.steps)(&mut steps);
            for trigger in steps.triggers() {
                let scenario = scenarios::find(trigger)?;
                expected.extend(scenario.expected_on(&self.image.release));
                scenario.possible_on(&self.image.release)?;
                parallel |= scenario.parallel;
                isolated |= scenario.isolated;
            }
            expected.extend(test.expects);
            let (job, commands, time) = steps.finish();
            next += commands.len() as u16;
            timeout += time;
            jobs.push(job);
            labels.push(commands);
        }
        let (modules, disk) = self.equipment(&directory)?;
        let session = Session {
            kernel: self.image.clone(),
            modules,
            holdup: Some(self.holdup.clone()),
            script: None,
            cpus: CPUS,
            parallel,
            isolated,
            timeout: timeout.min(BOOT_LIMIT),
            directory: directory.clone(),
            terminal: false,
            disk,
        };
        let mut collected = Collected::new(directory.join("out"));
        let outcome = session.run(
            Plan {
                modules: Vec::new(),
                jobs,
            },
            &mut collected,
        )?;
        std::fs::write(directory.join("notes.txt"), collected.notes.join("\n"))?;
        let mut results = Vec::new();
        for (number, (test, labels)) in self.tests.iter().zip(labels).enumerate() {
            let outputs: BTreeMap<String, Output> = labels
                .into_iter()
                .map(|(label, id)| (label, collected.outputs.remove(&id).unwrap_or_default()))
                .collect();
            for (label, output) in &outputs {
                output.save(&directory.join(test.name), label)?;
            }
            let release = self.image.release.clone();
            let files = directory.join("out");
            let run = GuestRun {
                release,
                cpus: CPUS,
                outputs,
                files,
            };
            let ended = collected.jobs.get(&JobId(number as u16));
            results.push((test.name, Line::from(judge(test, &run, ended, &outcome))));
        }
        results.push((MACHINE, Line::from(machine(&outcome, &expected, &collected))));
        Ok(results)
    }
}

fn judge(test: &VmTest, run: &GuestRun, ended: Option<&Option<String>>, outcome: &Outcome) -> Result<()> {
    match ended {
        None => {
            let problem = outcome
                .problem()
                .unwrap_or_else(|| "the guest never reported its end".to_owned());
            Err(anyhow!("{problem}\n-- console\n{}", outcome.console.tail(30)))
        }
        Some(Some(error)) => {
            let all: String = run
                .outputs
                .iter()
                .map(|(label, output)| format!("\n{label}:\n{}", output.shown()))
                .collect();
            Err(anyhow!("{error}{all}"))
        }
        Some(None) => (test.check)(run),
    }
}

fn machine(outcome: &Outcome, expected: &[Marker], collected: &Collected) -> Result<()> {
    let mut wrong: Vec<String> = outcome.problem().into_iter().collect();
    let unexpected = outcome.console.unexpected(expected);
    wrong.extend(
        unexpected
            .iter()
            .map(|(marker, line)| format!("the kernel reports {marker}: {line}")),
    );
    wrong.extend(collected.files.broken.iter().map(|broken| format!("file {broken}")));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(anyhow!(
        "{}\n-- console\n{}",
        wrong.join("\n"),
        outcome.console.tail(60)
    ))
}

/// Keeps everything a boot says.
struct Collected {
    directory: PathBuf,
    outputs: BTreeMap<CommandId, Output>,
    /// Jobs that ended, with their error.
    jobs: BTreeMap<JobId, Option<String>>,
    files: Returned,
    notes: Vec<String>,
}

impl Collected {
    fn new(directory: PathBuf) -> Self {
        let files = Returned::new(directory.clone());
        Self {
            directory,
            outputs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            files,
            notes: Vec::new(),
        }
    }
}

impl Sink for Collected {
    fn message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Stdout(id, bytes) => self.outputs.entry(id).or_default().stdout.extend(bytes),
            Message::Stderr(id, bytes) => self.outputs.entry(id).or_default().stderr.extend(bytes),
            Message::Exit(id, exit) => self.outputs.entry(id).or_default().exit = Some(exit),
            Message::JobEnd(id, end) => {
                self.jobs.insert(id, end.error);
            }
            Message::File(head) => self.files.begin(&head)?,
            Message::FileData(bytes) => self.files.data(&bytes)?,
            Message::Note(text) => self.notes.push(text),
            Message::Hello(_) => {}
            Message::Verdict(_) => self.files.end(),
        }
        Ok(())
    }

    fn start_over(&mut self) -> bool {
        *self = Self::new(self.directory.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_guests_share_two_cpus_and_more_cpus_keep_some_free() {
        let at_once = [1, 2, 3, 4, 8].map(guests_at_once);
        assert_eq!(at_once, [1, 2, 2, 2, 4]);
    }
}
