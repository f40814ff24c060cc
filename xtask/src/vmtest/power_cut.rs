//! The machine that records loses its power in the middle. After the next boot its disk must hold everything but the last
//! second of what was printed until then.

use super::record::survived;
use super::results::Output;
use super::{Steps, runner};
use crate::setup::{self, Part};
use crate::test::{Count, Line, matches};
use crate::vm::kernels;
use crate::vm::session::{Session, Sink};
use crate::vm::stock_modules;
use crate::{build, paths, process, ui};
use anyhow::{Context as _, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xtask_guest::message::Message;
use xtask_guest::plan::{CommandId, Plan};

const KERNELS: &[&str] = &["6.1"];
const NAME: &str = "power-cut";
/// What a disk needs in a kernel where everything is a module.
const DISK_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];
/// Size of the disk; most of it stays empty.
const DISK_BYTES: u64 = 32 << 20;
/// The recording has this size when the power goes.
const CUT_AT: usize = 20_000;
const TIMEOUT: Duration = Duration::from_secs(300);

/// Full names of the tests that match.
pub fn names(filter: Option<&str>) -> Vec<String> {
    let names = KERNELS.iter().map(|kernel| runner::full_name(kernel, "record", NAME));
    names.filter(|name| matches(filter, name)).collect()
}

/// Runs those that match.
pub fn run(filter: Option<&str>, count: &mut Count) {
    for kernel in KERNELS {
        let name = runner::full_name(kernel, "record", NAME);
        if matches(filter, &name) {
            count.add(&name, Line::from(cut(kernel)));
        }
    }
}

fn cut(name: &str) -> Result<()> {
    setup::ensure(&[Part::Machine, Part::Modules])?;
    let directory = paths::target().join("vm").join(format!("{name}-{NAME}"));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let disk = directory.join("disk.img");
    make_disk(&disk)?;
    let kernel = kernels::ensure(name, None)?;
    let mut modules = stock_modules::collect(&kernel, &DISK_MODULES.map(str::to_owned))?;
    modules.extend(crate::vm::module::build(
        &crate::vm::module::lockfault_source(),
        &kernel,
    )?);
    let session = Session {
        kernel,
        modules,
        holdup: Some(build::guest_holdup()?),
        script: None,
        cpus: 4,
        parallel: false,
        isolated: false,
        timeout: TIMEOUT,
        directory: directory.clone(),
        terminal: false,
        disk: Some(disk),
    };
    ui::step("recording until the power goes");
    let mut before = Steps::new(0, 0);
    before.shell("mount", "mkdir -p /disk && mount -t ext4 /dev/vda /disk");
    before.start_attached(
        "live",
        &["record", "-o", "/disk/c.holdup", "--json", "--tuples", "--all"],
    );
    before.trigger("contend-mutex ms=60000");
    before.shell(
        "cut",
        &format!(
            "{}; echo now; sleep 1000",
            super::record::grown("/disk/c.holdup", CUT_AT)
        ),
    );
    let cut_off = boot(&session, before, Some("cut"))?;
    ui::step("looking at what is left");
    let mut after = Steps::new(0, 0);
    after.shell("mount", "mkdir -p /disk && mount -t ext4 /dev/vda /disk");
    after.holdup("replay", &["replay", "/disk/c.holdup", "--json", "--tuples"]);
    let left = boot(&session, after, None)?;
    let output = |outputs: &BTreeMap<String, Output>, label: &str| -> Result<Output> {
        let output = outputs
            .get(label)
            .cloned()
            .with_context(|| format!("{label} said nothing"))?;
        output.save(&directory, label)?;
        Ok(output)
    };
    output(&left, "mount")?.exited_with(0)?;
    survived(&output(&cut_off, "live")?, &output(&left, "replay")?)
}

/// Makes an image with an empty ext4 file system.
pub(super) fn make_disk(path: &Path) -> Result<()> {
    std::fs::File::create(path)?.set_len(DISK_BYTES)?;
    let mkfs = process::which("mkfs.ext4").unwrap_or_else(|| PathBuf::from("/usr/sbin/mkfs.ext4"));
    process::run(Command::new(mkfs).args(["-q", "-F"]).arg(path))
}

/// Carries out the steps; with `until`, only until that command prints something: then the machine is gone.
fn boot(session: &Session, steps: Steps, until: Option<&str>) -> Result<BTreeMap<String, Output>> {
    let (job, labels, _) = steps.finish();
    let mut watch = Watch {
        outputs: BTreeMap::new(),
        until: until.and_then(|label| labels.get(label).copied()),
        error: None,
    };
    let plan = Plan {
        modules: Vec::new(),
        jobs: vec![job],
    };
    match (session.run(plan, &mut watch), until) {
        (Err(error), Some(_)) if error.is::<PowerCut>() => {}
        (Err(error), _) => return Err(error),
        (Ok(outcome), None) => {
            if let Some(problem) = outcome.problem().or(watch.error.take()) {
                bail!("{problem}\n-- console\n{}", outcome.console.tail(30));
            }
        }
        (Ok(outcome), Some(_)) => {
            let error = watch.error.unwrap_or_default();
            bail!(
                "the machine ended before its power was cut: {error}\n-- console\n{}",
                outcome.console.tail(30)
            );
        }
    }
    let mut outputs = watch.outputs;
    Ok(labels
        .into_iter()
        .filter_map(|(label, id)| Some((label, outputs.remove(&id)?)))
        .collect())
}

#[derive(Debug)]
struct PowerCut;

impl std::fmt::Display for PowerCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the power was cut")
    }
}

impl std::error::Error for PowerCut {}

struct Watch {
    outputs: BTreeMap<CommandId, Output>,
    until: Option<CommandId>,
    error: Option<String>,
}

impl Sink for Watch {
    fn message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Stdout(id, bytes) => {
                if self.until == Some(id) {
                    // Not a step of the guest: QEMU is killed, and with it everything that is not on the disk.
                    return Err(anyhow!(PowerCut));
                }
                self.outputs.entry(id).or_default().stdout.extend(bytes);
            }
            Message::Stderr(id, bytes) => self.outputs.entry(id).or_default().stderr.extend(bytes),
            Message::Exit(id, exit) => self.outputs.entry(id).or_default().exit = Some(exit),
            Message::JobEnd(_, end) => self.error = end.error,
            _ => {}
        }
        Ok(())
    }

    fn start_over(&mut self) -> bool {
        (self.outputs, self.error) = (BTreeMap::new(), None);
        true
    }
}
