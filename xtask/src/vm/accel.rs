//! KVM where it really works, emulation elsewhere.

use super::boot::{self, Machine};
use super::initramfs::{self, Content};
use super::kernels::Kernel;
use super::qemu::Accelerator;
use crate::{build, paths, ui};
use anyhow::Result;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;
use xtask_guest::plan::Plan;

/// A kernel under KVM needs about a second to reach PID 1.
const TRIAL: Duration = Duration::from_secs(8);
/// Forces the choice: `kvm` or `tcg`.
const FORCE: &str = "HOLDUP_VM_ACCEL";

/// What to run this kernel with. A `/dev/kvm` that opens proves little (nested ones fail in the middle of a boot), so
/// it has to boot the kernel to its end once; the result is kept for as long as the host is up.
///
/// # Errors
/// The trial could not be prepared; its failure is no error but means emulation.
pub fn choose(kernel: &Kernel) -> Result<Accelerator> {
    match std::env::var(FORCE).as_deref() {
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok("tcg") => return Ok(Accelerator::Tcg),
        Ok(other) => anyhow::bail!("{FORCE}={other}: must be kvm or tcg"),
        Err(_) => {}
    }
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let note = note_path(kernel)?;
    match std::fs::read_to_string(&note).as_deref().map(str::trim) {
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok("tcg") => return Ok(Accelerator::Tcg),
        _ => {}
    }
    let works = trial(kernel)?;
    std::fs::write(&note, if works { "kvm" } else { "tcg" })?;
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

fn trial(kernel: &Kernel) -> Result<bool> {
    let _long = ui::long(format!(
        "trying KVM with {} (at most {} s, once per host boot)",
        kernel.release,
        TRIAL.as_secs()
    ));
    let directory = tempfile::tempdir()?;
    let init = build::guest_init()?;
    let plan = Plan::default();
    let content = Content {
        init: &init,
        holdup: None,
        modules: &[],
        script: None,
    };
    let machine = Machine {
        kernel: &kernel.image,
        initramfs: initramfs::build(&content, &plan)?,
        accelerator: Accelerator::Kvm,
        cpus: 2,
        isolated: false,
        memory_mib: 512,
        timeout: TRIAL,
        directory: directory.path().to_owned(),
        terminal: false,
        disk: None,
    };
    let outcome = boot::run(&machine, &mut |_| Ok(()));
    let works = match outcome {
        Ok(outcome) => outcome.problem().is_none(),
        Err(error) if error.is::<boot::Interrupted>() => return Err(error),
        Err(_) => false,
    };
    ui::step(if works {
        "KVM works"
    } else {
        "KVM does not boot this kernel; using emulation"
    });
    Ok(works)
}

fn note_path(kernel: &Kernel) -> Result<PathBuf> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let directory = paths::cache()?.join("kvm");
    std::fs::create_dir_all(&directory)?;
    Ok(directory.join(format!("{}-{}", boot.trim(), kernel.release)))
}
