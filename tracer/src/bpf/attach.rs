//! Attaches what the table of [`probes`](super::probes) selects.

use std::fmt;

use anyhow::{Context, Result, bail};
use aya::programs::{BtfTracePoint, KProbe};
use aya::{Btf, Ebpf};
use serde::Serialize;

use super::leave::{Asks, Attachment, Links};
use super::probes::{FunctionNames, Probe, Role, Via};

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Program.
    pub program: &'static str,
    /// Function or tracepoint.
    pub target: String,
    /// `None` when attached, else why not.
    pub error: Option<String>,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            None => write!(f, "{} on {}", self.program, self.target),
            Some(error) => write!(f, "{} on {}: {error}", self.program, self.target),
        }
    }
}

/// Attaches every selected probe. A probe that cannot be attached is reported, not fatal, as long as waits can be seen at all.
///
/// # Errors
/// When no probe that shows waits could be attached.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    names: &dyn FunctionNames,
    probes: impl Iterator<Item = &'static Probe>,
    links: &mut Links,
) -> Result<Vec<Attached>> {
    let mut report = Vec::new();
    let mut sees_waits = false;
    for probe in probes {
        let before = report.len();
        match probe.via {
            Via::Tracepoint(name) => {
                let error = tracepoint(ebpf, probe.program, name, btf, links)
                    .err()
                    .map(|e| format!("{e:#}"));
                report.push(Attached {
                    program: probe.program,
                    target: name.into(),
                    error,
                });
            }
            Via::Functions(wanted) => {
                for &function in wanted {
                    let found = names.variants(function);
                    if found.is_empty() {
                        let error = Some("this kernel has no such function".into());
                        report.push(Attached {
                            program: probe.program,
                            target: function.into(),
                            error,
                        });
                    }
                    for target in found {
                        let error = kprobe(ebpf, probe.program, &target, links)
                            .err()
                            .map(|e| format!("{e:#}"));
                        report.push(Attached {
                            program: probe.program,
                            target,
                            error,
                        });
                    }
                }
            }
        }
        let begins = matches!(probe.role, Role::Contention | Role::SlowpathEntry);
        sees_waits |= begins && report.iter().skip(before).any(|a| a.error.is_none());
    }
    if !sees_waits {
        let reasons: Vec<String> = report
            .iter()
            .filter(|a| a.error.is_some())
            .map(ToString::to_string)
            .take(4)
            .collect();
        bail!(
            "no probe that shows lock waits could be attached ({})",
            reasons.join("; ")
        );
    }
    Ok(report)
}

/// The report of probes that are left out on purpose.
#[must_use]
pub fn not_attached(probes: impl Iterator<Item = &'static Probe>, why: &str) -> Vec<Attached> {
    let left_out = |probe: &'static Probe| Attached {
        program: probe.program,
        target: match probe.via {
            Via::Tracepoint(name) => name.into(),
            Via::Functions(names) => names.join(", "),
        },
        error: Some(why.into()),
    };
    probes.map(left_out).collect()
}

fn tracepoint(ebpf: &mut Ebpf, program: &str, name: &str, btf: &Btf, links: &mut Links) -> Result<()> {
    let of: &mut BtfTracePoint = ebpf.program_mut(program).context("not in the BPF object")?.try_into()?;
    of.load(name, btf).context("loading")?;
    let link = of.attach().context("attaching")?;
    let link = of.take_link(link).context("attaching")?.into();
    links.keep(program, Attachment::Tracepoint(link), Asks::EveryCpu)
}

fn kprobe(ebpf: &mut Ebpf, program: &str, function: &str, links: &mut Links) -> Result<()> {
    let of: &mut KProbe = ebpf.program_mut(program).context("not in the BPF object")?.try_into()?;
    if of.fd().is_err() {
        of.load().context("loading")?;
    }
    let link = of.attach(function, 0).context("attaching")?;
    let link = of.take_link(link).context("attaching")?;
    links.keep(
        &format!("{program}-{function}"),
        Attachment::Kprobe(link),
        Asks::GracePeriod,
    )
}
