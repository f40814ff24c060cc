//! Which CPUs look stuck, by `/proc/stat` alone.
//!
//! The file is read without a lock and without asking another CPU for anything, so it can be read on a machine whose CPUs are
//! dead. A CPU whose time goes to the kernel without a pause may spin; one whose time stands still takes no timer interrupt.

use std::collections::BTreeMap;

use super::sysroot::Sysroot;
use crate::ids::{CpuId, Nanos, Timestamp};

const PATH: &str = "/proc/stat";
/// Shorter intervals are joined: the kernel counts in hundredths of a second.
pub const SHORTEST: Nanos = Nanos::from_millis(200);
/// All of the time in the kernel for this long is worth a look.
const BUSY: Nanos = Nanos::from_millis(400);
/// No timer interrupt for this long: interrupts are off.
const SILENT: Nanos = Nanos::from_secs(1);

/// Time of one CPU since boot, in ticks of `USER_HZ`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    kernel: u64,
    idle: u64,
}

/// What a CPU's times say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// It idles, or runs user space now and then.
    Healthy,
    /// All of its time has gone to the kernel since then.
    InKernel(Timestamp),
    /// It has taken no timer interrupt since then.
    Silent(Timestamp),
}

#[derive(Clone, Copy, Debug)]
struct State {
    ticks: Ticks,
    /// Begin of the newest interval.
    from: Timestamp,
    read: Timestamp,
    pulse: Pulse,
}

/// The times of all CPUs that are online.
#[derive(Debug, Default)]
pub struct CpuTimes {
    cpus: BTreeMap<CpuId, State>,
}

impl CpuTimes {
    /// Reads the times again. A file that cannot be read leaves everything as it was.
    pub fn read(&mut self, root: &Sysroot, now: Timestamp) {
        if let Ok(text) = root.text(PATH) {
            self.update(&text, now);
        }
    }

    fn update(&mut self, text: &str, now: Timestamp) {
        let read: BTreeMap<CpuId, Ticks> = text.lines().filter_map(parse).collect();
        self.cpus.retain(|cpu, _| read.contains_key(cpu));
        for (cpu, ticks) in read {
            let fresh = State {
                ticks,
                from: now,
                read: now,
                pulse: Pulse::Healthy,
            };
            let state = self.cpus.entry(cpu).or_insert(fresh);
            if now.since(state.read) < SHORTEST {
                continue;
            }
            let pulse = judge(state, ticks);
            *state = State {
                ticks,
                from: state.read,
                read: now,
                pulse,
            };
        }
    }

    /// The CPUs that are online.
    pub fn online(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.cpus.keys().copied()
    }

    /// Since when a CPU has been in the kernel without a pause, if that is long.
    #[must_use]
    pub fn in_kernel(&self, cpu: CpuId, now: Timestamp) -> Option<Timestamp> {
        match self.cpus.get(&cpu)?.pulse {
            Pulse::InKernel(since) if now.since(since) >= BUSY => Some(since),
            _ => None,
        }
    }

    /// Since when a CPU has taken no timer interrupt, if that is long.
    #[must_use]
    pub fn silent(&self, cpu: CpuId, now: Timestamp) -> Option<Timestamp> {
        match self.cpus.get(&cpu)?.pulse {
            Pulse::Silent(since) if now.since(since) >= SILENT => Some(since),
            _ => None,
        }
    }

    /// Whether a CPU took no timer interrupt in the newest interval, however short that was.
    #[must_use]
    pub fn stood_still(&self, cpu: CpuId) -> bool {
        self.cpus
            .get(&cpu)
            .is_some_and(|state| matches!(state.pulse, Pulse::Silent(_)))
    }

    /// Whether a CPU did nothing but kernel work, or nothing at all, in the newest interval, however short that was.
    #[must_use]
    pub fn looks_stuck(&self, cpu: CpuId) -> bool {
        self.cpus.get(&cpu).is_some_and(|state| state.pulse != Pulse::Healthy)
    }

    /// Whether a CPU took timer interrupts in an interval that began no earlier than `since`. Only then can it be asked for
    /// something with little risk that it never answers.
    #[must_use]
    pub fn ticks_since(&self, cpu: CpuId, since: Timestamp) -> bool {
        self.cpus.get(&cpu).is_some_and(|state| {
            state.from >= since && state.from < state.read && !matches!(state.pulse, Pulse::Silent(_))
        })
    }
}

