//! `holdup doctor`: what this kernel offers, which probes will be used, what is missing and how to get it.

use std::fmt;
use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bpf::probes::{FunctionNames, PROBES, Probe, ProbeChoice, Role, Via, selected};
use crate::cli::DoctorArgs;
use crate::kernel::facts::KernelFiles;
use crate::kernel::preflight::Preflight;
use crate::kernel::sysroot::Sysroot;
use crate::session::Outcome;

/// Everything `doctor` says.
#[derive(Debug, Serialize)]
struct Report {
    checks: Preflight,
    probes: Vec<Row>,
}

/// A row of the probe table on this kernel.
#[derive(Debug, Serialize)]
struct Row {
    program: &'static str,
    role: Role,
    shows: &'static str,
    /// When it is attached.
    used: Used,
    /// Functions or tracepoints found on this kernel.
    targets: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Used {
    /// With the default settings.
    ByDefault,
    /// With `--probes kprobe` or `--probes tracepoint`.
    WhenChosen,
    /// With `--releases`.
    WithReleases,
    /// With `--reinit`.
    WithReinit,
    /// This kernel has nothing to attach it to.
    Absent,
}

/// Prints the report.
///
/// # Errors
/// When holdup cannot work here, or stdout cannot be written.
pub fn run(args: &DoctorArgs) -> Result<Outcome> {
    let report = examine(&KernelFiles::read(Sysroot::host()));
    let mut out = io::stdout().lock();
    let written = if args.json {
        serde_json::to_writer_pretty(&mut out, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{report}")
    };
    written.and_then(|()| out.flush()).context("writing to stdout")?;
    report.checks.pass()?;
    Ok(Outcome::Nothing)
}

fn examine(files: &KernelFiles) -> Report {
    Report {
        checks: files.preflight(),
        probes: PROBES
            .iter()
            .filter(|probe| probe.role != Role::Baseline)
            .map(|probe| row(probe, files, files.tracepoints()))
            .collect(),
    }
}

fn row(probe: &Probe, names: &dyn FunctionNames, tracepoints: bool) -> Row {
    let targets: Vec<String> = match probe.via {
        Via::Tracepoint(name) if tracepoints => vec![name.into()],
        Via::Tracepoint(_) => Vec::new(),
        Via::Functions(functions) => functions.iter().flat_map(|name| names.variants(name)).collect(),
    };
    let used = if targets.is_empty() {
        Used::Absent
    } else if selected(probe.role, ProbeChoice::Auto, tracepoints, false) {
        Used::ByDefault
    } else if probe.role == Role::Release {
        Used::WithReleases
    } else if probe.role == Role::Init {
        Used::WithReinit
    } else {
        Used::WhenChosen
    };
    Row {
        program: probe.program,
        role: probe.role,
        shows: probe.shows,
        used,
        targets,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checks\n{}", self.checks)?;
        writeln!(f, "\nProbes")?;
        for row in &self.probes {
            let used = match row.used {
                Used::ByDefault => "default",
                Used::WhenChosen => "--probes",
                Used::WithReleases => "--releases",
                Used::WithReinit => "--reinit",
                Used::Absent => "absent",
            };
            writeln!(f, "{used:<10} {:<21} {}", row.program, row.shows)?;
            if !row.targets.is_empty() {
                writeln!(f, "{:32} on {}", "", row.targets.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OneFunction;
    impl FunctionNames for OneFunction {
        fn variants(&self, name: &str) -> Vec<String> {
            if name == "rwsem_wake" {
                vec!["rwsem_wake.isra.0".into()]
            } else {
                Vec::new()
            }
        }
    }

    fn used(program: &str, tracepoints: bool) -> Used {
        let probe = PROBES.iter().find(|probe| probe.program == program).unwrap();
        row(probe, &OneFunction, tracepoints).used
    }

    #[test]
    fn a_probe_is_used_only_where_the_kernel_has_its_target() {
        assert_eq!(used("tp_contention_begin", true), Used::ByDefault);
        assert_eq!(used("tp_contention_begin", false), Used::Absent);
        assert_eq!(used("kp_rwsem_wake", true), Used::WithReleases);
        assert_eq!(used("kp_mutex", false), Used::Absent);
    }

    #[test]
    fn programs_stand_once_in_the_table() {
        let names: std::collections::BTreeSet<_> = PROBES.iter().map(|probe| probe.program).collect();
        assert_eq!(names.len(), PROBES.len());
    }
}
