//! Watched locks: which they are, their log, and what watching costs everybody else.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use tracer_common::watch::{MAX_WATCHED, WatchCpu, WatchEntry, act};

use super::cpu_log::{CpuLog, Cursor};
use super::spin;
use crate::bpf::load::Sizes;
use crate::bpf::shared::SharedArray;
use crate::bpf::stats::{Losses, program_cost};
use crate::event::{Act, Body, Event, LockKind, LossCause, StackFrames, TaskRef, Watched};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use crate::kernel::symbols::Symbols;
use crate::wire;

/// Kinds that can be watched.
const KINDS: [(&str, LockKind); 4] = [
    ("spinlock", LockKind::Spinlock),
    ("rwlock", LockKind::Rwlock),
    ("mutex", LockKind::Mutex),
    ("rwsem", LockKind::Rwsem),
];
/// So many runs say what the programs cost locks that are not watched.
const ENOUGH_RUNS: u64 = 1_000;
/// For no longer than this it is measured.
const MEASURED: Duration = Duration::from_millis(300);
/// So often it is looked whether that is enough.
const LOOK: Duration = Duration::from_millis(10);

/// A lock that is to be watched, as it was named: `[KIND:]SYMBOL[+OFFSET]` or `[KIND:]0xADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSpec {
    kind: Option<LockKind>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Address(u64),
    Symbol { name: String, offset: u64 },
}

impl FromStr for WatchSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, place) = match text.split_once(':') {
            None => (None, text),
            Some((name, place)) => match KINDS.iter().find(|(known, _)| *known == name) {
                Some(&(_, kind)) => (Some(kind), place),
                None => {
                    let known = KINDS.map(|(name, _)| name).join(", ");
                    return Err(format!("{name:?} is no kind of lock that can be watched ({known})"));
                }
            },
        };
        let hexadecimal = |digits: &str| {
            u64::from_str_radix(digits, 16).map_err(|_| format!("{text:?}: {digits:?} is no hexadecimal number"))
        };
        let place = if let Some(digits) = place.strip_prefix("0x") {
            Place::Address(hexadecimal(digits)?)
        } else {
            let (name, offset) = match place.split_once('+') {
                None => (place, 0),
                Some((name, offset)) => (name, hexadecimal(offset.strip_prefix("0x").unwrap_or(offset))?),
            };
            if name.is_empty() {
                return Err(format!("{text:?} names no lock"));
            }
            Place::Symbol {
                name: name.to_owned(),
                offset,
            }
        };
        Ok(Self { kind, place })
    }
}

impl fmt::Display for WatchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address(address) => write!(f, "{address:#x}"),
            Place::Symbol { name, offset: 0 } => f.write_str(name),
            Place::Symbol { name, offset } => write!(f, "{name}+{offset:#x}"),
        }
    }
}

/// What is watched: addresses, and of which kinds the locks may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Addresses, 0 where there is none.
    pub addresses: [u64; MAX_WATCHED],
    /// Kinds whose functions are traced.
    pub kinds: Vec<LockKind>,
}

impl Targets {
    /// Looks the locks up.
    ///
    /// # Errors
    /// When a symbol is unknown, is code, or names several things, or when there are too many locks.
    pub fn find(specs: &[WatchSpec], symbols: Option<&Symbols>) -> Result<Self> {
        if specs.len() > MAX_WATCHED {
            bail!("{} locks are to be watched; {MAX_WATCHED} can be", specs.len());
        }
        let mut targets = Self::default();
        for (spec, to) in specs.iter().zip(&mut targets.addresses) {
            *to = address(spec, symbols)?;
            match spec.kind {
                Some(kind) => targets.kinds.push(kind),
                None => targets.kinds.extend(KINDS.map(|(_, kind)| kind)),
            }
        }
        targets.kinds.sort_unstable();
        targets.kinds.dedup();
        Ok(targets)
    }

    /// Says of which locks on a kernel like this nothing will be seen.
    pub fn warn(&self, preempt_rt: bool) {
        if preempt_rt && self.kinds.contains(&LockKind::Spinlock) {
            eprintln!(
                "holdup: on PREEMPT_RT only a raw_spinlock_t can be watched as a spinlock; a spinlock_t sleeps there, and its owner is \
                 known without watching it"
            );
        }
    }
}

