//! Loads kernel modules, and waits until the kernel is done with them.

use crate::machine::busybox;
use crate::steps::POLL;
use anyhow::{Context as _, Result};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// For the kernel to free a module's initialisation part: a grace period and a work item, long only if CPUs are busy.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Loads one module. Returns what is worth a note.
///
/// The kernel frees the initialisation part later, from a work item (`do_free_init`, kernel/module/main.c), which
/// interrupts all CPUs to flush their TLBs. If a scenario has stopped a CPU by then, the work item takes a second one
/// down with it. So this waits for it.
///
/// # Errors
/// The kernel refuses the module.
pub fn load(path: &str) -> Result<Option<String>> {
    busybox(&["insmod", path]).with_context(|| format!("loading {path}"))?;
    let file = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    let name = file.replace('-', "_");
    let _addresses_are_shown = KptrRestrict::set("1");
    let addresses = init_sections(&name);
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let ranges = std::fs::read_to_string("/proc/vmallocinfo")
            .map(|text| ranges(&text))
            .unwrap_or_default();
        if !addresses
            .iter()
            .any(|address| ranges.iter().any(|range| range.contains(address)))
        {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(format!(
                "the initialisation part of {name} is still there after {SETTLED_WITHIN:?}"
            )));
        }
        std::thread::sleep(POLL);
    }
}

/// `kptr_restrict`, put back when dropped. With 0, the usual value, `/proc/vmallocinfo` shows hashes to everybody; with
/// 1, addresses to root (`%pK`, Documentation/core-api/printk-formats.rst).
struct KptrRestrict(String);

impl KptrRestrict {
    const PATH: &str = "/proc/sys/kernel/kptr_restrict";

    fn set(value: &str) -> Option<Self> {
        let before = std::fs::read_to_string(Self::PATH).ok()?;
        std::fs::write(Self::PATH, value).ok()?;
        Some(Self(before))
    }
}

impl Drop for KptrRestrict {
    fn drop(&mut self) {
        // It was writable a moment ago.
        let _ = std::fs::write(Self::PATH, &self.0);
    }
}

/// Where the parts lie that are freed after loading.
fn init_sections(module: &str) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/sys/module/{module}/sections")) else {
        return Vec::new();
    };
    let init = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(".init"));
    init.filter_map(|entry| hexadecimal(std::fs::read_to_string(entry.path()).ok()?.trim()))
        .collect()
}

/// The areas of `/proc/vmallocinfo`: lines like `0xffffffffc0000000-0xffffffffc0005000   20480 caller ...`.
fn ranges(text: &str) -> Vec<Range<u64>> {
    let area = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(hexadecimal(start)?..hexadecimal(end)?)
    };
    text.lines().filter_map(area).collect()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_read() {
        let text = "0xffffffffc0000000-0xffffffffc0005000   20480 load_module+0x1/0x2 pages=4\nnonsense\n0x1-x 1\n";
        let areas = ranges(text);
        assert_eq!(areas.len(), 1, "{areas:x?}");
        assert_eq!(areas[0].start, 0xffff_ffff_c000_0000);
        assert!(areas[0].contains(&0xffff_ffff_c000_4fff) && !areas[0].contains(&0xffff_ffff_c000_5000));
    }
}
