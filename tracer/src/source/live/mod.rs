//! The running kernel: probes, shared tables and iterators, merged into one stream of events.

pub mod board;
mod cells;
mod cpu_log;
pub mod ending;
mod holders;
mod interrupt_stack;
pub(crate) mod lines;
pub(crate) mod names;
mod percpu;
mod queue_search;
pub(crate) mod records;
mod rounds;
mod sampler;
mod scans;
mod sleepers;
mod spin;
mod spin_queue;
mod stalls;
mod standstill;
mod thread_stack;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{MapData, RingBuf};
use aya::{Btf, Ebpf};
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior};
use tracer_common::config::Settings;

use self::board::Board;
use self::cells::Cells;
use self::holders::Holders;
use self::lines::LineNames;
use self::names::Names;
use self::records::Records;
use self::rounds::Rounds;
use self::scans::Scans;
use self::spin::Spins;
pub use self::watch::WatchSpec;
use self::watch::{Targets, Watch};
use crate::bpf::attach::{self, Attached};
use crate::bpf::leave::{self, Links};
use crate::bpf::load::{self, Sizes};
use crate::bpf::probes::{self, ProbeChoice};
use crate::bpf::stats::{LossCounters, Losses, program_cost};
use crate::bpf::watch::readable;
use crate::bpf::watch_probes;
use crate::event::{Body, Event, LossCause, LossReport};
use crate::ids::{CpuId, Nanos, Timestamp};
use crate::kernel::symbols::{KALLSYMS, Symbols};
use crate::kernel::{clock, facts::KernelFacts, lines::LineArgs, tasks::TaskFacts, user_stacks::UserStacks};
use crate::report::ProgramCost;

/// Ring records taken at most before the caller gets a turn.
const BATCH: usize = 4096;

/// Looks at the end; on a machine that never rests these are all.
const LAST_LOOKS: usize = 8;
/// How long the end of a run waits for file and line of frames, or user-space stacks, that were asked for.
const LAST_LINES: Duration = Duration::from_secs(5);

/// How a live run is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which probes.
    pub probes: ProbeChoice,
    /// Waits at least this long become events when they end.
    pub min_wait: Duration,
    /// Waits at least this old are re-read from their locks in every round.
    pub pending_after: Duration,
    /// Time between rounds.
    pub interval: Duration,
    /// Every begin and end becomes an event.
    pub all: bool,
    /// Kernel stacks with events that are shown.
    pub stacks: bool,
    /// Where threads that sleep came from in user space.
    pub user_stacks: bool,
    /// Attach to unlock slowpaths, too.
    pub releases: bool,
    /// Attach to init functions, too: locks initialised again while in use. Armed runs always do.
    pub reinit: bool,
    /// Follow those who hold others up through the scheduler.
    pub holders: bool,
    /// Locks of which every acquisition and release becomes an event.
    pub watch: Vec<WatchSpec>,
    /// Attach an empty program, too, to see what an event costs before we do anything.
    pub baseline: bool,
    /// Size of the ring buffer, where not chosen from the machine.
    pub ring_bytes: Option<u32>,
    /// Sample what every CPU does all the time, not only while one looks stuck.
    pub cpus: bool,
    /// Everything that a machine with a stuck CPU refuses is there from the start, and nothing is taken off by a crash.
    pub armed: bool,
    /// File and line of kernel frames.
    pub lines: LineArgs,
    /// aya-log level of the BPF side: 0 = off, 1 = error ... 5 = trace.
    pub bpf_log: u8,
    /// Records come with their events, for a capture.
    pub records: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            probes: ProbeChoice::Auto,
            min_wait: Duration::from_millis(10),
            pending_after: Duration::from_millis(100),
            interval: Duration::from_millis(250),
            all: false,
            stacks: true,
            user_stacks: false,
            releases: false,
            reinit: false,
            holders: false,
            watch: Vec::new(),
            baseline: false,
            ring_bytes: None,
            cpus: false,
            armed: false,
            lines: LineArgs::default(),
            bpf_log: 0,
            records: false,
        }
    }
}

