//! From the model and the engine to a report.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::coverage::Coverage;
use super::{
    ClosedRow, CpuRow, Frame, HeldRow, InlinedRow, LockRow, LossRow, OwnerRow, Report, SourceFacts, SpinRow, StallRow,
    TaskRow, TotalsRow, TreeRoot, UserStackRow, WaitRow, WatchedRow,
};
use crate::diagnosis::{About, Blocked, Engine, Graph, Hold, Root, phrase};
use crate::event::{Actor, Inlined, Mode, Phase, Queued, TaskState};
use crate::ids::{CgroupId, CpuId, StackId};
use crate::model::{ActorIx, Held, LockEntry, LockIx, Model};

/// Most locks listed.
const MAX_LOCKS: usize = 1_000;
/// Seconds over which the rate of a lock is taken.
const RATE_SECONDS: u64 = 5;

impl Report {
    /// The picture at the time of the engine's latest update.
    #[must_use]
    pub fn build(model: &Model, engine: &Engine) -> Self {
        let graph = engine.graph();
        let mut sites = Sites::default();
        let (tasks, row_of) = task_rows(model, graph, &mut sites);
        let (locks, locks_left_out) = lock_rows(model, graph);
        let findings: Vec<_> = engine.open().into_iter().cloned().collect();
        let coverage = Coverage::build(model, graph, &findings);
        let mut wanted: BTreeSet<StackId> = tasks.iter().map(|t| t.stack).collect();
        let closed: Vec<ClosedRow> = engine.closed().map(ClosedRow::from).collect();
        for finding in findings.iter().chain(closed.iter().map(|c| &c.finding)) {
            wanted.extend(finding.tasks.iter().map(|t| t.stack));
            wanted.extend(finding.victims.tasks.iter().map(|v| v.stack));
        }
        let watched = WatchedRow::of(model);
        wanted.extend(watched.iter().flat_map(WatchedRow::stacks));
        wanted.extend(coverage.groups.iter().map(|g| g.stack));
        Self {
            time: model.now(),
            source: SourceFacts::default(),
            findings,
            findings_left_out: engine.left_out(),
            closed: closed.into_iter().rev().collect(),
            locks,
            locks_left_out,
            roots: roots(model, graph, &row_of),
            tasks,
            cpus: cpu_rows(model),
            watched,
            coverage,
            losses: LossRow::of(model),
            totals: TotalsRow::of(model),
            stacks: wanted
                .into_iter()
                .filter_map(|id| Some((id, frames(model, id)?)))
                .collect(),
        }
    }
}

fn frames(model: &Model, stack: StackId) -> Option<Vec<Frame>> {
    let frames = model.names().frames(stack)?;
    let machinery = model.names().machinery(frames);
    let frame = |(position, &address)| {
        let symbol = model.names().symbol_at(address);
        let line = model.names().line_at(address);
        let inlined = line.map_or(&[][..], |line| &line.inlined);
        Frame {
            address,
            symbol: symbol.map(|s| Arc::clone(&s.name)),
            offset: symbol.map_or(0, |s| s.offset),
            module: symbol.and_then(|s| s.module.clone()),
            machinery: position < machinery,
            file: line.and_then(|line| line.place.file.clone()),
            line: line.and_then(|line| line.place.line),
            inlined: inlined.iter().map(InlinedRow::from).collect(),
        }
    };
    Some(frames.iter().enumerate().map(frame).collect())
}

impl From<&Inlined> for InlinedRow {
    fn from(inlined: &Inlined) -> Self {
        Self {
            name: Arc::clone(&inlined.name),
            file: inlined.place.file.clone(),
            line: inlined.place.line,
        }
    }
}

/// Call sites by stack: many tasks wait at the same one.
#[derive(Default)]
struct Sites(FxHashMap<StackId, Option<Arc<str>>>);

impl Sites {
    fn of(&mut self, model: &Model, stack: StackId) -> Option<Arc<str>> {
        self.0
            .entry(stack)
            .or_insert_with(|| model.names().site(stack).map(Arc::from))
            .clone()
    }
}

fn task_rows(model: &Model, graph: &Graph, sites: &mut Sites) -> (Vec<TaskRow>, FxHashMap<ActorIx, usize>) {
    let mut shown: Vec<(Actor, ActorIx)> = model
        .actors()
        .iter()
        .filter(|(ix, a)| !a.waits.is_empty() || a.dependency.is_some() || graph.is_blocker(*ix))
        .map(|(ix, a)| (a.id, ix))
        .collect();
    shown.sort_unstable();
    let row_of: FxHashMap<ActorIx, usize> = shown.iter().enumerate().map(|(row, &(_, ix))| (ix, row)).collect();
    let mut rows: Vec<TaskRow> = shown
        .iter()
        .filter_map(|&(_, ix)| task_row(model, graph, sites, ix, &row_of))
        .collect();
    for row in 0..rows.len() {
        if let Some(by) = rows.get(row).and_then(|r| r.blocked_by)
            && let Some(blocker) = rows.get_mut(by)
        {
            blocker.blocks.push(row);
        }
    }
    (rows, row_of)
}

