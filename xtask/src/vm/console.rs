//! What the kernel says on its console, and which of it means trouble.

use std::collections::BTreeSet;

/// A class of kernel message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marker {
    /// The kernel gave up.
    Panic,
    /// A fault in kernel code.
    Oops,
    /// An `int3` that nobody had set: emulation races with the kernel's patching of its own text.
    StrayInt3,
    /// `BUG:` and `kernel BUG at`, except those with a class of their own here.
    Bug,
    /// `WARNING:`
    Warning,
    /// A CPU has not scheduled for long.
    SoftLockup,
    /// A CPU's work items have not run for long.
    WorkqueueLockup,
    /// A CPU has not taken interrupts for long.
    HardLockup,
    /// RCU waits for a CPU or task.
    RcuStall,
    /// A task has been in state D for long.
    HungTask,
    /// `possible circular locking` and relatives; only debug kernels.
    Lockdep,
    /// Memory ran out.
    OutOfMemory,
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Panic => "kernel panic",
            Self::Oops => "oops",
            Self::StrayInt3 => "stray int3",
            Self::Bug => "BUG",
            Self::Warning => "WARNING",
            Self::SoftLockup => "soft lockup",
            Self::WorkqueueLockup => "workqueue lockup",
            Self::HardLockup => "hard lockup",
            Self::RcuStall => "RCU stall",
            Self::HungTask => "hung task",
            Self::Lockdep => "lockdep report",
            Self::OutOfMemory => "out of memory",
        })
    }
}

/// Texts and their class; the first that occurs in a line decides, so the special ones come first.
const TEXTS: &[(&str, Marker)] = &[
    ("Kernel panic - not syncing", Marker::Panic),
    ("Oops: int3", Marker::StrayInt3),
    ("int3: 0000 [#", Marker::StrayInt3),
    ("BUG: soft lockup", Marker::SoftLockup),
    ("BUG: workqueue lockup", Marker::WorkqueueLockup),
    ("hard LOCKUP", Marker::HardLockup),
    ("Hard LOCKUP", Marker::HardLockup),
    ("self-detected stall on CPU", Marker::RcuStall),
    ("detected stalls on CPUs", Marker::RcuStall),
    ("detected expedited stalls", Marker::RcuStall),
    ("kthread starved for", Marker::RcuStall),
    (" blocked for more than ", Marker::HungTask),
    ("possible circular locking", Marker::Lockdep),
    ("possible recursive locking", Marker::Lockdep),
    ("inconsistent lock state", Marker::Lockdep),
    ("kernel BUG at ", Marker::Bug),
    ("BUG: ", Marker::Bug),
    ("Oops: ", Marker::Oops),
    ("general protection fault", Marker::Oops),
    ("unable to handle", Marker::Oops),
    ("WARNING: CPU:", Marker::Warning),
    ("WARNING: ", Marker::Warning),
    ("Out of memory: ", Marker::OutOfMemory),
    ("invoked oom-killer", Marker::OutOfMemory),
];

/// The class of one console line.
pub fn classify(line: &str) -> Option<Marker> {
    TEXTS
        .iter()
        .find(|(text, _)| line.contains(text))
        .map(|(_, marker)| *marker)
}

/// The console's text as it grows.
#[derive(Debug, Default)]
pub struct Console {
    text: String,
    scanned: usize,
    found: Vec<(Marker, String)>,
}

impl Console {
    /// Adds bytes. Lines are looked at when they are complete.
    pub fn push(&mut self, bytes: &[u8]) {
        self.text.push_str(&String::from_utf8_lossy(bytes));
        while let Some(length) = self.text[self.scanned..].find('\n') {
            let line = self.text[self.scanned..self.scanned + length].trim_end().to_owned();
            self.scanned += length + 1;
            if let Some(marker) = classify(&line) {
                self.found.push((marker, line));
            }
        }
    }

    /// Everything so far.
    #[cfg(test)]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Lines that mean trouble, oldest first.
    #[cfg(test)]
    pub fn found(&self) -> &[(Marker, String)] {
        &self.found
    }

