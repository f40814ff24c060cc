use std::collections::HashMap;

use super::*;
use crate::event::TaskRef;
use crate::ids::{TaskKey, Tgid, Tid};

const SYMBOLS: &str = "0000000000000100 A watchdog_touch_ts\n\
    0000000000000200 A hrtimer_bases\n\
    0000000000000300 A rcu_data\n\
    ffffffff81000000 D watchdog_enabled\n\
    ffffffff81000008 D watchdog_thresh\n\
    ffffffff81000010 d watchdog_allowed_mask\n\
    ffffffff81000100 d rcu_state\n\
    ffffffff81000200 D jiffies\n\
    ffffffff81000208 B tick_nsec\n";
const ENABLED: u64 = 0xffff_ffff_8100_0000;
const STATE: u64 = 0xffff_ffff_8100_0100;
const JIFFIES: u64 = 0xffff_ffff_8100_0200;
const NODE: u64 = 0xffff_8880_0000_1000;
/// Of CPU 1, which stands still; CPU 0 does not.
const AREAS: [(CpuId, u64); 2] = [(CpuId(0), 0xffff_8880_1000_0000), (CpuId(1), 0xffff_8880_2000_0000)];
const NOW: Timestamp = Timestamp(100_000_000_000);

struct Words(HashMap<u64, u64>);

impl Memory for Words {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        Ok(addrs.iter().map(|addr| self.0.get(addr).copied()).collect())
    }
}

fn stalls() -> Stalls {
    let symbols = Symbols::parse(std::path::Path::new("kallsyms"), SYMBOLS.as_bytes()).unwrap();
    let mut o = KernelOffsets::default();
    o.stall.expires_next = Some(0x10);
    o.stall.hres_active = Some(BitOffset {
        byte: 8,
        shift: 1,
        width: 1,
    });
    (o.stall.gp_seq, o.stall.gp_start) = (Some(0), Some(8));
    (o.stall.node, o.stall.mask, o.stall.qs_mask) = (Some(0x20), Some(0x28), Some(0x40));
    Stalls::of(Some(&symbols), &o)
}

/// CPU 1 takes no interrupt since 12 s and has let nothing pass, CPU 0 is healthy.
fn words() -> Words {
    let mut words = HashMap::from([
        (ENABLED, 3),
        (ENABLED + 8, 0xdead_beef_0000_000a),
        (ENABLED + 16, 0b11),
        (STATE, 0x4001),
        (STATE + 8, 1000),
        (JIFFIES, 1000 + 2500),
        (JIFFIES + 8, 4_000_000),
        (NODE + 0x40, 0b11),
    ]);
    for (cpu, area) in AREAS {
        let stands = cpu == CpuId(1);
        let due = if stands { 88_000_000_000 } else { 103_000_000_000 };
        words.extend([
            (area + 0x100, if stands { 60 } else { 71 }),
            (area + 0x208, 0b11),
            (area + 0x210, due),
            (area + 0x320, NODE),
            (area + 0x328, 1 << cpu.0),
        ]);
    }
    Words(words)
}

/// CPU 0 idles, CPU 1 runs a thread.
fn running() -> [Running; 2] {
    let task = TaskRef {
        key: TaskKey {
            tid: Tid(7),
            start: Timestamp(1),
        },
        tgid: Tgid(7),
        comm: "stuck".into(),
    };
    let of = |cpu, task| Running {
        cpu,
        task,
        preempt_count: Some(0),
        ..Running::default()
    };
    [of(CpuId(0), None), of(CpuId(1), Some(task))]
}