fn task_row(
    model: &Model,
    graph: &Graph,
    sites: &mut Sites,
    ix: ActorIx,
    row_of: &FxHashMap<ActorIx, usize>,
) -> Option<TaskRow> {
    let actor = model.actors().get(ix)?;
    let blocked = graph.blocked(model, ix);
    let holder = match blocked {
        Blocked::Lock(_, _, Some(holder)) => Some(holder.actor),
        Blocked::Dependency(on) => on,
        Blocked::Lock(_, _, None) | Blocked::Free => None,
    };
    let innermost = actor.innermost().and_then(|w| model.waits().get(w));
    let wait = match (innermost, &actor.dependency) {
        (Some(wait), _) => Some(WaitRow {
            lock: Some(phrase::lock_ref(model, wait.lock)),
            dependency: None,
            mode: wait.mode,
            phase: wait.phase,
            waited: model.waited(wait),
            waited_is_lower_bound: wait.since.is_none(),
            place: if let Queued::At(place) = wait.queued {
                Some(place)
            } else {
                None
            },
        }),
        (None, Some(depends)) => Some(WaitRow {
            lock: None,
            dependency: Some(phrase::dependency(model, depends)),
            mode: Mode::Exclusive,
            phase: Phase::Sleeping,
            waited: model
                .now()
                .since(actor.depends_since().map_or(depends.seen.first, |(since, _)| since)),
            waited_is_lower_bound: depends.since.is_none(),
            place: None,
        }),
        (None, None) => None,
    };
    let stack = phrase::site_stack(model, ix);
    Some(TaskRow {
        name: phrase::name(model, ix),
        state: actor.state(),
        cpu: actor.sample.and_then(|s| s.cpu).or(innermost.and_then(|w| w.cpu)),
        cgroup: actor.sample.map_or(CgroupId(0), |s| s.cgroup),
        about: About::of(model, ix),
        kernel_thread: actor.sample.is_some_and(|s| s.kernel_thread),
        asleep: actor.asleep_since().map(|since| model.now().since(since)),
        wait,
        holds: graph.held_by(ix).iter().map(|&l| phrase::lock_ref(model, l)).collect(),
        blocked_by: holder.and_then(|h| row_of.get(&h).copied()),
        blocks: Vec::new(),
        site: sites.of(model, stack),
        stack,
        user_stack: actor.user_stack.as_deref().map(UserStackRow::from),
    })
}

fn roots(model: &Model, graph: &Graph, row_of: &FxHashMap<ActorIx, usize>) -> Vec<TreeRoot> {
    let row = |ix: ActorIx| row_of.get(&ix).copied();
    let mut roots: Vec<TreeRoot> = graph
        .roots(model)
        .into_iter()
        .filter_map(|root| match root {
            Root::Actor(actor) => Some(TreeRoot::Task {
                row: row(actor)?,
                victims: graph.impact(model, &[actor], None).count,
            }),
            Root::Lock(lock) => Some(TreeRoot::Lock {
                lock: phrase::lock_ref(model, lock),
                waiters: waiter_rows(model, lock, row_of),
                victims: graph.impact(model, &[], Some(lock)).count,
            }),
            Root::Cycle => None,
        })
        .collect();
    for cycle in graph.cycles(model) {
        let rows: Vec<usize> = cycle.iter().filter_map(|&a| row(a)).collect();
        roots.push(TreeRoot::Cycle {
            rows,
            victims: graph.impact(model, &cycle, None).count,
        });
    }
    roots.sort_by_cached_key(|r| {
        let first = match r {
            TreeRoot::Task { row, .. } => Some(*row),
            TreeRoot::Lock { waiters, .. } => waiters.first().copied(),
            TreeRoot::Cycle { rows, .. } => rows.first().copied(),
        };
        (!matches!(r, TreeRoot::Cycle { .. }), Reverse(r.victims()), first)
    });
    roots
}

fn waiter_rows(model: &Model, lock: LockIx, row_of: &FxHashMap<ActorIx, usize>) -> Vec<usize> {
    let Some(lock) = model.locks().get(lock) else {
        return Vec::new();
    };
    let waits = model.queue(lock).into_iter().filter_map(|w| model.waits().get(w));
    waits.filter_map(|w| row_of.get(&w.waiter).copied()).collect()
}