fn address(spec: &WatchSpec, symbols: Option<&Symbols>) -> Result<u64> {
    let (name, offset) = match &spec.place {
        Place::Address(address) => return Ok(*address),
        Place::Symbol { name, offset } => (name, offset),
    };
    let symbols = symbols.with_context(|| {
        format!("{spec} cannot be looked up: this kernel shows no symbols; name the lock by its address")
    })?;
    let data: Vec<u64> = symbols
        .find(name)
        .filter(|s| !s.is_code())
        .map(|s| s.address.0)
        .collect();
    match *data.as_slice() {
        [] => bail!("no data of the kernel or of a module is called {name}; see /proc/kallsyms"),
        [only] => Ok(only.wrapping_add(*offset)),
        ref several => {
            let addresses: Vec<String> = several.iter().map(|address| format!("{address:#x}")).collect();
            bail!(
                "{name} names several things: give one of the addresses {}",
                addresses.join(", ")
            )
        }
    }
}

/// What watching costs a lock operation that is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Operations measured.
    pub runs: u64,
    /// Time in our programs, each.
    pub each: Nanos,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runs == 0 {
            let waited = MEASURED.as_millis();
            return write!(
                f,
                "an unknown time: no other lock of these kinds was used within {waited} ms"
            );
        }
        write!(
            f,
            "{} ns per acquisition or release of any other lock of these kinds ({} measured; the trampoline around a program is not \
             in it)",
            self.each.0, self.runs
        )
    }
}

/// Measures, with the kernel's own statistics, what the attached programs cost while they log nothing.
///
/// # Errors
/// When the kernel does not keep statistics (5.8 and newer do).
pub fn measure(ebpf: &Ebpf, programs: &[&str]) -> Result<Cost> {
    let _counting =
        aya::sys::enable_stats(aya::sys::Stats::RunTime).context("switching on the statistics of BPF programs")?;
    let sum = || {
        programs.iter().fold((0_u64, 0_u64), |(runs, time), program| {
            let cost = program_cost(ebpf, program);
            (runs + cost.runs, time + cost.run_time.0)
        })
    };
    let (began, before) = (Instant::now(), sum());
    let (runs, time) = loop {
        std::thread::sleep(LOOK);
        let after = sum();
        let runs = after.0.saturating_sub(before.0);
        if runs >= ENOUGH_RUNS || began.elapsed() >= MEASURED {
            break (runs, after.1.saturating_sub(before.1));
        }
    };
    Ok(Cost {
        runs,
        each: Nanos(time.checked_div(runs).unwrap_or(0)),
    })
}

/// Reader of the log.
#[derive(Debug)]
pub struct Watch {
    cpus: SharedArray<WatchCpu>,
    log: SharedArray<WatchEntry>,
    per_cpu: usize,
    /// By CPU.
    cursors: Vec<Cursor>,
    entries: Vec<(usize, WatchEntry)>,
    stacks: std::collections::HashSet<StackId>,
}

/// Place of the log counter in a [`WatchCpu`].
const LOGGED_WORD: usize = std::mem::offset_of!(WatchCpu, logged) / 8;
/// Stacks remembered as already sent; beyond it they are sent again, which is harmless.
const MAX_STACKS: usize = 65_536;

impl Watch {
    /// Takes the maps.
    ///
    /// # Errors
    /// When a map is missing.
    pub fn new(ebpf: &mut Ebpf, sizes: &Sizes) -> Result<Self> {
        let cpus = ebpf
            .take_map("WATCH_CPUS")
            .context("the BPF object has no map WATCH_CPUS")?;
        let log = ebpf
            .take_map("WATCH_LOG")
            .context("the BPF object has no map WATCH_LOG")?;
        Ok(Self {
            cpus: SharedArray::new(cpus, "WATCH_CPUS", sizes.cpus as usize)?,
            log: SharedArray::new(log, "WATCH_LOG", sizes.watch_entries() as usize)?,
            per_cpu: sizes.watch_log as usize,
            cursors: (0..sizes.cpus).map(|_| Cursor::new(sizes.watch_log as usize)).collect(),
            entries: Vec::new(),
            stacks: std::collections::HashSet::new(),
        })
    }

