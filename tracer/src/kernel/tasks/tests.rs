//! A kernel of words with made-up offsets: threads, files, mounts and cgroups.

mod made_up;

use std::collections::HashMap;

use super::*;
use crate::event::{Argument, FileKind, TaskRef, TaskSample};
use crate::ids::{Tgid, Tid};

const TASK: u64 = 0xffff_8880_0010_0000;
const STACK: u64 = 0xffff_c900_0000_4000;
const STACK_SIZE: u64 = 0x4000;
const REGS: u64 = 168;

#[derive(Default)]
struct Rig {
    words: HashMap<u64, u64>,
    next: u64,
    runs: usize,
    /// What is read instead from the given run on.
    later: Option<(usize, u64, u64)>,
}

impl Memory for Rig {
    fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
        self.runs += 1;
        let value = |addr: &u64| match self.later {
            Some((run, at, value)) if self.runs >= run && at == *addr => Some(value),
            _ => self.words.get(addr).copied(),
        };
        Ok(addrs.iter().map(value).collect())
    }
}

/// As [`made_up::offsets`], with those of workers.
fn offsets() -> KernelOffsets {
    let mut o = made_up::offsets();
    o.task.kthread = Some(72);
    (o.worker.kthread_data, o.worker.task, o.worker.current_func) = (Some(24), Some(64), Some(16));
    (o.worker.current_pwq, o.workqueue.pwq_wq) = (Some(24), Some(8));
    (o.workqueue.name, o.workqueue.name_size) = (Some(0x108), Some(24));
    o
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            next: 0xffff_8880_4000_0000,
            ..Self::default()
        };
        // Started at 77, asleep (D), off its CPU, 5 + 2 switches.
        for (at, value) in [(8, 77), (16, 2), (24, 0), (32, 5), (40, 2), (48, STACK)] {
            rig.words.insert(TASK + at, value);
        }
        rig
    }

    fn object(&mut self) -> u64 {
        self.next += 0x1000;
        self.next
    }

    fn with(&mut self, words: &[(u64, u64)]) -> u64 {
        let at = self.object();
        self.words
            .extend(words.iter().map(|(offset, value)| (at + offset, *value)));
        at
    }

    /// A text at an odd address, where others may end up in memory.
    fn text(&mut self, text: &str) -> u64 {
        let at = self.object() + 3;
        let mut bytes = vec![b'#'; 3];
        bytes.extend(text.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(8), b'~');
        for (n, word) in (0u64..).zip(bytes.chunks_exact(8)) {
            let word = u64::from_ne_bytes(word.try_into().unwrap());
            self.words.insert(at - 3 + 8 * n, word);
        }
        at
    }

    fn regs(&mut self, padding: u64, number: u64, di: u64, cs: u64) {
        let at = STACK + STACK_SIZE - padding - REGS;
        for (offset, value) in [(112, di), (120, number), (128, 0x40_1000), (136, cs), (160, 0x2b)] {
            self.words.insert(at + offset, value);
        }
    }

    fn dentry(&mut self, name: &str, parent: Option<u64>) -> u64 {
        let text = self.text(name);
        let dentry = self.with(&[(40, text), (36, name.len() as u64 | 0xabcd_0000_0000)]);
        self.words.insert(dentry + 24, parent.unwrap_or(dentry));
        dentry
    }

    /// A mount of `root`, on `point` of another mount.
    fn mount(&mut self, root: u64, on: Option<(u64, u64)>) -> u64 {
        let mount = self.with(&[(32, root)]);
        let (parent, point) = on.unwrap_or((mount, root));
        self.words.insert(mount + 16, parent);
        self.words.insert(mount + 24, point);
        mount
    }

    /// A file of descriptor 3.
    fn file(&mut self, fs: &str, mode: u64, dentry: u64, mount: u64) {
        let name = self.text(fs);
        let fs_type = self.with(&[(0, name)]);
        let sb = self.with(&[(40, fs_type)]);
        let inode = self.with(&[(0, mode | 0xffff_0000), (40, sb), (64, 4711)]);
        let file = self.with(&[(16, inode), (24, mount + 32), (32, dentry)]);
        let array = self.with(&[(8 * 3, file), (8 * 4, 0)]);
        let table = self.with(&[(0, 0xeeee_0000_0000 | 64), (8, array)]);
        let files = self.with(&[(32, table)]);
        self.words.insert(TASK + 56, files);
    }

    /// `/dev/disk/x` on a file system of its own, mounted on `/dev`.
    fn device(&mut self) {
        let root = self.dentry("/", None);
        let point = self.dentry("dev", Some(root));
        let all = self.mount(root, None);
        let dev_root = self.dentry("/", None);
        let dev = self.mount(dev_root, Some((all, point)));
        let dir = self.dentry("disk", Some(dev_root));
        let leaf = self.dentry("x", Some(dir));
        self.file("devtmpfs", 0o020_644, leaf, dev);
    }

    fn look(&mut self, met: Met) -> (Option<Activity>, Option<String>) {
        let mut facts = TaskFacts::new(offsets());
        let mut out = vec![sample(met)];
        facts.describe(&[met], self, Timestamp(100), 0, &mut out).unwrap();
        let activity = out.iter().find_map(|event| match &event.body {
            Body::Doing(doing) => Some(doing.activity.clone()),
            _ => None,
        });
        let path = out.iter().find_map(|event| match &event.body {
            Body::CgroupName(name) => Some(name.path.to_string()),
            _ => None,
        });
        (activity, path)
    }
}

