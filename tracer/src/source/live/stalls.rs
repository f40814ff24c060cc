//! What the kernel's own watchers know of CPUs that neither schedule nor tick, read from kernel memory.
//!
//! Not from `/proc/sys/kernel/watchdog*`: whoever reads those takes a mutex that is held while every CPU is asked for something
//! (KERNEL: `watchdog_mutex`, kernel/watchdog.c, 5.10 to 6.18).

use std::collections::BTreeMap;

use anyhow::Result;

use super::percpu::Running;
use super::standstill;
use crate::event::{Body, CpuStall, Event};
use crate::ids::{CpuId, Nanos, Timestamp};
use crate::kernel::offsets::{BitOffset, KernelOffsets};
use crate::kernel::stackscan::{Memory, is_pointer};
use crate::kernel::stall_variables::{RCU, TIMERS, WATCHDOG};
use crate::kernel::symbols::Symbols;

/// Later than this a timer is overdue, and a grace period is held up.
const LATE: Nanos = Nanos::from_secs(1);
/// KERNEL: the timestamps are `running_clock() >> 30` (`get_timestamp`, kernel/watchdog.c), 5.10 to 6.18.
const WATCHDOG_UNIT: u64 = 1 << 30;
/// KERNEL: `SOFT_WATCHDOG_ENABLED`, since 6.5 `WATCHDOG_SOFTOCKUP_ENABLED` (include/linux/nmi.h), 5.10 to 6.18.
const SOFT_WATCHDOG: u64 = 2;
/// KERNEL: `RCU_SEQ_STATE_MASK`: not 0 while a grace period goes on (kernel/rcu/rcu.h), 5.10 to 6.18.
const IN_PROGRESS: u64 = 3;
/// Beyond this a difference of two counters is garbage.
const LONGEST: Nanos = Nanos::from_secs(365 * 86_400);

/// KERNEL: kernel/watchdog.c, CONFIG_SOFTLOCKUP_DETECTOR.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    enabled: u64,
    /// `int`, seconds.
    threshold: u64,
    /// `struct cpumask`: where it is on.
    cpus: u64,
    /// Of each CPU: when the stopper thread last ran for it.
    touched: u64,
}

/// KERNEL: `struct hrtimer_cpu_base` (kernel/time/hrtimer.c). Without high resolution nobody keeps its next expiry up to date.
#[derive(Clone, Copy, Debug)]
struct Timers {
    base: u64,
    expires_next: u64,
    hres_active: BitOffset,
}

/// KERNEL: `struct rcu_state`, `rcu_data`, `rcu_node` (kernel/rcu/tree.h).
#[derive(Clone, Copy, Debug)]
struct Rcu {
    jiffies: u64,
    /// Length of a jiffy, ns.
    tick: u64,
    gp_seq: u64,
    gp_start: u64,
    data: u64,
    node: u64,
    mask: u64,
    qs_mask: u64,
}

/// Where these things lie, and what was read so far.
#[derive(Debug, Default)]
pub struct Stalls {
    watchdog: Option<Watchdog>,
    timers: Option<Timers>,
    rcu: Option<Rcu>,
    /// Of each CPU the last timestamp of its watchdog, and when that was, at the latest.
    touched: BTreeMap<CpuId, (u64, Timestamp)>,
    /// The grace period that goes on, and when it began, at the latest.
    period: Option<(u64, Timestamp)>,
    told: BTreeMap<CpuId, CpuStall>,
}

impl Stalls {
    /// Finds the places; what is missing is not told.
    #[must_use]
    pub fn of(symbols: Option<&Symbols>, o: &KernelOffsets) -> Self {
        let watchdog = || {
            let [touched, enabled, threshold, cpus] = WATCHDOG.addresses(symbols?)?;
            Some(Watchdog {
                enabled,
                threshold,
                cpus,
                touched,
            })
        };
        let timers = || {
            let [base] = TIMERS.addresses(symbols?)?;
            Some(Timers {
                base,
                expires_next: base + u64::from(o.stall.expires_next?),
                hres_active: o.stall.hres_active?,
            })
        };
        let rcu = || {
            let [state, data, jiffies, tick] = RCU.addresses(symbols?)?;
            Some(Rcu {
                jiffies,
                tick,
                gp_seq: state + u64::from(o.stall.gp_seq?),
                gp_start: state + u64::from(o.stall.gp_start?),
                data,
                node: o.stall.node?.into(),
                mask: o.stall.mask?.into(),
                qs_mask: o.stall.qs_mask?.into(),
            })
        };
        Self {
            watchdog: watchdog(),
            timers: timers(),
            rcu: rcu(),
            ..Self::default()
        }
    }