    /// Appends what was logged up to `until`, of all CPUs in the order in which it happened.
    pub fn read(&mut self, until: Timestamp, losses: &mut Losses, out: &mut Vec<Event>) {
        for (cpu, cursor) in self.cursors.iter_mut().enumerate() {
            let log = CpuLog {
                cpus: &self.cpus,
                logged_word: LOGGED_WORD,
                log: &self.log,
                per_cpu: self.per_cpu,
                cpu,
            };
            let overwritten = cursor.read(&log, |entry| {
                let due = entry.time <= until.0;
                if due {
                    self.entries.push((cpu, entry));
                }
                due
            });
            losses.add(LossCause::Overrun, overwritten);
        }
        self.entries.sort_by_key(|(_, entry)| entry.time);
        for (cpu, entry) in std::mem::take(&mut self.entries) {
            self.tell(cpu, &entry, out);
        }
    }

    fn tell(&mut self, cpu: usize, entry: &WatchEntry, out: &mut Vec<Event>) {
        let time = Timestamp(entry.time);
        let frames = entry.frames.iter().take(entry.stack_len as usize);
        let frames: Vec<KernelAddr> = frames.copied().filter(|&frame| frame != 0).map(KernelAddr).collect();
        let stack = if frames.is_empty() {
            StackId(0)
        } else {
            wire::stack_id(&frames)
        };
        if self.stacks.len() >= MAX_STACKS {
            self.stacks.clear();
        }
        if stack.0 != 0 && self.stacks.insert(stack) {
            out.push(Event {
                time,
                body: Body::Stack(StackFrames {
                    id: stack,
                    frames: frames.into(),
                    pieced: false,
                }),
            });
        }
        let (kind, mode) = wire::table_codes(entry.kind, entry.mode);
        let key = TaskKey {
            tid: Tid(entry.tid),
            start: Timestamp(0),
        };
        out.push(Event {
            time,
            body: Body::Watch(Watched {
                lock: LockAddr(entry.lock),
                kind,
                mode,
                act: if entry.act == act::RELEASED {
                    Act::Released
                } else {
                    Act::Acquired
                },
                by: spin::actor(cpu, entry.context.into(), key),
                task: Some(TaskRef {
                    key,
                    tgid: Tgid(entry.tgid),
                    comm: wire::comm(&entry.comm),
                }),
                cpu: CpuId(u32::try_from(cpu).unwrap_or(u32::MAX)),
                stack,
            }),
        });
    }
}

const _: () = assert!(std::mem::offset_of!(WatchEntry, seq) == 0);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn symbols() -> Symbols {
        let text = "ffffffff81000000 T rtnl_lock\nffffffff82000000 D rtnl_mutex\nffffffff82001000 d lock\nffffffff82002000 d lock\n";
        Symbols::parse(Path::new("test"), text.as_bytes()).unwrap()
    }

    fn find(text: &str) -> Result<Targets, String> {
        let spec: WatchSpec = text.parse()?;
        Targets::find(&[spec], Some(&symbols())).map_err(|error| error.to_string())
    }

    #[test]
    fn locks_are_named_by_symbol_offset_or_address() {
        let address = |text| find(text).map(|targets| targets.addresses[0]);
        assert_eq!(address("rtnl_mutex"), Ok(0xffff_ffff_8200_0000));
        assert_eq!(address("mutex:rtnl_mutex+0x10"), Ok(0xffff_ffff_8200_0010));
        assert_eq!(address("spinlock:0xffff888000001000"), Ok(0xffff_8880_0000_1000));
        assert_eq!(find("mutex:rtnl_mutex").unwrap().kinds, [LockKind::Mutex]);
        assert_eq!(find("rtnl_mutex").unwrap().kinds.len(), KINDS.len());
    }

    #[test]
    fn a_cost_that_was_not_measured_is_not_zero() {
        let told = |runs, each| {
            Cost {
                runs,
                each: Nanos(each),
            }
            .to_string()
        };
        assert!(told(7, 259).starts_with("259 ns per acquisition or release"));
        assert!(told(0, 0).starts_with("an unknown time"));
    }

    #[test]
    fn what_cannot_be_watched_is_refused_by_name() {
        for (text, says) in [
            ("futex:x", "no kind of lock"),
            ("semaphore:x", "(spinlock, rwlock, mutex, rwsem)"),
            ("0xzz", "no hexadecimal number"),
            ("a+x", "no hexadecimal number"),
            ("mutex:", "names no lock"),
            ("rtnl_lock", "no data"),
            ("nothing", "no data"),
            (
                "lock",
                "several things: give one of the addresses 0xffffffff82001000, 0xffffffff82002000",
            ),
        ] {
            let error = find(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let many = vec!["0x1000".parse().unwrap(); MAX_WATCHED + 1];
        assert!(Targets::find(&many, None).is_err());
    }
}
