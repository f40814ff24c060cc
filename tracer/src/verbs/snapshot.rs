//! `holdup snapshot`: explains a machine that is already hung, once.
//!
//! Attaches no probe, starts nothing, writes nothing, and reads nothing below `/proc/PID` of another process: on a machine
//! where those block for ever it answers all the same. Only where a CPU looks stuck it looks at the CPUs, too, for some seconds, with
//! a timer on each one that still takes interrupts.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::Btf;
use clap::Args;
use tracer_common::config::Settings;

use crate::bpf::leave::Links;
use crate::bpf::load::{self, Sizes};
use crate::bpf::stats::Losses;
use crate::cli::parse_interval;
use crate::event::{Body, Event};
use crate::ids::Nanos;
use crate::kernel::clock;
use crate::kernel::facts::KernelFacts;
use crate::kernel::lines::LineArgs;
use crate::kernel::tasks::TaskFacts;
use crate::kernel::user_stacks::UserStacks;
use crate::model;
use crate::pipeline::Pipeline;
use crate::report::{Report, SourceFacts};
use crate::session::{Outcome, STDOUT, outcome_of};
use crate::source::live::board::Board;
use crate::source::live::ending;
use crate::source::live::lines::LineNames;
use crate::source::live::names::Names;
use crate::source::snapshot::{RoundCost, Walker};
use crate::verbs::record::lock_memory;
use crate::view::stacks::{self, Depth};
use crate::view::{json, text, tree};
use crate::wire::Decoder;

/// How long it waits for file and line of frames, where they are asked for.
const LAST_LINES: Duration = Duration::from_secs(60);
/// Two looks at a machine: what has not changed in between is proven.
const ROUNDS: usize = 2;
/// Between them.
const INTERVAL: Duration = Duration::from_millis(200);

/// CPUs that look stuck are looked at for this long, at these intervals, and no less often than this.
const CPUS_FOR: Nanos = Nanos::from_millis(2500);
const CPU_ROUNDS: u32 = 8;
const CPUS_EVERY: Duration = Duration::from_millis(250);

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// Text, which is the default.
    #[arg(long, conflicts_with = "json")]
    pub text: bool,
    /// One JSON document.
    #[arg(long)]
    pub json: bool,
    /// Time between the two looks at every thread: what has not changed in between is proven. Less than 100ms proves nothing.
    #[arg(long, value_parser = parse_interval, default_value = "200ms")]
    pub interval: Duration,
    /// Also show interruptible sleepers on locks that hold nobody up.
    #[arg(long)]
    pub all: bool,
    /// Also print the kernel stacks of everybody who waits or holds, each once; `full` with the frames of lock and scheduler.
    #[arg(long, value_enum, value_name = "DEPTH", num_args = 0..=1, require_equals = true, default_missing_value = "caller", conflicts_with = "json")]
    pub stacks: Option<Depth>,
    /// Also show where the threads came from in user space, from their registers and the top of their stack, read without any lock
    /// (x86-64); part of `--stacks` and of JSON.
    #[arg(long)]
    pub user_stacks: bool,
    /// File and line of kernel frames.
    #[command(flatten)]
    pub lines: LineArgs,
}

/// Takes the snapshot and prints it.
///
/// # Errors
/// When the kernel refuses the programs, stops answering, or stdout cannot be written.
pub fn run(args: &SnapshotArgs) -> Result<Outcome> {
    lock_memory();
    let facts = KernelFacts::of_this_machine()?;
    let (report, costs) = take(args, &facts)?;
    for cost in &costs {
        eprintln!("{}", cost_line(cost));
    }
    let mut out = io::stdout().lock();
    let written = if args.json {
        json::report(&mut out, &report)
    } else {
        show(&mut out, &report, args.stacks)
    };
    written.and_then(|()| out.flush()).context(STDOUT)?;
    Ok(report.findings.iter().map(outcome_of).max().unwrap_or(Outcome::Nothing))
}

/// A snapshot for somebody who is in the middle of something else.
///
/// # Errors
/// When the kernel refuses the programs or stops answering.
pub fn once() -> Result<Report> {
    let args = SnapshotArgs {
        text: true,
        json: false,
        interval: INTERVAL,
        all: false,
        stacks: None,
        user_stacks: false,
        lines: LineArgs::default(),
    };
    Ok(take(&args, &KernelFacts::of_this_machine()?)?.0)
}