    /// Looks at CPUs with the offsets of their areas. `now` is from before the call.
    ///
    /// # Errors
    /// When kernel memory cannot be read at all.
    pub fn look(
        &mut self,
        memory: &mut dyn Memory,
        running: &[Running],
        areas: &[(CpuId, u64)],
        now: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let mut stalls: BTreeMap<CpuId, CpuStall> = areas.iter().map(|&(cpu, _)| (cpu, CpuStall::none(cpu))).collect();
        for (cpu, since) in self.watchdogs(memory, areas, now)? {
            stalls.entry(cpu).and_modify(|s| s.watchdog = Some(since));
        }
        for (cpu, since) in self.overdue(memory, areas, now)? {
            stalls.entry(cpu).and_modify(|s| s.timer = Some(since));
        }
        if let Some((since, cpus)) = self.held_up(memory, areas, now)? {
            // The bit of an idle CPU stands until somebody looks at it.
            let works = |r: &Running| r.task.is_some() || r.preempt_count.is_some_and(standstill::serves_interrupt);
            for r in running.iter().filter(|r| cpus.contains(&r.cpu) && works(r)) {
                stalls.entry(r.cpu).and_modify(|s| s.grace_period = Some(since));
            }
        }
        for (cpu, stall) in stalls {
            let was = self.told.remove(&cpu);
            if !stall.is_over() {
                self.told.insert(cpu, stall);
            }
            if !stall.is_over() || was.is_some() {
                out.push(told(stall, now));
            }
        }
        Ok(())
    }

    /// No CPU looks stuck any more.
    pub fn over(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let told_of = std::mem::take(&mut self.told);
        out.extend(told_of.into_keys().map(|cpu| told(CpuStall::none(cpu), now)));
    }

    /// CPUs on which the softlockup watchdog has not run for long. Its timestamps are of a clock that nobody tells, but it runs
    /// everywhere equally often: how far a CPU is behind the first one is the least time for which it has not run.
    fn watchdogs(
        &mut self,
        memory: &mut dyn Memory,
        areas: &[(CpuId, u64)],
        now: Timestamp,
    ) -> Result<Vec<(CpuId, Timestamp)>> {
        let Some(w) = self.watchdog else { return Ok(Vec::new()) };
        let each = areas.iter().flat_map(|&(cpu, area)| {
            let bit = u64::from(cpu.0);
            [w.cpus + bit / 64 * 8, w.touched.wrapping_add(area)]
        });
        let addrs: Vec<u64> = [w.enabled, w.threshold].into_iter().chain(each).collect();
        let words = memory.read(&addrs)?;
        let (Some(&[Some(enabled), Some(threshold)]), Some(each)) = (words.get(..2), words.get(2..)) else {
            return Ok(Vec::new());
        };
        // KERNEL: `set_sample_period`: a fifth of twice the threshold, which is an `int`.
        let period = Nanos::from_millis((threshold & 0x7fff_ffff) * 400);
        if enabled & SOFT_WATCHDOG == 0 || period.0 == 0 {
            self.touched.clear();
            return Ok(Vec::new());
        }
        let touched: Vec<(CpuId, u64)> = areas
            .iter()
            .zip(each.chunks_exact(2))
            .filter_map(|(&(cpu, _), words)| match *words {
                // 0 is the first second. KERNEL: up to 5.12 the highest number (`SOFTLOCKUP_RESET`) means that it is to be set anew.
                [Some(mask), Some(touched)] if mask >> (cpu.0 % 64) & 1 == 1 && touched != u64::MAX => {
                    Some((cpu, touched))
                }
                _ => None,
            })
            .collect();
        let newest = touched.iter().map(|&(_, touched)| touched).max().unwrap_or(0);
        self.touched
            .retain(|cpu, _| touched.iter().any(|(known, _)| known == cpu));
        let mut late = Vec::new();
        for (cpu, touched) in touched {
            // Either is rounded down.
            let behind = Nanos((newest - touched).saturating_sub(1).saturating_mul(WATCHDOG_UNIT));
            let latest = if behind < LONGEST { now - behind } else { now };
            let known = self.touched.entry(cpu).or_insert((touched, latest));
            *known = (
                touched,
                if known.0 == touched {
                    known.1.min(latest)
                } else {
                    latest
                },
            );
            // It may just be about to run here, and just have run there.
            if now.since(known.1) >= Nanos(period.0.saturating_mul(2)) {
                late.push((cpu, known.1));
            }
        }
        Ok(late)
    }

