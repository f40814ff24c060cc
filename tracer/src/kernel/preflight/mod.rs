//! What this machine offers, checked before anything is loaded.
//!
//! Every verb runs these checks first and stops on a fatal one with one paragraph; `holdup doctor` prints them all. A check
//! says what was found, what that means for the user, and what to do about it.

mod caps;
mod checks;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use super::{
    btf::{Btf, BtfLoadError},
    symbols::{Symbols, SymbolsError},
    sysroot::Sysroot,
};

/// What one check came to. Ordered: worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be, or different without loss.
    Ok,
    /// holdup works, and shows less.
    Degraded,
    /// holdup cannot work.
    Fatal,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Short and fixed: `privileges`, `tracepoints`, ...
    pub name: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// What was found, as a clause.
    pub found: String,
    /// What that means for the user; empty where there is nothing to say.
    pub means: String,
    /// What to do; empty where nothing is to be done.
    pub fix: String,
}

/// What the checks look at. BTF and symbols are read by the caller, who needs them afterwards.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// `/proc` and `/sys`.
    pub root: &'a Sysroot,
    /// The kernel's types, or why there are none.
    pub btf: Result<&'a Btf, &'a BtfLoadError>,
    /// The kernel's symbols, or why there are none.
    pub symbols: Result<&'a Symbols, &'a SymbolsError>,
}

/// All checks of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Preflight {
    /// In the order they are printed.
    pub checks: Vec<Check>,
}

/// The machine cannot run holdup: one paragraph, every reason in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NotHere {
    checks: Vec<Check>,
}

impl Preflight {
    /// Looks at everything.
    pub fn of(machine: Machine<'_>) -> Self {
        Self {
            checks: checks::all(machine),
        }
    }

    /// The worst verdict.
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|c| c.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// Refuses if a check is fatal.
    ///
    /// # Errors
    /// At least one check is fatal.
    pub fn pass(&self) -> Result<(), NotHere> {
        let checks: Vec<_> = self
            .checks
            .iter()
            .filter(|c| c.verdict == Verdict::Fatal)
            .cloned()
            .collect();
        if checks.is_empty() {
            Ok(())
        } else {
            Err(NotHere { checks })
        }
    }

    /// The check of a name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|c| c.name == name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Fatal => "FATAL",
        })
    }
}

/// One line, and one more each for meaning and remedy.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9} {:<16} {}", self.verdict, self.name, self.found)?;
        for (label, text) in [("means", &self.means), ("fix", &self.fix)] {
            if !text.is_empty() {
                write!(f, "\n{:26} {label}: {text}", "")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot work here:")?;
        for (i, check) in self.checks.iter().enumerate() {
            let separator = if i == 0 { " " } else { ". Also: " };
            write!(f, "{separator}{}", check.found)?;
            for text in [&check.means, &check.fix] {
                if !text.is_empty() {
                    write!(f, "; {text}")?;
                }
            }
        }
        f.write_str(" (`holdup doctor` shows all checks)")
    }
}
