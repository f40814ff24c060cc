//! File and line of frames in a module, from the module's own file with debug information.
//!
//! In the boot of the snapshots, behind the process whose address space is stuck.

use super::VmTest;
use super::snapshot::check::whole;
use crate::paths;
use anyhow::{Context as _, Result, ensure};

pub const TESTS: &[VmTest] = &[VmTest {
    name: "module-lines",
    kernels: &["6.1", "6.12"],
    group: "snapshot",
    expects: &[],
    steps: |steps| {
        steps.holdup("lines", &["snapshot", "--module-debug=/modules", "--json"]);
        steps.shell(
            "pack",
            "mkdir -p /tmp/packed && gzip -c /modules/lockfault.ko > /tmp/packed/lockfault.ko.gz",
        );
        steps.holdup("lines-packed", &["snapshot", "--module-debug=/tmp/packed", "--json"]);
        steps.holdup("lines-off", &["snapshot", "--json"]);
    },
    check: |run| {
        let place = |label: &str| -> Result<(Option<String>, Option<u64>)> {
            let report = whole(run, label)?;
            let stacks = report["stacks"].as_object().context("no stacks")?;
            let frames = stacks.values().filter_map(|frames| frames.as_array()).flatten();
            let mut calls = frames.filter(|frame| frame["symbol"] == "lockfault_mmap_lock_holder");
            let call = calls.next().with_context(|| format!("{report:#}"))?;
            Ok((call["file"].as_str().map(str::to_owned), call["line"].as_u64()))
        };
        ensure!(place("lines-off")? == (None, None), "nobody asked for it");
        let (Some(file), Some(line)) = place("lines")? else {
            anyhow::bail!("no file or no line");
        };
        run.output("pack")?.exited_with(0)?;
        ensure!(
            place("lines-packed")? == (Some(file.clone()), Some(line)),
            "not by the compressed file"
        );
        // The line of the source calls what stands further in on the stack.
        ensure!(file.ends_with("/mmap_lock.c"), "{file}:{line}");
        let source = std::fs::read_to_string(paths::root().join("xtask/lockfault/mmap_lock.c"))?;
        let index = usize::try_from(line)?.checked_sub(1).context("line 0")?;
        let text = source.lines().nth(index).with_context(|| format!("{file}:{line}"))?;
        ensure!(text.contains("lockfault_mmap_fake_block_io("), "{file}:{line}: {text}");
        Ok(())
    },
}];
