//! The interactive view on a real terminal (tmux), driven by keys: on this box under real contention, and in the VM on the
//! serial console.
//!
//! The last screens of each test stay below `target/view/`.

mod host;
mod tmux;
mod vm;

use crate::setup::{self, Part};
use crate::test::{Count, Line, matches};
use crate::{paths, ui};
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// How a test ended that did not fail.
enum Done {
    Passed,
    /// It cannot be made on this box, for the reason given.
    Skipped(String),
}

/// A test: its full name, and what it does.
struct Test {
    name: &'static str,
    run: fn(&Screens) -> Result<Done>,
}

const TESTS: &[Test] = &[
    Test {
        name: "view/host/contention",
        run: host::contention,
    },
    Test {
        name: "view/6.1/mutex-aa",
        run: |screens| vm::mutex_aa("6.1", screens),
    },
    Test {
        name: "view/6.12/mutex-aa",
        run: |screens| vm::mutex_aa("6.12", screens),
    },
];

/// Full names of all tests that match.
pub fn names(filter: Option<&str>) -> Vec<String> {
    matching(filter).map(|test| test.name.to_owned()).collect()
}

fn matching(filter: Option<&str>) -> impl Iterator<Item = &'static Test> {
    TESTS.iter().filter(move |test| matches(filter, test.name))
}

/// Runs every test that matches.
pub fn run(filter: Option<&str>, count: &mut Count) {
    for test in matching(filter) {
        ui::step(format!("{} ...", test.name));
        let result = setup::ensure(&[Part::Terminal]).and_then(|()| (test.run)(&Screens { test: test.name }));
        count.add(
            test.name,
            match result {
                Ok(Done::Passed) => Line::Passed,
                Ok(Done::Skipped(why)) => Line::Skipped(why),
                Err(error) => Line::Failed(format!("{error:#}")),
            },
        );
    }
}

/// Where the screens of a test are kept.
struct Screens {
    test: &'static str,
}

impl Screens {
    /// Keeps a screen under a name of its own.
    fn keep(&self, name: &str, screen: &str) -> Result<()> {
        let path = self.file(&format!("{name}.txt"))?;
        std::fs::write(&path, screen).with_context(|| format!("writing {}", path.display()))
    }

    /// Path of a file beside the screens that is not there yet.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let directory = paths::target().join(self.test);
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let path = directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(path),
        }
    }
}