    /// CPUs whose next timer was due long ago.
    fn overdue(
        &self,
        memory: &mut dyn Memory,
        areas: &[(CpuId, u64)],
        now: Timestamp,
    ) -> Result<Vec<(CpuId, Timestamp)>> {
        let Some(t) = self.timers else { return Ok(Vec::new()) };
        let flags = t.base + u64::from(t.hres_active.byte);
        let each = areas
            .iter()
            .flat_map(|&(_, area)| [flags.wrapping_add(area), t.expires_next.wrapping_add(area)]);
        let words = memory.read(&each.collect::<Vec<_>>())?;
        let late = |due: u64| due != 0 && now.since(Timestamp(due)) >= LATE;
        Ok(areas
            .iter()
            .zip(words.chunks_exact(2))
            .filter_map(|(&(cpu, _), words)| match *words {
                [Some(flags), Some(due)] if flags >> t.hres_active.shift & 1 == 1 && late(due) => {
                    Some((cpu, Timestamp(due)))
                }
                _ => None,
            })
            .collect())
    }

    /// The CPUs from which a grace period that has lasted long has not heard, and when it began, at the latest.
    fn held_up(
        &mut self,
        memory: &mut dyn Memory,
        areas: &[(CpuId, u64)],
        now: Timestamp,
    ) -> Result<Option<(Timestamp, Vec<CpuId>)>> {
        let Some(rcu) = self.rcu else { return Ok(None) };
        let each = areas.iter().flat_map(|&(_, area)| {
            let data = rcu.data.wrapping_add(area);
            [data + rcu.node, data + rcu.mask]
        });
        let common = [rcu.gp_seq, rcu.gp_start, rcu.jiffies, rcu.tick];
        let words = memory.read(&common.into_iter().chain(each).collect::<Vec<_>>())?;
        let (Some(&[Some(period), Some(start), Some(jiffies), Some(tick)]), Some(each)) =
            (words.get(..common.len()), words.get(common.len()..))
        else {
            return Ok(None);
        };
        let lasted = Nanos(jiffies.wrapping_sub(start).saturating_mul(tick));
        if period & IN_PROGRESS == 0 || lasted >= LONGEST {
            self.period = None;
            return Ok(None);
        }
        // The count of jiffies itself stands still where the CPU that counts them does.
        let mut began = now - lasted;
        if let Some((_, known)) = self.period.filter(|&(known, _)| known == period) {
            began = began.min(known);
        }
        self.period = Some((period, began));
        if now.since(began) < LATE {
            return Ok(None);
        }
        let masks: Vec<(CpuId, u64, u64)> = areas
            .iter()
            .zip(each.chunks_exact(2))
            .filter_map(|(&(cpu, _), words)| match *words {
                [Some(node), Some(mask)] if is_pointer(node) => Some((cpu, node, mask)),
                _ => None,
            })
            .collect();
        let nodes = masks.iter().map(|&(_, node, _)| node + rcu.qs_mask);
        let words = memory.read(&nodes.chain([rcu.gp_seq]).collect::<Vec<_>>())?;
        // Meanwhile another one may have begun.
        if words.last().copied().flatten() != Some(period) {
            return Ok(None);
        }
        let waits = masks.into_iter().zip(words).filter_map(|((cpu, _, mask), missing)| {
            let waited_for = missing.is_some_and(|missing| missing & mask != 0);
            waited_for.then_some(cpu)
        });
        Ok(Some((began, waits.collect())))
    }
}

fn told(stall: CpuStall, time: Timestamp) -> Event {
    Event {
        time,
        body: Body::Stall(stall),
    }
}

#[cfg(test)]
#[path = "stalls_tests.rs"]
mod tests;