/// A running capture of the kernel.
pub struct Live {
    ebpf: Ebpf,
    ring: AsyncFd<RingBuf<MapData>>,
    decoder: Records,
    rounds: Rounds,
    scans: Scans,
    spins: Spins,
    cells: Cells,
    board: Board,
    holders: Holders,
    follows: bool,
    watch: Option<Watch>,
    names: Names,
    lines: LineNames,
    tasks: TaskFacts,
    user_stacks: Option<UserStacks>,
    counters: LossCounters,
    losses: Losses,
    reported: LossReport,
    ticker: Interval,
    programs: Vec<&'static str>,
    attached: Vec<Attached>,
    links: Links,
}

impl Live {
    /// Loads the programs, attaches the probes and starts.
    ///
    /// # Errors
    /// When the kernel refuses the programs or no probe could be attached.
    pub fn start(options: &Options, facts: &KernelFacts) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("reading /sys/kernel/btf/vmlinux")?;
        let tracepoints = facts.files.tracepoints();
        let mut sizes = Sizes::for_machine(facts.possible_cpus, facts.pid_max);
        if let Some(bytes) = options.ring_bytes {
            sizes.ring = bytes;
        }
        let mut settings = Settings {
            min_wait_ns: Nanos::from(options.min_wait).0,
            pending_ns: Nanos::from(options.pending_after).0,
            emit_all: options.all.into(),
            stacks: options.stacks.into(),
            per_cpu_offset: facts.preempt_count.map_or(0, |count| count.per_cpu_offset.0),
            preempt_count: facts.preempt_count.map_or(0, |count| count.address),
            ..Settings::NONE
        };
        let targets = Targets::find(&options.watch, facts.files.symbols().map(AsRef::as_ref))?;
        if !options.watch.is_empty() {
            sizes.with_watched_locks();
            settings.watch = targets.addresses;
            targets.warn(facts.offsets.offsets.spin.rt_owner.is_some());
        }
        sizes.apply(&mut settings);
        let kprobes = !probes::selected(probes::Role::Contention, options.probes, tracepoints, false);
        settings.spin_begin_only = kprobes.into();
        let mut ebpf = load::load(&btf, &facts.layout, &settings, &sizes, options.bpf_log)?;
        if options.bpf_log > 0 {
            crate::bpf::log::forward(&mut ebpf)?;
        }
        let rounds = Rounds::new(&mut ebpf, &btf, &sizes, options.pending_after.into())?;
        let scans = Scans::new(&mut ebpf, &btf, facts, options.pending_after.into())?;
        let spins = Spins::new(&mut ebpf, &sizes, options.pending_after.into())?;
        let cells = Cells::new(&mut ebpf, &sizes)?;
        let mut links = if options.armed {
            Links::surviving()?
        } else {
            Links::default()
        };
        let mut board = Board::new(&mut ebpf, &sizes, facts, options.cpus, &links)?;
        let holders = Holders::new(&mut ebpf)?;
        let counters = LossCounters::new(&mut ebpf)?;
        let ring = ebpf.take_map("RING").context("the BPF object has no map RING")?;
        let ring = readable(RingBuf::try_from(ring)?).context("watching the ring buffer")?;
        let wanted = probes::PROBES.iter().filter(|probe| {
            probe.role == probes::Role::Baseline && options.baseline
                || probe.role == probes::Role::Init && (options.reinit || options.armed)
                || probe.role == probes::Role::Holders && options.holders
                || probes::selected(probe.role, options.probes, tracepoints, options.releases)
        });
        // Attaching to a tracepoint that was in use before waits for a grace period (KERNEL: tracepoint_add_func,
        // kernel/tracepoint.c), and kprobes wait for every CPU: that may be for ever. The sampler and the iterators need neither.
        let dead = (options.probes == ProbeChoice::Auto)
            .then(|| board.stands_still(&mut ebpf))
            .flatten();
        if options.probes == ProbeChoice::Auto {
            clear_up(dead);
        }
        let mut attached = match dead {
            Some(cpu) => attach::not_attached(
                wanted,
                &format!("CPU {cpu} stands still, and attaching could wait for it for ever"),
            ),
            None => {
                let mut attached = attach::attach(&mut ebpf, &btf, &facts.files, wanted, &mut links)?;
                if options.armed {
                    attached.extend(board.stand_by(&mut ebpf, &mut links));
                }
                attached
            }
        };
        let watch = match (dead, options.watch.is_empty()) {
            (None, false) => Some(start_watch(
                &mut ebpf,
                &btf,
                &sizes,
                &targets,
                &cells,
                &mut links,
                &mut attached,
            )?),
            (Some(_), false) => {
                bail!("a CPU stands still: the lock functions cannot be traced any more, so nothing can be watched")
            }
            (_, true) => None,
        };
        let mut names = Names::new(facts);
        // Lock functions that are traced call through trampolines, which have names only now.
        if watch.is_some()
            && let Ok(symbols) = Symbols::load(Path::new(KALLSYMS)).map(Arc::new)
        {
            names.renew(Arc::clone(&symbols));
            board.renew(symbols);
        }
        let mut programs: Vec<&'static str> = attached
            .iter()
            .filter(|a| a.error.is_none())
            .map(|a| a.program)
            .collect();
        // The sampler goes on and off, and costs wherever it is on.
        programs.push(sampler::PROGRAM);
        programs.dedup();
        let user_stacks = match options.user_stacks {
            true => Some(UserStacks::start(facts, &mut scans.memory(&mut ebpf))?),
            false => None,
        };
        let mut ticker = tokio::time::interval(options.interval);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            ebpf,
            ring,
            decoder: Records::new(options.records),
            rounds,
            scans,
            spins,
            cells,
            board,
            holders,
            follows: options.holders,
            watch,
            names,
            lines: LineNames::new(options.lines.start(facts)?),
            tasks: TaskFacts::new(facts.offsets.offsets),
            user_stacks,
            counters,
            losses: Losses::default(),
            reported: LossReport::default(),
            ticker,
            programs,
            attached,
            links,
        })
    }

    /// What became of each probe.
    #[must_use]
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// What each attached program has cost so far.
    #[must_use]
    pub fn program_costs(&self) -> Vec<ProgramCost> {
        self.programs
            .iter()
            .map(|program| program_cost(&self.ebpf, program))
            .collect()
    }

    /// Waits for something to happen and appends its events.
    ///
    /// # Errors
    /// When a map or an iterator cannot be read any more.
    pub async fn next(&mut self, out: &mut Vec<Event>) -> Result<()> {
        let from = out.len();
        tokio::select! {
            biased;
            _ = self.ticker.tick() => self.poll(out)?,
            ready = self.ring.readable_mut() => {
                let mut guard = ready.context("waiting for the ring buffer")?;
                if drain(guard.get_inner_mut(), &mut self.decoder, &mut self.losses, out) {
                    guard.clear_ready();
                }
            }
        }
        self.rounds.note_reinits(out.get(from..).unwrap_or_default());
        self.announce(from, out)
    }

    fn announce(&mut self, from: usize, out: &mut Vec<Event>) -> Result<()> {
        self.names.announce(from, &mut self.scans.memory(&mut self.ebpf), out)?;
        self.lines.announce(from, out);
        Ok(())
    }

    /// Takes what is left when the capture ends: the ring, a last round and the final counters.
    ///
    /// # Errors
    /// As for [`Live::next`].
    pub fn finish(&mut self, out: &mut Vec<Event>) -> Result<()> {
        let from = out.len();
        while !drain(self.ring.get_mut(), &mut self.decoder, &mut self.losses, out) {}
        self.poll(out)?;
        self.settle(out)?;
        let now = clock::monotonic();
        self.names
            .announce_last(from, &mut self.scans.memory(&mut self.ebpf), out)?;
        self.lines.announce(from, out);
        self.lines.finish(LAST_LINES, now, out);
        if let Some(stacks) = &mut self.user_stacks {
            out.extend(stacks.events(LAST_LINES, now));
        }
        Ok(())
    }

    /// Records, statistics and counters of losses are read one after the other while the probes go on. Looks again until nothing
    /// happened in between, so that they tell of the same waits.
    fn settle(&mut self, out: &mut Vec<Event>) -> Result<()> {
        for _ in 0..LAST_LOOKS {
            let from = out.len();
            while !drain(self.ring.get_mut(), &mut self.decoder, &mut self.losses, out) {}
            let now = clock::monotonic();
            self.cells.finish(now, out);
            self.report_losses(now, out)?;
            if out.len() == from {
                break;
            }
        }
        Ok(())
    }

    fn poll(&mut self, out: &mut Vec<Event>) -> Result<()> {
        // What was told before this look comes before it.
        drain(self.ring.get_mut(), &mut self.decoder, &mut self.losses, out);
        let now = clock::monotonic();
        let from = out.len();
        let suspects = self.spins.suspects(now);
        let end = self
            .rounds
            .run(&suspects, &mut self.ebpf, &mut self.decoder, &mut self.losses, now, out)?;
        self.spins.read(from, &mut self.losses, now, out);
        let long = self.spins.long(now);
        if let Some(watch) = &mut self.watch {
            watch.read(now, &mut self.losses, out);
        }
        self.board
            .poll(&mut self.ebpf, self.scans.walker(), &long, now, from, out)?;
        out.extend(end);
        let tools = (self.decoder.decoder(), &mut self.losses);
        self.scans
            .run(&mut self.ebpf, self.rounds.found_waits(), tools, now, out)?;
        let met = self.decoder.decoder().take_met();
        self.tasks
            .describe(&met, &mut self.scans.memory(&mut self.ebpf), now, from, out)?;
        if let Some(stacks) = &mut self.user_stacks {
            stacks.look(&met, &mut self.scans.memory(&mut self.ebpf), now)?;
            out.extend(stacks.events(Duration::ZERO, now));
        }
        if self.follows {
            self.holders.update(from, now, out);
        }
        self.cells.read(now, out);
        self.report_losses(now, out)
    }

    fn report_losses(&mut self, now: Timestamp, out: &mut Vec<Event>) -> Result<()> {
        self.counters.read(&mut self.losses)?;
        let skipped = self
            .programs
            .iter()
            .map(|program| program_cost(&self.ebpf, program).skipped)
            .sum();
        self.losses.set(LossCause::ProgramSkipped, skipped);
        let report = self.losses.report();
        if report != self.reported {
            out.push(Event {
                time: now,
                body: Body::Loss(report.clone()),
            });
            self.reported = report;
        }
        Ok(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        ending::end(&mut self.board, &mut self.ebpf, &mut self.links);
    }
}