    /// Whether a class was seen.
    pub fn has(&self, marker: Marker) -> bool {
        self.found.iter().any(|(seen, _)| *seen == marker)
    }

    /// First line of each class that is not in `expected`.
    pub fn unexpected(&self, expected: &[Marker]) -> Vec<&(Marker, String)> {
        let mut seen = BTreeSet::new();
        self.found
            .iter()
            .filter(|(marker, _)| !expected.contains(marker) && seen.insert(*marker))
            .collect()
    }

    /// Its last lines, without the firmware's escape sequences.
    pub fn tail(&self, lines: usize) -> String {
        let clean: String = self
            .text
            .chars()
            .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
            .collect();
        crate::process::tail(&clean, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as 6.1 and 6.12 print them.
    #[test]
    fn lines_are_classified() {
        let rows = [
            (
                "[    2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
                Some(Marker::Panic),
            ),
            (
                "[    1.2] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI",
                Some(Marker::StrayInt3),
            ),
            ("[    1.2] int3: 0000 [#1] PREEMPT SMP NOPTI", Some(Marker::StrayInt3)),
            ("[    9.9] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI", Some(Marker::Oops)),
            (
                "[    9.9] general protection fault, probably for non-canonical address 0xdead",
                Some(Marker::Oops),
            ),
            (
                "[    9.9] BUG: kernel NULL pointer dereference, address: 0000000000000000",
                Some(Marker::Bug),
            ),
            ("[    9.9] kernel BUG at mm/slub.c:435!", Some(Marker::Bug)),
            (
                "[   48.1] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [swapper/1:0]",
                Some(Marker::SoftLockup),
            ),
            (
                "[   65.2] BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 36s!",
                Some(Marker::WorkqueueLockup),
            ),
            (
                "[   48.1] NMI watchdog: Watchdog detected hard LOCKUP on cpu 1",
                Some(Marker::HardLockup),
            ),
            (
                "[   21.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
                Some(Marker::RcuStall),
            ),
            (
                "[   21.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                Some(Marker::RcuStall),
            ),
            (
                "[  242.7] INFO: task lockfault/aa:77 blocked for more than 120 seconds.",
                Some(Marker::HungTask),
            ),
            (
                "[    3.3] WARNING: CPU: 0 PID: 1 at kernel/softirq.c:376 __local_bh_enable_ip",
                Some(Marker::Warning),
            ),
            (
                "[    3.3] WARNING: possible circular locking dependency detected",
                Some(Marker::Lockdep),
            ),
            (
                "[    3.3] Out of memory: Killed process 80 (sh)",
                Some(Marker::OutOfMemory),
            ),
            ("[    0.5] Failed to access perfctr msr (MSR c0010007 is 0)", None),
            ("[    0.7] lockfault: loading out-of-tree module taints kernel.", None),
            ("Debugging information", None),
        ];
        for (line, expected) in rows {
            assert_eq!(classify(line), expected, "{line}");
        }
    }

    #[test]
    fn a_line_cut_anywhere_is_seen_once() {
        let text = "a\r\n[ 1.0] WARNING: CPU: 1 PID: 2 at x\r\nb\n";
        for cut in 0..text.len() {
            let mut console = Console::default();
            console.push(&text.as_bytes()[..cut]);
            console.push(&text.as_bytes()[cut..]);
            assert_eq!(console.found().len(), 1, "cut at {cut}");
            assert_eq!(console.text(), text);
        }
    }

    #[test]
    fn expected_classes_are_left_out_and_the_rest_counts_once() {
        let mut console = Console::default();
        console.push(b"WARNING: CPU: 1\nBUG: soft lockup - x\nWARNING: CPU: 2\n");
        let unexpected = console.unexpected(&[Marker::SoftLockup]);
        assert_eq!(unexpected, vec![&(Marker::Warning, "WARNING: CPU: 1".to_owned())]);
        assert!(console.has(Marker::SoftLockup) && !console.has(Marker::Panic));
    }
}