fn judge(state: &State, new: Ticks) -> Pulse {
    let old = state.ticks;
    // The kernel's idle counters may run backwards by a tick (Documentation/filesystems/proc.rst).
    let (user, idle) = (new.user.saturating_sub(old.user), new.idle.saturating_sub(old.idle));
    let kernel = new.kernel.saturating_sub(old.kernel);
    match (user, kernel, idle, state.pulse) {
        (0, 0, 0, Pulse::Silent(since)) => Pulse::Silent(since),
        (0, 0, 0, _) => Pulse::Silent(state.read),
        (0, _, 0, Pulse::InKernel(since)) => Pulse::InKernel(since),
        (0, _, 0, _) => Pulse::InKernel(state.read),
        _ => Pulse::Healthy,
    }
}

/// KERNEL: fs/proc/stat.c: `cpuN user nice system idle iowait irq softirq steal guest guest_nice`; guest times are also in user and nice.
fn parse(line: &str) -> Option<(CpuId, Ticks)> {
    let mut words = line.split_ascii_whitespace();
    let cpu = words.next()?.strip_prefix("cpu")?.parse().ok()?;
    let mut next = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (user, nice, system, idle, iowait) = (next()?, next()?, next()?, next()?, next()?);
    let (irq, softirq, steal) = (
        next().unwrap_or_default(),
        next().unwrap_or_default(),
        next().unwrap_or_default(),
    );
    let ticks = Ticks {
        user: user.saturating_add(nice),
        kernel: system.saturating_add(irq).saturating_add(softirq),
        // Time that the hypervisor took is no time in which the CPU was stuck.
        idle: idle.saturating_add(iowait).saturating_add(steal),
    };
    Some((CpuId(cpu), ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn a_cpu_in_the_kernel_is_told_from_a_silent_and_a_healthy_one() {
        let mut times = CpuTimes::default();
        for step in 0..=4_u64 {
            let text = format!(
                "cpu  1 1 1 1 1 1 1\ncpu0 {} 0 9 9 0 0 0 0 0 0\ncpu1 5 0 7 7 0 0 {} 0 0 0\ncpu2 1 2 3 4 5 6 7 8 9 9\nintr 1 2\n",
                step,
                step * 25
            );
            times.update(&text, ms(1000 + 300 * step));
        }
        let now = ms(2200);
        assert_eq!(times.in_kernel(CpuId(1), now), Some(ms(1000)));
        assert_eq!(times.silent(CpuId(2), now), Some(ms(1000)));
        assert_eq!(
            (times.in_kernel(CpuId(0), now), times.silent(CpuId(0), now)),
            (None, None)
        );
        let ticks = |cpu, since| times.ticks_since(CpuId(cpu), since);
        assert!(ticks(0, ms(1900)) && ticks(1, ms(1900)) && !ticks(2, ms(1900)));
        assert!(!ticks(0, ms(1901)), "the newest interval began before that");
        times.update("cpu1 5 0 7 8 0 0 200 0 0 0\n", ms(2500));
        assert_eq!(times.in_kernel(CpuId(1), ms(2500)), None, "it has idled");
        assert_eq!(
            times.online().collect::<Vec<_>>(),
            [CpuId(1)],
            "the others went offline"
        );
    }

    #[test]
    fn short_intervals_are_joined() {
        let mut times = CpuTimes::default();
        times.update("cpu0 1 0 1 1 0\n", ms(0));
        times.update("cpu0 1 0 1 1 0\n", ms(50));
        assert!(!times.looks_stuck(CpuId(0)), "50 ms say nothing");
        assert!(!times.stood_still(CpuId(0)));
        times.update("cpu0 1 0 1 1 0\n", ms(250));
        assert!(times.stood_still(CpuId(0)));
        assert!(times.looks_stuck(CpuId(0)) && !times.ticks_since(CpuId(0), ms(0)));
    }

    #[test]
    fn lines_of_another_form_are_no_cpu() {
        for line in [
            "",
            "cpu",
            "cpu 1 2 3 4 5",
            "cpux 1 2 3 4 5",
            "cpu0 1 2 3",
            "intr 5",
            "cpu0 a b c d e",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
