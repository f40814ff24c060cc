//! What it costs to find out what threads are about, without the kernel's part of it.
//!
//! `cargo bench -p tracer --bench tasks`

#![allow(clippy::expect_used, reason = "a benchmark fails by panicking")]

#[path = "../src/kernel/tasks/tests/made_up.rs"]
mod made_up;

use std::collections::HashMap;

use divan::Bencher;
use tracer::event::{Body, Event, TaskRef, TaskSample, TaskState};
use tracer::ids::{CgroupId, TaskKey, Tgid, Tid, Timestamp};
use tracer::kernel::offsets::KernelOffsets;
use tracer::kernel::stackscan::Memory;
use tracer::kernel::tasks::{Met, TaskFacts};

/// Threads asleep in `read` of a file six directories deep, in ten cgroups.
const TASKS: u32 = 1_500;
const CGROUPS: u64 = 10;

fn main() {
    divan::main();
}

#[derive(Default)]
struct Kernel {
    words: HashMap<u64, u64>,
    next: u64,
    met: Vec<Met>,
    events: Vec<Event>,
}

impl Memory for Kernel {
    fn read(&mut self, addrs: &[u64]) -> anyhow::Result<Vec<Option<u64>>> {
        Ok(addrs.iter().map(|addr| self.words.get(addr).copied()).collect())
    }
}

impl Kernel {
    fn with(&mut self, words: &[(u64, u64)]) -> u64 {
        self.next += 0x1000;
        let at = 0xffff_8880_0000_0000 + self.next;
        self.words
            .extend(words.iter().map(|(offset, value)| (at + offset, *value)));
        at
    }

    fn text(&mut self, text: &str) -> u64 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize((bytes.len() + 1).next_multiple_of(32), 0);
        let words = (0u64..).zip(bytes.chunks_exact(8));
        let words: Vec<(u64, u64)> = words
            .map(|(n, word)| (8 * n, u64::from_ne_bytes(word.try_into().expect("eight bytes"))))
            .collect();
        self.with(&words)
    }

    fn dentry(&mut self, name: &str, parent: Option<u64>) -> u64 {
        let text = self.text(name);
        let dentry = self.with(&[(40, text), (36, name.len() as u64)]);
        self.words.insert(dentry + 24, parent.unwrap_or(dentry));
        dentry
    }

    fn new() -> Self {
        let mut kernel = Self::default();
        let root = kernel.dentry("/", None);
        let mount = kernel.with(&[(24, root), (32, root)]);
        kernel.words.insert(mount + 16, mount);
        let dir = (0..6).fold(root, |above, n| kernel.dentry(&format!("directory-{n}"), Some(above)));
        let fs = kernel.text("ext4");
        let fs_type = kernel.with(&[(0, fs)]);
        let sb = kernel.with(&[(40, fs_type)]);
        let (root_name, slice_name) = (kernel.text(""), kernel.text("system.slice"));
        let top = kernel.with(&[(8, 0), (16, root_name), (96, 1)]);
        let slice = kernel.with(&[(8, top), (16, slice_name), (96, 2)]);
        let css_sets: Vec<u64> = (0..CGROUPS)
            .map(|n| {
                let name = kernel.text(&format!("service-{n}.service"));
                let node = kernel.with(&[(8, slice), (16, name), (96, 100 + n)]);
                let cgroup = kernel.with(&[(256, node)]);
                kernel.with(&[(128, cgroup)])
            })
            .collect();
        for tid in 1..=TASKS {
            let leaf = kernel.dentry(&format!("file-{tid}"), Some(dir));
            let inode = kernel.with(&[(0, 0o100_644), (40, sb), (64, 7)]);
            let file = kernel.with(&[(16, inode), (24, mount + 32), (32, leaf)]);
            let array = kernel.with(&[(24, file)]);
            let table = kernel.with(&[(0, 64), (8, array)]);
            let files = kernel.with(&[(32, table)]);
            let stack = 0xffff_c900_0000_0000 + 0x8000 * u64::from(tid);
            let regs = stack + 0x4000 - 168;
            for (offset, value) in [(112, 3), (120, 0), (128, 0x40_1000), (136, 0x33), (160, 0x2b)] {
                kernel.words.insert(regs + offset, value);
            }
            let cgroup = u64::from(tid) % CGROUPS;
            let css_set = css_sets
                .get(usize::try_from(cgroup).expect("small"))
                .copied()
                .expect("a cgroup");
            let task = kernel.with(&[(8, 77), (16, 2), (24, 0), (32, 5), (40, 2)]);
            for (offset, value) in [(48, stack), (56, files), (64, css_set)] {
                kernel.words.insert(task + offset, value);
            }
            let key = TaskKey {
                tid: Tid(tid),
                start: Timestamp(77),
            };
            let met = Met {
                key,
                task,
                flags: 0,
                asleep: Some(7),
                cgroup: CgroupId(100 + cgroup),
            };
            kernel.events.push(sample(&met));
            kernel.met.push(met);
        }
        kernel
    }
}

fn sample(met: &Met) -> Event {
    let task = TaskRef {
        key: met.key,
        tgid: Tgid(met.key.tid.0),
        comm: "task".into(),
    };
    Event {
        time: Timestamp(90),
        body: Body::Task(TaskSample {
            switches: met.asleep,
            cgroup: met.cgroup,
            ..TaskSample::of(task, TaskState::Uninterruptible)
        }),
    }
}

/// The first look at all of them.
#[divan::bench]
fn first_look_at_1500_tasks(bencher: Bencher<'_, '_>) {
    let mut kernel = Kernel::new();
    bencher.bench_local(|| {
        let mut facts = TaskFacts::new(made_up::offsets());
        let (met, mut out) = (kernel.met.clone(), kernel.events.clone());
        facts
            .describe(&met, &mut kernel, Timestamp(100), 0, &mut out)
            .expect("memory that can be read");
        assert_eq!(out.len(), 2 * met.len() + usize::try_from(CGROUPS).expect("small"));
        out.len()
    });
}

/// A round in which all of them sleep on.
#[divan::bench]
fn round_over_1500_sleepers(bencher: Bencher<'_, '_>) {
    let mut kernel = Kernel::new();
    let mut facts = TaskFacts::new(made_up::offsets());
    let met = kernel.met.clone();
    facts
        .describe(&met, &mut kernel, Timestamp(100), 0, &mut kernel_events(&met))
        .expect("memory that can be read");
    bencher.bench_local(|| {
        let mut out = kernel_events(&met);
        facts
            .describe(&met, &mut kernel, Timestamp(200), 0, &mut out)
            .expect("memory that can be read");
        assert_eq!(out.len(), met.len());
        out.len()
    });
}

fn kernel_events(met: &[Met]) -> Vec<Event> {
    met.iter().map(sample).collect()
}