/// Takes off what earlier runs have left, if nothing speaks against it, and says so.
fn clear_up(dead: Option<CpuId>) {
    for remains in leave::remains() {
        let path = remains.path.display().to_string();
        match dead {
            Some(cpu) => eprintln!("holdup: probes of an earlier run stay in {path}, as CPU {cpu} stands still"),
            None => match remains.take_off() {
                Ok(count) => eprintln!("holdup: took off {count} probes that an earlier run had left in {path}"),
                Err(error) => eprintln!("holdup: probes of an earlier run are still attached: {error:#}"),
            },
        }
    }
}

/// Attaches to the functions of the watched locks, says what that costs others, and starts their log.
fn start_watch(
    ebpf: &mut Ebpf,
    btf: &Btf,
    sizes: &Sizes,
    targets: &Targets,
    cells: &Cells,
    links: &mut Links,
    attached: &mut Vec<Attached>,
) -> Result<Watch> {
    let watch = Watch::new(ebpf, sizes)?;
    let probes = watch_probes::attach(ebpf, btf, &targets.kinds, links);
    let programs: Vec<&str> = probes.iter().filter(|p| p.error.is_none()).map(|p| p.program).collect();
    if programs.is_empty() {
        let reasons: Vec<String> = probes.iter().map(ToString::to_string).take(4).collect();
        bail!(
            "no function of the watched locks could be traced ({})",
            reasons.join("; ")
        );
    }
    if let Some(missing) = watch_probes::blind(&probes) {
        bail!(
            "the releases of such locks cannot all be seen, so their holders would not be known ({missing}); if the lock is of another \
             kind, say which, as in mutex:rtnl_mutex"
        );
    }
    match watch::measure(ebpf, &programs) {
        Ok(cost) => eprintln!("holdup: watching costs {cost}"),
        Err(error) => eprintln!("holdup: what watching costs is not known: {error:#}"),
    }
    attached.extend(probes);
    cells.set_watching(true);
    Ok(watch)
}

/// Takes up to a batch of records; true when the ring is empty.
fn drain(ring: &mut RingBuf<MapData>, decoder: &mut Records, losses: &mut Losses, out: &mut Vec<Event>) -> bool {
    for _ in 0..BATCH {
        let Some(item) = ring.next() else { return true };
        if decoder.decode(&item, out).is_err() {
            losses.add(LossCause::Malformed, 1);
        }
    }
    false
}
