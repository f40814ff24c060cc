//! QEMU's command line, and the process on a short leash.

use super::boot::Machine;
use crate::process;
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use xtask_guest::plan::{CHANNEL_PORT, EXIT_PORT};

const QEMU: &str = "qemu-system-x86_64";

/// How the guest's CPUs come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// Emulation, all CPUs in one thread. Multi-threaded emulation races with the kernel patching its own text (static
    /// keys, kprobes): two of 17 boots of 6.12 died of it; of 12 in one thread, none.
    Tcg,
    /// Emulation, a thread for each CPU: true parallelism, at that risk.
    TcgParallel,
}

impl Accelerator {
    fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=single",
            Self::TcgParallel => "tcg,thread=multi",
        }
    }
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulation, one thread",
            Self::TcgParallel => "emulation, parallel",
        })
    }
}

/// File names in a machine's directory.
pub const CONSOLE: &str = "console.log";
pub const CHANNEL: &str = "channel.bin";
pub const INITRAMFS: &str = "initramfs.cpio";

/// Arguments for a machine.
pub fn arguments(machine: &Machine<'_>) -> Vec<String> {
    let Machine {
        kernel,
        initramfs: _,
        accelerator,
        cpus,
        isolated,
        memory_mib,
        timeout: _,
        directory,
        terminal,
        disk,
    } = machine;
    let at = |name: &str| quoted(&directory.join(name));
    // `loglevel=5`: warnings, too, must reach the console, where they are looked for.
    // `panic=-1` with -no-reboot: a panic ends QEMU at once.
    let mut append = "console=ttyS0 loglevel=5 panic=-1".to_owned();
    if *isolated && *cpus > 1 {
        // khugepaged asks every CPU for an interrupt now and then (lru_add_drain_all, TLB flushes), and with a lost CPU it would
        // keep CPU 0, with preemption off, for ever.
        append.push_str(&format!(
            " isolcpus=1-{} irqaffinity=0 transparent_hugepage=never",
            cpus - 1
        ));
    }
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    // Without the hypervisor bit the guest takes the queued-spinlock path of real machines; with it, x86 guests fall to
    // test-and-set, and spinlock contention is never reported.
    add(&["-accel", accelerator.argument(), "-cpu", "max,-hypervisor"]);
    add(&["-smp", &cpus.to_string(), "-m", &format!("{memory_mib}M")]);
    add(&[
        "-kernel",
        &kernel.to_string_lossy(),
        "-initrd",
        &directory.join(INITRAMFS).to_string_lossy(),
    ]);
    add(&["-append", &append]);
    let (console, channel) = if *terminal {
        // The terminal is the console. Ctrl-A X ends QEMU, Ctrl-A C opens its monitor.
        let console = format!("stdio,id=console,mux=on,signal=off,logfile={}", at(CONSOLE));
        add(&["-mon", "chardev=console,mode=readline"]);
        (console, format!("file,id=channel,path={}", at(CHANNEL)))
    } else {
        (
            format!("file,id=console,path={}", at(CONSOLE)),
            "stdio,id=channel,signal=off".to_owned(),
        )
    };
    add(&["-chardev", &console, "-serial", "chardev:console"]);
    add(&[
        "-chardev",
        &channel,
        "-device",
        &format!("isa-debugcon,iobase={CHANNEL_PORT:#x},chardev=channel"),
    ]);
    add(&["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x04")]);
    if let Some(disk) = disk {
        add(&["-drive", &format!("if=none,id=disk,format=raw,file={}", quoted(disk))]);
        add(&["-device", "virtio-blk-pci,drive=disk"]);
    }
    arguments
}

/// In QEMU's option lists a comma inside a value is doubled.
fn quoted(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A running QEMU. Dropping it kills it.
pub struct Qemu(Child);

impl Qemu {
    /// Starts QEMU. Its end is tied to the calling thread's where `setpriv` is there, so that not even SIGKILL to this
    /// program leaves it running.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(machine: &Machine<'_>) -> Result<Self> {
        let mut command = match process::which("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--", QEMU]);
                command
            }
            None => Command::new(QEMU),
        };
        command.args(arguments(machine));
        if machine.terminal {
            command
                .stdin(Stdio::inherit())
                .stdout(Stdio::inherit())
                .stderr(Stdio::inherit());
        } else {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        }
        Ok(Self(command.spawn().with_context(|| format!("cannot start {QEMU}"))?))
    }

    /// The channel's bytes and QEMU's own words; not for a machine on the terminal.
    pub fn take_pipes(&mut self) -> (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>) {
        (self.0.stdout.take(), self.0.stderr.take())
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// `waitpid` failed.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    fn line(accelerator: Accelerator, terminal: bool, directory: &str) -> String {
        let machine = Machine {
            kernel: Path::new("/k/vmlinuz"),
            initramfs: Vec::new(),
            accelerator,
            cpus: 4,
            isolated: false,
            memory_mib: 1024,
            timeout: Duration::ZERO,
            directory: PathBuf::from(directory),
            terminal,
            disk: None,
        };
        arguments(&machine).join(" ")
    }

    #[test]
    fn guests_take_the_paths_of_real_machines() {
        let single = line(Accelerator::Tcg, false, "/d");
        assert!(
            single.contains("-accel tcg,thread=single -cpu max,-hypervisor -smp 4 -m 1024M"),
            "{single}"
        );
        assert!(line(Accelerator::TcgParallel, false, "/d").contains("-accel tcg,thread=multi"));
        assert!(line(Accelerator::Kvm, false, "/d").contains("-accel kvm -cpu max,-hypervisor"));
    }

    #[test]
    fn console_and_channel_never_share_a_stream() {
        let batch = line(Accelerator::Tcg, false, "/d,e");
        assert!(batch.contains("file,id=console,path=/d,,e/console.log"), "{batch}");
        assert!(batch.contains("stdio,id=channel"), "{batch}");
        let terminal = line(Accelerator::Tcg, true, "/d");
        assert!(
            terminal.contains("stdio,id=console,mux=on,signal=off,logfile=/d/console.log"),
            "{terminal}"
        );
        assert!(terminal.contains("file,id=channel,path=/d/channel.bin"), "{terminal}");
    }
}
