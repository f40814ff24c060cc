//! Loss counters kept by the programs, and what the kernel says about the programs themselves.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use tracer_common::counter;

use crate::event::{LossCause, LossReport};
use crate::ids::Nanos;
use crate::report::ProgramCost;

/// Reads the loss counters, summed over CPUs.
pub struct LossCounters {
    map: PerCpuArray<MapData, u64>,
}

impl LossCounters {
    /// Takes the map from the loaded object.
    ///
    /// # Errors
    /// When the object has no such map.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("LOSS").context("the BPF object has no map LOSS")?;
        Ok(Self { map: map.try_into()? })
    }

    /// Adds every counter to `report`.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn read(&self, report: &mut Losses) -> Result<()> {
        for index in 0..counter::COUNT {
            let per_cpu = self.map.get(&index, 0).context("reading the loss counters")?;
            report.set(cause(index), per_cpu.iter().sum());
        }
        Ok(())
    }
}

fn cause(index: u32) -> LossCause {
    match index {
        counter::RING_FULL => LossCause::RingFull,
        counter::BUSY => LossCause::Busy,
        counter::WAIT_TABLE_FULL => LossCause::WaitTableFull,
        counter::LOCK_TABLE_FULL => LossCause::LockTableFull,
        counter::MISSED_END => LossCause::MissedEnd,
        counter::READ_FAILED => LossCause::ReadFailed,
        counter::STACK_LOST => LossCause::StackLost,
        _ => LossCause::SpinNesting,
    }
}

/// Cumulative losses by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(std::collections::BTreeMap<LossCause, u64>);

impl Losses {
    /// Sets the counter of one cause.
    pub fn set(&mut self, cause: LossCause, count: u64) {
        self.0.insert(cause, count);
    }

    /// Adds to the counter of one cause.
    pub fn add(&mut self, cause: LossCause, count: u64) {
        let counter = self.0.entry(cause).or_default();
        *counter = counter.saturating_add(count);
    }

    /// The report that is sent on: causes with losses only.
    #[must_use]
    pub fn report(&self) -> LossReport {
        LossReport {
            by_cause: self.0.iter().filter(|(_, n)| **n > 0).map(|(c, n)| (*c, *n)).collect(),
        }
    }
}

/// What the kernel tells in `/proc/self/fdinfo` of a loaded program; all zero where it does not tell.
#[must_use]
pub fn program_cost(ebpf: &Ebpf, program: &str) -> ProgramCost {
    let fd = ebpf.program(program).and_then(|loaded| loaded.fd().ok());
    let text = fd.and_then(|fd| fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok());
    parse_fdinfo(program, &text.unwrap_or_default())
}

fn parse_fdinfo(program: &str, text: &str) -> ProgramCost {
    let mut cost = ProgramCost {
        program: program.into(),
        ..ProgramCost::default()
    };
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let Ok(value) = value.trim().parse() else { continue };
        match key.trim() {
            "run_cnt" => cost.runs = value,
            "run_time_ns" => cost.run_time = Nanos(value),
            "recursion_misses" => cost.skipped = value,
            _ => {}
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_prints_and_ignores_the_rest() {
        let text = "pos:\t0\nprog_type:\t26\nmemlock:\t4096\nrun_time_ns:\t1200\nrun_cnt:\t3\nrecursion_misses:\t7\nverified_insns:\tx\n";
        let cost = parse_fdinfo("p", text);
        assert_eq!((cost.runs, cost.run_time, cost.skipped), (3, Nanos(1200), 7));
        let cost = parse_fdinfo("p", "garbage\n:\nrun_cnt:-1\n");
        assert_eq!((cost.runs, cost.run_time, cost.skipped), (0, Nanos(0), 0));
    }

    #[test]
    fn every_counter_has_its_own_cause() {
        let causes: std::collections::BTreeSet<_> = (0..counter::COUNT).map(cause).collect();
        assert_eq!(causes.len(), counter::COUNT as usize);
    }

    #[test]
    fn a_report_names_only_causes_with_losses() {
        let mut losses = Losses::default();
        losses.set(LossCause::Busy, 0);
        losses.add(LossCause::RingFull, 2);
        losses.add(LossCause::RingFull, 3);
        assert_eq!(losses.report().by_cause, [(LossCause::RingFull, 5)]);
    }
}
