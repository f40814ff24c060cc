//! What came back from the guest, seen by a test's check.

use super::truth::Truth;
use anyhow::{Context as _, Result, bail, ensure};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xtask_guest::message::{Exit, Status};

/// Everything one test did in the guest.
#[derive(Debug)]
pub struct GuestRun {
    /// `uname -r` of the kernel package.
    pub release: String,
    /// CPUs the machine was given.
    pub cpus: u16,
    /// The commands by label.
    pub outputs: BTreeMap<String, Output>,
    /// Where the files of `/out` were put; they are shared by the tests of a boot.
    pub files: PathBuf,
}

/// What one command did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// `None` if its end was never reported.
    pub exit: Option<Exit>,
}

impl GuestRun {
    /// The command with this label.
    ///
    /// # Errors
    /// No step has it.
    pub fn output(&self, label: &str) -> Result<&Output> {
        self.outputs
            .get(label)
            .with_context(|| format!("no command is labelled {label}"))
    }

    /// The listing that [`super::Steps::truth`] captured.
    ///
    /// # Errors
    /// The command failed or its output breaks the contract.
    pub fn truth(&self, label: &str) -> Result<Truth> {
        let output = self.output(label)?;
        output.exited_with(0)?;
        Truth::parse(&output.stdout())
    }

    /// Host path of a file that the guest left in `/out`.
    ///
    /// # Errors
    /// It did not come back whole.
    pub fn file(&self, relative: &str) -> Result<PathBuf> {
        let path = self.files.join(relative);
        ensure!(path.is_file(), "/out/{relative} did not come back");
        Ok(path)
    }
}

impl Output {
    /// Standard output as text.
    pub fn stdout(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text.
    pub fn stderr(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// Demands an exit code.
    ///
    /// # Errors
    /// Another code, a signal, a time-out; the error shows both outputs.
    pub fn exited_with(&self, code: i32) -> Result<()> {
        match self.exit.as_ref().map(|exit| &exit.status) {
            Some(Status::Code(actual)) if *actual == code => Ok(()),
            Some(status) => bail!("{status} instead of exit code {code}\n{}", self.shown()),
            None => bail!(
                "its end was never reported; exit code {code} was expected\n{}",
                self.shown()
            ),
        }
    }

    /// Demands a text in the standard output.
    ///
    /// # Errors
    /// It is not there; the error shows both outputs.
    pub fn stdout_has(&self, text: &str) -> Result<()> {
        ensure!(
            self.stdout().contains(text),
            "no \"{text}\" in the standard output\n{}",
            self.shown()
        );
        Ok(())
    }

    /// Demands a text in the standard error.
    ///
    /// # Errors
    /// It is not there; the error shows both outputs.
    pub fn stderr_has(&self, text: &str) -> Result<()> {
        ensure!(
            self.stderr().contains(text),
            "no \"{text}\" in the standard error\n{}",
            self.shown()
        );
        Ok(())
    }

    /// Both outputs, for an error.
    pub fn shown(&self) -> String {
        format!("-- stdout\n{}-- stderr\n{}--", self.stdout(), self.stderr())
    }

    /// Leaves everything in files, for a look afterwards.
    ///
    /// # Errors
    /// The disk cannot take it.
    pub fn save(&self, directory: &Path, label: &str) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join(format!("{label}.stdout")), &self.stdout)?;
        std::fs::write(directory.join(format!("{label}.stderr")), &self.stderr)?;
        let exit = self.exit.as_ref().map_or("unknown".to_owned(), |exit| {
            format!("{} after {} ms", exit.status, exit.elapsed_ms)
        });
        std::fs::write(directory.join(format!("{label}.exit")), format!("{exit}\n"))?;
        Ok(())
    }
}
