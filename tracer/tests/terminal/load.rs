//! Sources for views on a real terminal: a pile-up of 1,500 tasks, and as many events a second as wanted on top of it.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer::event::{
    Actor, Body, Event, Evidence, LockKind, Mode, Owner, Phase, Queued, Round, RoundEdge, RoundScope, TaskRef, WaitEnd,
    WaitSample,
};
use tracer::ids::{LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use tracer::model::Settings;
use tracer::pipeline::Pipeline;
use tracer::report::SourceFacts;
use tracer::source::script::Script;
use tracer::tui::Source;

/// Tasks in the pile-up, the holder not counted.
pub const WAITERS: u64 = 1_500;
/// Names a file in which a source tells how many events it sent, other than on the terminal.
pub const TALLY: &str = "HOLDUP_TEST_TALLY";
const TICK: Duration = Duration::from_millis(1);
const ROUND: Duration = Duration::from_millis(250);

/// Events at a steady rate.
pub struct Load {
    pipeline: Pipeline,
    per_second: u64,
    started: Instant,
    sent: u64,
    rounds: u64,
    pile_up: Vec<Event>,
    /// Breaks when so many events were sent.
    panic_at: Option<u64>,
    /// Of [`TALLY`].
    tally: Option<File>,
}

/// Case B: a reader asleep in I/O, a writer next, everybody else behind it.
fn pile_up() -> String {
    let mut text = String::from(
        "task h 4442 dd tgid=4424 cgroup=9\nlock S rwsem mmap_lock\n\
         stack sh bt_get blk_mq_get_tag filemap_fault __do_page_fault\n\
         stack sr rwsem_down_read_slowpath down_read proc_pid_cmdline_read\nat 100s\n\
         state h in-io switches=77 last-switch=40s stack=sh cpu=2\n",
    );
    for i in 0..WAITERS {
        let mode = if i == 0 { "exclusive" } else { "shared" };
        let _ = writeln!(
            text,
            "task r{i} {} ps-{i}\nstate r{i} uninterruptible switches=4 stack=sr\n\
             wait r{i} S owner=readers(h,1) by=reread queued={i} stack=sr mode={mode} since=42s",
            5_000 + i
        );
    }
    text.push_str("holder h S shared by=stack-word rank=0\ndepend h block-io by=stack-frames stack=sh since=40s\n");
    text
}

impl Load {
    /// So many events a second on top of the pile-up.
    pub fn new(per_second: u64, panic_at: Option<u64>) -> Self {
        let facts = SourceFacts {
            mode: "script".into(),
            host: "bench".into(),
            ..SourceFacts::default()
        };
        let script = Script::parse(&pile_up()).expect("the script");
        let mut load = Self {
            pipeline: Pipeline::new(Settings::default(), facts),
            per_second,
            started: Instant::now(),
            sent: 0,
            rounds: 0,
            pile_up: script.events().cloned().collect(),
            panic_at,
            tally: std::env::var_os(TALLY).map(|path| File::create(path).expect("the tally")),
        };
        load.round(Timestamp(100_000_000_000));
        load
    }

    fn now(&self) -> Timestamp {
        Timestamp(100_000_000_000) + Nanos::from(self.started.elapsed())
    }

    /// Every waiter of the pile-up is seen again.
    fn round(&mut self, time: Timestamp) {
        self.rounds += 1;
        let edge = |edge| {
            Body::Round(Round {
                number: self.rounds,
                edge,
                scope: RoundScope::Pending,
            })
        };
        let edges = [edge(RoundEdge::Begin), edge(RoundEdge::End)];
        let [begin, end] = edges.map(|body| Event { time, body });
        self.pipeline.apply(&begin);
        for event in &self.pile_up {
            self.pipeline.apply(&Event {
                time,
                body: event.body.clone(),
            });
        }
        self.pipeline.apply(&end);
        self.sent += self.pile_up.len() as u64 + 2;
    }

    /// A short wait of one of 500 tasks on one of 64 mutexes.
    fn short_wait(&mut self, time: Timestamp) {
        let n = self.sent / 2;
        let task = |n: u64| TaskRef {
            key: TaskKey {
                tid: Tid(u32::try_from(20_000 + n % 500).unwrap_or(0)),
                start: Timestamp(1),
            },
            tgid: Tgid(20_000),
            comm: Arc::from("busy"),
        };
        let waiter = task(n);
        let lock = LockAddr(0xffff_8881_0000_0000 + n % 64 * 64);
        let body = if self.sent.is_multiple_of(2) {
            Body::Wait(WaitSample {
                waiter: Actor::Task(waiter.key),
                task: Some(waiter),
                lock,
                kind: LockKind::Mutex,
                mode: Mode::Exclusive,
                phase: Phase::Sleeping,
                since: Some(time),
                owner_word: 0xffff_8880_0000_0000,
                owner: Owner::Task(task(n + 7)),
                queued: Queued::Unknown,
                cpu: None,
                stack: StackId(0),
                evidence: Evidence::Tracepoint,
            })
        } else {
            Body::WaitEnd(WaitEnd {
                waiter: Actor::Task(waiter.key),
                lock,
                result: 0,
                waited: Nanos(20_000),
            })
        };
        self.pipeline.apply(&Event { time, body });
        self.sent += 1;
    }
}

impl Source for Load {
    async fn advance(&mut self) -> Result<()> {
        tokio::time::sleep(TICK).await;
        let now = self.now();
        let elapsed = self.started.elapsed();
        if elapsed > ROUND * u32::try_from(self.rounds).unwrap_or(u32::MAX) {
            self.round(now);
        }
        let due = u64::try_from(elapsed.as_nanos() * u128::from(self.per_second) / 1_000_000_000).unwrap_or(0);
        while self.sent < due {
            self.short_wait(now);
        }
        if let Some(tally) = &self.tally {
            tally.write_all_at(&self.sent.to_le_bytes(), 0)?;
        }
        if self.panic_at.is_some_and(|at| self.sent >= at) {
            panic!("broken on purpose");
        }
        Ok(())
    }

    fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }
}

/// Shows a load until the view is left or a signal comes.
pub fn show(per_second: u64, panic_at: Option<u64>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        tracer::tui::run(Load::new(per_second, panic_at), &tracer::tui::Options::default(), stop).await
    })
}
