//! `cargo xtask test`: everything there is, and one line at the end that counts it.

use crate::check::{CHECKS, Done};
use crate::setup::{self, Part};
use crate::{exporttest, process, recorder, ui, viewtest, vmtest};
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// For `cargo test` with all its builds.
const CARGO_TEST_LIMIT: Duration = Duration::from_secs(25 * 60);

/// Tells the tests that graphs must be drawn: without it they do that only where `dot` happens to be.
const GRAPHVIZ: &str = "HOLDUP_TEST_GRAPHVIZ";

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Passed,
    Failed(String),
    Skipped(String),
}

impl From<Result<()>> for Line {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// A test with a name of its own that belongs to no table.
pub struct Single {
    pub name: &'static str,
    pub run: fn() -> Line,
}

impl Single {
    fn names(&self, filter: Option<&str>) -> Vec<String> {
        matches(filter, self.name)
            .then(|| self.name.to_owned())
            .into_iter()
            .collect()
    }

    fn run(&self, filter: Option<&str>, count: &mut Count) {
        if matches(filter, self.name) {
            ui::step(format!("{} ...", self.name));
            count.add(self.name, (self.run)());
        }
    }
}

/// Whether a filter lets this test through; without one all run.
pub fn matches(filter: Option<&str>, name: &str) -> bool {
    filter.is_none_or(|filter| name.contains(filter))
}

/// The running total.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Names of the failed, to be repeated at the end.
    names: Vec<String>,
}

impl Count {
    /// Counts and prints one test.
    pub fn add(&mut self, name: &str, line: Line) {
        match line {
            Line::Passed => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Line::Failed(why) => {
                self.failed += 1;
                self.names.push(name.to_owned());
                println!("test {name} ... FAILED\n{}", indented(&why));
            }
            Line::Skipped(why) => {
                self.skipped += 1;
                println!("test {name} ... skipped: {why}");
            }
        }
    }

    /// The last line of the run.
    fn summary(&self) -> String {
        let skipped = if self.skipped > 0 {
            format!(", {} skipped", self.skipped)
        } else {
            String::new()
        };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}\n"))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Runs the tests whose name contains `filter`, all without one. Formatting and lints have no name and run without a
/// filter only. Result: the exit code.
///
/// # Errors
/// An interrupt; every failure else is counted.
pub fn run(filter: Option<&str>, list: bool) -> Result<u8> {
    if list {
        let names = [
            vmtest::runner::names(filter),
            vmtest::power_cut::names(filter),
            viewtest::names(filter),
            recorder::TEST.names(filter),
            exporttest::TEST.names(filter),
        ]
        .concat();
        names.iter().for_each(|name| println!("{name}"));
        return Ok(0);
    }
    let started = Instant::now();
    let mut count = Count::default();
    if filter.is_none() {
        for check in CHECKS {
            ui::step(format!("{} ...", check.name));
            let line = match (check.run)() {
                Ok(Done::Passed) => Line::Passed,
                Ok(Done::Skipped(why)) => Line::Skipped(why),
                Err(error) => Line::Failed(format!("{error:#}")),
            };
            count.add(check.name, line);
        }
    }
    // No name of a unit test has a slash.
    if filter.is_none_or(|filter| !filter.contains('/')) {
        cargo_test(filter, &mut count);
    }
    vmtest::runner::run(filter, &mut count)?;
    exporttest::TEST.run(filter, &mut count);
    recorder::TEST.run(filter, &mut count);
    viewtest::run(filter, &mut count);
    vmtest::power_cut::run(filter, &mut count);
    ui::step(format!("tests took {:.0} s", started.elapsed().as_secs_f32()));
    for name in &count.names {
        println!("failed: {name}");
    }
    println!("{}", count.summary());
    let nothing_ran = count.passed + count.failed + count.skipped == 0;
    if nothing_ran {
        ui::step("no test has such a name");
    }
    Ok(u8::from(count.failed > 0 || nothing_ran))
}

/// Unit, integration and documentation tests.
fn cargo_test(filter: Option<&str>, count: &mut Count) {
    ui::step("cargo test ...");
    // Not quiet: libtest would then leave out the names of its tests.
    let mut command = process::cargo();
    command.args([
        "test",
        "--workspace",
        "--exclude",
        "tracer-ebpf",
        "--no-fail-fast",
        "--color",
        "never",
    ]);
    command.args(filter);
    match setup::ensure(&[Part::Graphs]) {
        Ok(()) => drop(command.env(GRAPHVIZ, "1")),
        Err(why) => count.add("graphviz", Line::Skipped(format!("graphs are not drawn: {why:#}"))),
    }
    let before = count.failed;
    let outcome = setup::ensure(&[Part::Build])
        .and_then(|()| stream(&mut command, CARGO_TEST_LIMIT, |line| take(line, count)))
        .map_err(|error| format!("{error:#}"));
    match outcome {
        Ok(true) => {}
        Ok(false) if count.failed > before => {}
        // A test that did not compile or took its whole process with it is in no count.
        Ok(false) => count.add(
            "cargo test",
            Line::Failed("it failed without a failed test: see above".to_owned()),
        ),
        Err(why) => count.add("cargo test", Line::Failed(why)),
    }
}

/// Counts one line of libtest's output.
fn take(line: &str, count: &mut Count) {
    println!("{line}");
    if let Some(name) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.strip_suffix(" ... FAILED"))
    {
        count.names.push(name.to_owned());
    }
    if let Some([passed, failed, ignored]) = totals(line) {
        count.passed += passed;
        count.failed += failed;
        count.skipped += ignored;
    }
}

/// Numbers of a line like `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
fn totals(line: &str) -> Option<[usize; 3]> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut parts = rest.split("; ");
    let mut number = |word: &str| parts.next()?.strip_suffix(word)?.trim().parse().ok();
    Some([number("passed")?, number("failed")?, number("ignored")?])
}

/// Runs a command and gives each line of its standard output as it comes. Result: whether it succeeded.
///
/// # Errors
/// It cannot be started, or its time is up; it is killed then.
fn stream(command: &mut Command, limit: Duration, mut each: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
    }
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => each(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(child.wait()?.success()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                anyhow::bail!("still running after {limit:?}, killed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let rows = [
            (
                "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
                Some([5, 0, 1]),
            ),
            (
                "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 9 filtered out",
                Some([12, 3, 0]),
            ),
            ("test result: ok. x passed; 0 failed; 1 ignored", None),
            ("test a::b ... ok", None),
            ("running 5 tests", None),
            ("", None),
        ];
        for (line, expected) in rows {
            assert_eq!(totals(line), expected, "{line}");
        }
    }

    #[test]
    fn totals_add_up() {
        let mut count = Count::default();
        for line in [
            "test a ... ok",
            "test b::c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
        ] {
            take(line, &mut count);
        }
        assert_eq!(count.summary(), "3 passed, 1 failed, 1 skipped");
        assert_eq!(count.names, ["b::c"]);
        assert_eq!(Count::default().summary(), "0 passed, 0 failed");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let mut sleep = Command::new("sh");
        sleep.args(["-c", "echo one; exec sleep 600"]);
        let mut lines = Vec::new();
        let error = stream(&mut sleep, Duration::from_millis(300), |line| {
            lines.push(line.to_owned())
        })
        .unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
        assert_eq!(lines, ["one"]);
        assert!(!stream(&mut Command::new("false"), Duration::from_secs(60), |_| {}).unwrap());
    }
}