fn owner_row(model: &Model, graph: &Graph, ix: LockIx, lock: &LockEntry) -> OwnerRow {
    match lock.held() {
        Held::Nobody => OwnerRow::Nobody,
        Held::By(actor) => OwnerRow::Task {
            name: phrase::name(model, actor),
        },
        Held::HandedTo(actor) => OwnerRow::Handed {
            name: phrase::name(model, actor),
        },
        Held::Unreadable(address) => OwnerRow::Unreadable { address },
        held @ (Held::Readers { .. } | Held::NotRecorded) => OwnerRow::Unrecorded {
            readers: if let Held::Readers { count, .. } = held {
                count
            } else {
                None
            },
            candidates: graph
                .holders(ix)
                .iter()
                .filter(|h| !matches!(h.hold, Hold::Owner))
                .take(4)
                .map(|h| phrase::name(model, h.actor))
                .collect(),
        },
    }
}

fn lock_rows(model: &Model, graph: &Graph) -> (Vec<LockRow>, usize) {
    let mut shown: Vec<(usize, u64, LockIx)> = model
        .locks()
        .iter()
        .filter(|(_, l)| !l.waiters.is_empty() || l.contention.is_some())
        .map(|(ix, l)| {
            (
                l.waiters.len(),
                l.contention.as_ref().map_or(0, |c| c.totals().total.0),
                ix,
            )
        })
        .collect();
    shown.sort_unstable_by_key(|&(waiters, total, ix)| {
        (Reverse(waiters), Reverse(total), model.locks().get(ix).map(|l| l.addr))
    });
    let left_out = shown.len().saturating_sub(MAX_LOCKS);
    let rows = shown
        .into_iter()
        .take(MAX_LOCKS)
        .filter_map(|(_, _, ix)| lock_row(model, graph, ix))
        .collect();
    (rows, left_out)
}

fn lock_row(model: &Model, graph: &Graph, ix: LockIx) -> Option<LockRow> {
    let lock = model.locks().get(ix)?;
    let waits = || lock.waiters.iter().filter_map(|&w| model.waits().get(w));
    let totals = lock.contention.as_ref().map(|c| c.totals().clone()).unwrap_or_default();
    let window = lock.contention.as_ref().map(|c| c.window());
    let (rate, wait_per_second) = window.map(|w| w.rate(model.now(), RATE_SECONDS)).unwrap_or_default();
    Some(LockRow {
        lock: phrase::lock_ref(model, ix),
        owner: owner_row(model, graph, ix, lock),
        readers_waiting: waits().filter(|w| w.mode == Mode::Shared).count(),
        longest_wait: waits().map(|w| model.waited(w)).max().unwrap_or_default(),
        waits: totals.waits,
        total: totals.total,
        max: totals.max,
        p50: totals.percentile(50),
        p99: totals.percentile(99),
        held: (lock.holds.count > 0).then_some(HeldRow {
            times: lock.holds.count,
            total: lock.holds.total,
            max: lock.holds.max,
        }),
        rate,
        wait_per_second,
        history: window
            .map(|w| w.waits_per_second(model.now()).collect())
            .unwrap_or_default(),
        histogram: totals.histogram().to_vec(),
    })
}

fn cpu_rows(model: &Model) -> Vec<CpuRow> {
    let mut rows: BTreeMap<CpuId, CpuRow> = BTreeMap::new();
    let empty = |cpu| CpuRow {
        cpu,
        task: None,
        seen: crate::ids::Timestamp(0),
        spins: Vec::new(),
        stall: None,
    };
    for (ix, actor) in model.actors().iter() {
        let Some(sample) = actor.sample.filter(|_| actor.gone.is_none()) else {
            continue;
        };
        let Some(cpu) = sample.cpu else { continue };
        let row = rows.entry(cpu).or_insert_with(|| empty(cpu));
        if sample.state == TaskState::Running && sample.time >= row.seen {
            (row.task, row.seen) = (Some(phrase::name(model, ix)), sample.time);
        }
    }
    for (_, wait) in model.waits().iter() {
        if wait.phase != Phase::Spinning {
            continue;
        }
        let interrupt_cpu = match model.actors().get(wait.waiter).map(|a| a.id) {
            Some(Actor::Interrupt { cpu, .. }) => Some(cpu),
            _ => None,
        };
        let Some(cpu) = interrupt_cpu.or(wait.cpu) else {
            continue;
        };
        let spin = SpinRow {
            who: phrase::name(model, wait.waiter),
            lock: phrase::lock_ref(model, wait.lock),
            waited: model.waited(wait),
        };
        rows.entry(cpu).or_insert_with(|| empty(cpu)).spins.push(spin);
    }
    for stall in model.stalls().iter() {
        let row = rows.entry(stall.cpu).or_insert_with(|| empty(stall.cpu));
        row.stall = Some(StallRow::of(stall, model.now()));
    }
    for row in rows.values_mut() {
        row.spins
            .sort_by(|a, b| (a.who.context, &a.who).cmp(&(b.who.context, &b.who)));
    }
    rows.into_values().collect()
}