fn look(stalls: &mut Stalls, words: &mut Words, now: Timestamp) -> Vec<CpuStall> {
    let mut out = Vec::new();
    stalls.look(words, &running(), &AREAS, now, &mut out).unwrap();
    out.into_iter()
        .map(|event| match event.body {
            Body::Stall(stall) => stall,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn stalled() -> CpuStall {
    CpuStall {
        cpu: CpuId(1),
        // Ten units of 2^30 ns, as both numbers are rounded down.
        watchdog: Some(NOW - Nanos(10 << 30)),
        timer: Some(Timestamp(88_000_000_000)),
        grace_period: Some(Timestamp(90_000_000_000)),
    }
}

#[test]
fn a_cpu_that_stands_still_is_told_with_all_three_signs_and_an_idle_one_with_none() {
    let (mut stalls, mut words) = (stalls(), words());
    assert_eq!(look(&mut stalls, &mut words, NOW), [stalled()]);
    // What has begun does not begin later, whichever clock stands still.
    let later = NOW + Nanos::from_secs(2);
    assert_eq!(look(&mut stalls, &mut words, later), [stalled()]);
    words.0.extend([
        (AREAS[1].1 + 0x100, 72),
        (AREAS[1].1 + 0x210, u64::MAX >> 1),
        (NODE + 0x40, 0b01),
    ]);
    assert_eq!(look(&mut stalls, &mut words, later), [CpuStall::none(CpuId(1))]);
    assert_eq!(look(&mut stalls, &mut words, later), [], "that it is over is told once");
}

#[test]
fn a_watchdog_that_is_off_there_or_ran_lately_is_no_sign() {
    let watchdog = |change: &[(u64, u64)]| {
        let mut words = words();
        words.0.extend(change.iter().copied());
        look(&mut stalls(), &mut words, NOW)
            .first()
            .and_then(|stall| stall.watchdog)
    };
    assert!(watchdog(&[]).is_some());
    let touched = AREAS[1].1 + 0x100;
    // It died in the first second of this machine.
    assert_eq!(watchdog(&[(touched, 0)]), Some(NOW - Nanos(70 << 30)));
    for change in [
        (ENABLED, 1),
        (ENABLED + 8, 0),
        (ENABLED + 16, 0b01),
        (touched, 64),
        (touched, u64::MAX),
    ] {
        assert_eq!(watchdog(&[change]), None, "{change:?}");
    }
}

#[test]
fn a_timer_counts_only_where_the_next_one_is_kept_and_late() {
    let timer = |change: (u64, u64)| {
        let mut words = words();
        words.0.extend([change]);
        look(&mut stalls(), &mut words, NOW)
            .first()
            .and_then(|stall| stall.timer)
    };
    for change in [(AREAS[1].1 + 0x208, 0b01), (AREAS[1].1 + 0x210, 99_500_000_000)] {
        assert_eq!(timer(change), None, "{change:?}");
    }
}

#[test]
fn a_grace_period_counts_only_while_it_lasts_and_after_a_second() {
    let period = |change: (u64, u64)| {
        let mut words = words();
        words.0.extend([change]);
        look(&mut stalls(), &mut words, NOW)
            .first()
            .and_then(|stall| stall.grace_period)
    };
    for change in [(STATE, 0x4000), (JIFFIES, 1249), (JIFFIES, 900), (NODE + 0x40, 0b01)] {
        assert_eq!(period(change), None, "{change:?}");
    }
}

#[test]
fn what_cannot_be_read_is_not_told() {
    for gone in [
        ENABLED,
        STATE,
        JIFFIES,
        AREAS[1].1 + 0x100,
        AREAS[1].1 + 0x210,
        AREAS[1].1 + 0x320,
        NODE + 0x40,
    ] {
        let mut words = words();
        words.0.remove(&gone);
        let told = look(&mut stalls(), &mut words, NOW);
        let [stall] = told.as_slice() else { panic!("{told:?}") };
        let signs = [stall.watchdog, stall.timer, stall.grace_period];
        assert_eq!(signs.iter().flatten().count(), 2, "{gone:#x}: {stall:?}");
    }
    let told = look(&mut Stalls::of(None, &KernelOffsets::default()), &mut words(), NOW);
    assert_eq!(told, [], "a kernel that hides its variables");
}

#[test]
fn when_no_cpu_looks_stuck_any_more_that_is_told() {
    let (mut stalls, mut words, mut out) = (stalls(), words(), Vec::new());
    look(&mut stalls, &mut words, NOW);
    stalls.over(NOW, &mut out);
    stalls.over(NOW, &mut out);
    assert_eq!(out, [told(CpuStall::none(CpuId(1)), NOW)]);
}