fn take(args: &SnapshotArgs, facts: &KernelFacts) -> Result<(Report, Vec<RoundCost>)> {
    let btf = Btf::from_sys_fs().context("reading /sys/kernel/btf/vmlinux")?;
    let sizes = Sizes::without_probes(facts.possible_cpus);
    let mut settings = Settings {
        per_cpu_offset: facts.preempt_count.map_or(0, |count| count.per_cpu_offset.0),
        preempt_count: facts.preempt_count.map_or(0, |count| count.address),
        ..Settings::NONE
    };
    sizes.apply(&mut settings);
    let mut ebpf = load::load(&btf, &facts.layout, &settings, &sizes, 0)?;
    let mut walker = Walker::new(&mut ebpf, &btf, facts)?;
    let mut links = Links::default();
    let mut board = Board::new(&mut ebpf, &sizes, facts, false, &links)?;
    let mut decoder = Decoder::default();
    let mut losses = Losses::default();
    let mut tasks = TaskFacts::new(facts.offsets.offsets);
    let mut user_stacks = match args.user_stacks {
        true => Some(UserStacks::start(facts, &mut walker.memory(&mut ebpf))?),
        false => None,
    };
    let mut names = Names::new(facts);
    let mut lines = LineNames::new(args.lines.start(facts)?);
    let mut pipeline = Pipeline::new(model::Settings::default(), source_facts(&walker, facts));
    let mut costs = Vec::new();
    let mut events: Vec<Event> = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            thread::sleep(args.interval);
        }
        events.clear();
        costs.push(walker.round(&mut ebpf, args.all, &mut decoder, &mut losses, &mut events)?);
        let met = decoder.take_met();
        let memory = &mut walker.memory(&mut ebpf);
        tasks.describe(&met, memory, clock::monotonic(), 0, &mut events)?;
        if let Some(stacks) = &mut user_stacks {
            stacks.look(&met, memory, clock::monotonic())?;
        }
        names.announce_last(0, memory, &mut events)?;
        lines.announce(0, &mut events);
        for event in &events {
            pipeline.apply(event);
        }
    }
    let begin = clock::monotonic();
    for round in 1.. {
        let now = clock::monotonic();
        events.clear();
        board.poll(&mut ebpf, &walker, &[], now, 0, &mut events)?;
        names.announce_last(0, &mut walker.memory(&mut ebpf), &mut events)?;
        lines.announce(0, &mut events);
        for event in &events {
            pipeline.apply(event);
        }
        if !board.looks_stuck() || (round >= CPU_ROUNDS && now.since(begin) >= CPUS_FOR) {
            break;
        }
        thread::sleep(CPUS_EVERY);
    }
    if board.is_sampling() {
        ending::end(&mut board, &mut ebpf, &mut links);
    }
    events.clear();
    let unanswered = lines.finish(LAST_LINES, clock::monotonic(), &mut events);
    if unanswered > 0 {
        let seconds = LAST_LINES.as_secs();
        eprintln!("holdup: file and line of {unanswered} addresses were not found within {seconds} s");
    }
    if let Some(stacks) = &mut user_stacks {
        events.extend(stacks.events(LAST_LINES, clock::monotonic()));
        if stacks.open() > 0 {
            eprintln!("holdup: {} user-space stacks were not unwound in time", stacks.open());
        }
        let cost = stacks.cost();
        eprintln!(
            "holdup: read {} user-space stacks in {:.1} ms, unwound {} in {:.1} ms",
            cost.read,
            cost.reading.as_secs_f64() * 1e3,
            cost.unwound,
            cost.unwinding.as_secs_f64() * 1e3,
        );
    }
    for event in &events {
        pipeline.apply(event);
    }
    let lost = losses.report();
    if !lost.by_cause.is_empty() {
        pipeline.apply(&Event {
            time: pipeline.now(),
            body: Body::Loss(lost),
        });
    }
    pipeline.finish();
    let mut report = pipeline.report();
    for cost in &costs {
        if cost.changing > 0 {
            let what = "threads stood on wait lists that were changing or corrupt: they are not explained";
            report.source.limits.push(format!("{} {what}", cost.changing));
        }
        if cost.stripped > 0 {
            let what = "threads were too many to keep their raw stacks: holders among them are not found";
            report.source.limits.push(format!("{} {what}", cost.stripped));
        }
    }
    Ok((report, costs))
}

fn show(out: &mut impl Write, report: &Report, depth: Option<Depth>) -> io::Result<()> {
    text::findings(out, report)?;
    tree::trees(out, report)?;
    if let Some(depth) = depth {
        stacks::stacks(out, report, depth)?;
    }
    text::summary(out, report)
}

fn source_facts(walker: &Walker, facts: &KernelFacts) -> SourceFacts {
    SourceFacts {
        mode: "snapshot".to_owned(),
        host: facts.host.clone(),
        kernel: facts.release.clone(),
        probes: Vec::new(),
        limits: walker.limits(),
        programs: Vec::new(),
    }
}

fn cost_line(cost: &RoundCost) -> String {
    format!(
        "holdup: looked at {} threads in {:.1} ms (in the kernel {:.1} ms), kept {:.1} MB",
        cost.threads,
        (cost.walk + cost.analysis).as_secs_f64() * 1e3,
        cost.walk.as_secs_f64() * 1e3,
        cost.bytes as f64 / 1e6,
    )
}