fn met() -> Met {
    Met {
        key: TaskKey {
            tid: Tid(42),
            start: Timestamp(77),
        },
        task: TASK,
        flags: 0,
        asleep: Some(7),
        cgroup: CgroupId(0),
    }
}

fn sample(met: Met) -> Event {
    let task = TaskRef {
        key: met.key,
        tgid: Tgid(42),
        comm: "t".into(),
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

fn syscall(number: u32, name: Option<&str>, argument: Argument) -> Option<Activity> {
    Some(Activity::Syscall {
        number,
        name: name.map(Into::into),
        argument,
    })
}

#[test]
fn a_system_call_is_read_from_the_saved_registers_with_and_without_fred() {
    for padding in [0, 16] {
        let mut rig = Rig::new();
        rig.regs(padding, 16, 3, 0x33);
        rig.device();
        let file = Argument::File {
            kind: FileKind::CharDevice,
            path: "/dev/disk/x".into(),
        };
        assert_eq!(rig.look(met()).0, syscall(16, Some("ioctl"), file), "padding {padding}");
    }
}

#[test]
fn arguments_are_told_by_their_class() {
    let at_fdcwd = u64::from((-100i32).cast_unsigned());
    let cases = [
        (16, 4, Some("ioctl"), Argument::Descriptor { number: 4 }),
        (16, 64, Some("ioctl"), Argument::Descriptor { number: 64 }),
        (16, u64::MAX, Some("ioctl"), Argument::Descriptor { number: u32::MAX }),
        (257, at_fdcwd, Some("openat"), Argument::Path),
        (257, 0xffff_ffff_0000_0000 | at_fdcwd, Some("openat"), Argument::Path),
        (87, 0x7fff_0000, Some("unlink"), Argument::Path),
        (11, 0x7fff_0000, Some("munmap"), Argument::Address),
        (39, 0, Some("getpid"), Argument::Other),
        (99_999, 0, None, Argument::Other),
    ];
    for (number, di, name, argument) in cases {
        let mut rig = Rig::new();
        rig.regs(0, number, di, 0x33);
        rig.device();
        assert_eq!(rig.look(met()).0, syscall(number as u32, name, argument), "{number}");
    }
    let mut rig = Rig::new();
    rig.regs(0, 0x4000_0000 | 39, 0, 0x33);
    assert_eq!(rig.look(met()).0, syscall(39, Some("getpid"), Argument::Other), "x32");
    let mut rig = Rig::new();
    rig.regs(0, 54, 3, 0x23);
    assert_eq!(
        rig.look(met()).0,
        syscall(54, None, Argument::Other),
        "i386 has other numbers"
    );
}

#[test]
fn faults_and_threads_without_user_space_are_no_system_calls() {
    let mut rig = Rig::new();
    rig.regs(0, u64::MAX, 3, 0x33);
    assert_eq!(rig.look(met()).0, Some(Activity::Exception));
    for flags in [0x20_0000, 0x10] {
        let mut rig = Rig::new();
        rig.regs(0, 16, 3, 0x33);
        assert_eq!(rig.look(Met { flags, ..met() }).0, None, "flags {flags:#x}");
    }
    // Not the selectors of user space, no place to return to, no registers at all.
    let mut rig = Rig::new();
    rig.regs(0, 16, 3, 0x10);
    assert_eq!(rig.look(met()).0, None);
    rig.regs(0, 16, 3, 0x33);
    rig.words.insert(STACK + STACK_SIZE - REGS + 128, 0);
    assert_eq!(rig.look(met()).0, None);
    assert_eq!(Rig::new().look(met()).0, None);
}

#[test]
fn files_without_a_path_have_the_names_of_proc() {
    let cases = [
        ("pipefs", 0o010_600, FileKind::Pipe, "pipe:[4711]"),
        ("sockfs", 0o140_777, FileKind::Socket, "socket:[4711]"),
        ("anon_inodefs", 0o000_600, FileKind::Anonymous, "anon_inode:[eventfd]"),
    ];
    for (fs, mode, kind, path) in cases {
        let mut rig = Rig::new();
        rig.regs(0, 0, 3, 0x33);
        let root = rig.dentry("/", None);
        let mount = rig.mount(root, None);
        let dentry = rig.dentry("[eventfd]", None);
        rig.file(fs, mode, dentry, mount);
        let path = path.into();
        assert_eq!(
            rig.look(met()).0,
            syscall(0, Some("read"), Argument::File { kind, path }),
            "{fs}"
        );
    }
}

#[test]
fn paths_that_do_not_end_are_cut_and_control_characters_are_not_passed_on() {
    let mut rig = Rig::new();
    rig.regs(0, 0, 3, 0x33);
    let root = rig.dentry("/", None);
    let mount = rig.mount(root, None);
    let stray = rig.dentry("/", None);
    let leaf = rig.dentry("a\x1b[2Jb", Some(stray));
    rig.file("ext4", 0o100_644, leaf, mount);
    let (kind, path) = (FileKind::Regular, ".../a\u{fffd}[2Jb".into());
    assert_eq!(
        rig.look(met()).0,
        syscall(0, Some("read"), Argument::File { kind, path })
    );
    // A circle of directories.
    rig.words.insert(stray + 24, leaf);
    let Some(Activity::Syscall {
        argument: Argument::File { path, .. },
        ..
    }) = rig.look(met()).0
    else {
        panic!("no file");
    };
    assert!(path.starts_with("...//") && path.len() < 1000, "{path}");
    assert!(rig.runs < 400, "{} runs", rig.runs);
}

#[test]
fn a_worker_tells_its_work_if_it_is_its_own_worker() {
    let mut rig = Rig::new();
    let name = rig.object() & !7;
    rig.words.insert(name + 0x108, u64::from_ne_bytes(*b"lf_queue"));
    rig.words.insert(name + 0x110, 0);
    rig.words.insert(name + 0x118, 0);
    rig.words.insert(name + 0x120, 0);
    let pwq = rig.with(&[(8, name)]);
    let worker = rig.with(&[(16, 0xffff_ffff_8100_0000), (24, pwq), (64, TASK)]);
    let kthread = rig.with(&[(24, worker)]);
    rig.words.insert(TASK + 72, kthread);
    let of_worker = Met {
        flags: 0x20_0020,
        ..met()
    };
    let work = Activity::Work {
        function: KernelAddr(0xffff_ffff_8100_0000),
        workqueue: Some("lf_queue".into()),
    };
    assert_eq!(rig.look(of_worker).0, Some(work));
    // Whoever is awake may go on to other work: only the sample of the moment says what it does.
    let mut facts = TaskFacts::new(offsets());
    let running = Met {
        asleep: None,
        ..of_worker
    };
    let mut out = vec![sample(running)];
    facts
        .describe(&[running], &mut rig, Timestamp(100), 0, &mut out)
        .unwrap();
    let [
        Event {
            body: Body::Task(task), ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!(task.work, Some(KernelAddr(0xffff_ffff_8100_0000)));
    rig.words.insert(worker + 64, TASK + 0x40);
    assert_eq!(rig.look(of_worker).0, None, "the worker of another thread");
    rig.words.insert(worker + 64, TASK);
    rig.words.insert(worker + 16, 0);
    assert_eq!(rig.look(of_worker).0, None, "nothing to do");
}

#[test]
fn cgroups_are_named_from_their_directories() {
    let mut rig = Rig::new();
    let root_name = rig.text("");
    let root = rig.with(&[(8, 0), (16, root_name), (96, 1)]);
    let slice_name = rig.text("system.slice");
    let slice = rig.with(&[(8, root), (16, slice_name), (96, 20)]);
    // Longer than what is fetched at a time.
    let long = format!("docker-{}.scope", "0123456789abcdef".repeat(4));
    let scope_name = rig.text(&long);
    let scope = rig.with(&[(8, slice), (16, scope_name), (96, 21)]);
    let cgroup = rig.with(&[(256, scope)]);
    let css_set = rig.with(&[(128, cgroup)]);
    rig.words.insert(TASK + 64, css_set);
    let of = |id| Met {
        cgroup: CgroupId(id),
        ..met()
    };
    assert_eq!(rig.look(of(21)).1, Some(format!("/system.slice/{long}")));
    assert_eq!(rig.look(of(22)).1, None, "it has moved to another cgroup meanwhile");
    rig.words.insert(cgroup + 256, root);
    assert_eq!(rig.look(of(1)).1.as_deref(), Some("/"));
    rig.words.insert(cgroup + 256, scope);
    rig.words.insert(root + 8, scope);
    assert_eq!(rig.look(of(21)).1, None, "a circle");
}

#[test]
fn who_has_run_meanwhile_is_not_told_of() {
    let settled = |at: u64, value: u64| {
        let mut rig = Rig::new();
        rig.regs(0, 39, 0, 0x33);
        rig.look(met()).0.expect("it sleeps");
        // The last run is the one that checks.
        rig.later = Some((2 * rig.runs, TASK + at, value));
        rig.look(met()).0
    };
    for (at, value, what) in [
        (16, 0, "woken"),
        (24, 1, "running"),
        (32, 6, "switched"),
        (8, 78, "another"),
    ] {
        assert_eq!(settled(at, value), None, "{what}");
    }
    assert!(settled(300, 0).is_some());
}

#[test]
fn a_sleeper_is_looked_at_once_until_it_has_run_or_time_has_passed() {
    let mut rig = Rig::new();
    rig.regs(0, 39, 0, 0x33);
    let mut facts = TaskFacts::new(offsets());
    let mut told = |rig: &mut Rig, met: Met, now: u64| {
        let before = rig.runs;
        let mut out = vec![sample(met), sample(met)];
        facts.describe(&[met, met], rig, Timestamp(now), 0, &mut out).unwrap();
        let order: Vec<bool> = out.iter().map(|event| matches!(event.body, Body::Doing(_))).collect();
        (order, rig.runs > before)
    };
    // Told once, behind the last sample.
    assert_eq!(told(&mut rig, met(), 100), (vec![false, false, true], true));
    assert_eq!(told(&mut rig, met(), 200), (vec![false, false], false));
    rig.words.insert(TASK + 32, 6);
    let switched = Met {
        asleep: Some(8),
        ..met()
    };
    assert_eq!(told(&mut rig, switched, 300), (vec![false, false, true], true));
    assert_eq!(
        told(&mut rig, switched, 300 + AGAIN_AFTER.0),
        (vec![false, false, true], true)
    );
}

#[test]
fn a_kernel_without_these_fields_tells_nothing() {
    let mut rig = Rig::new();
    rig.regs(0, 16, 3, 0x33);
    let mut out = vec![sample(met())];
    let mut facts = TaskFacts::new(KernelOffsets::default());
    facts.describe(&[met()], &mut rig, Timestamp(100), 0, &mut out).unwrap();
    assert_eq!(out, [sample(met())]);
}
