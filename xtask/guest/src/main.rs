//! PID 1 of the test VM: sets up the machine, carries out the plan, gives one verdict, powers off.

mod channel;
mod commands;
mod console;
mod files;
mod machine;
mod modules;
mod port;
mod steps;
mod work;

use anyhow::{Context as _, Result};
use channel::Channel;
use xtask_guest::message::{Message, Verdict};
use xtask_guest::plan::{OUT_DIR, PLAN_PATH, Plan};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::process::id() != 1
        && let Some((first, rest)) = arguments.split_first()
        && first == "work"
    {
        if let Err(error) = work::run(rest) {
            eprintln!("xtask-guest: {error:#}");
        }
        std::process::exit(1);
    }
    if std::process::id() != 1 {
        eprintln!("xtask-guest is PID 1 of the test VM and does nothing elsewhere");
        std::process::exit(2);
    }
    // Before any other thread: they inherit the right to the ports.
    let channel = match port::Port::open() {
        Ok(port) => Channel::new(port),
        Err(error) => {
            // PID 1's end is a kernel panic, which the host recognises at once.
            eprintln!("xtask-guest: no channel to the host: {error}");
            std::process::exit(1);
        }
    };
    let mut jobs = 0;
    let error = carry_out(&channel, &mut jobs).err().map(|error| format!("{error:#}"));
    files::send_all(&channel);
    channel.send(&Message::Verdict(Verdict { jobs, error }));
    channel.power_off();
    // Only where QEMU was started without the exit device.
    let _ = machine::busybox(&["poweroff", "-f"]);
    loop {
        std::thread::park();
    }
}

fn carry_out(channel: &Channel, jobs: &mut usize) -> Result<()> {
    machine::set_up()?;
    channel.send(&Message::Hello(machine::hello()?));
    for directory in [OUT_DIR, "/root"] {
        std::fs::create_dir_all(directory).with_context(|| directory.to_owned())?;
    }
    let plan = std::fs::read(PLAN_PATH).context(PLAN_PATH)?;
    let plan: Plan = serde_json::from_slice(&plan).context(PLAN_PATH)?;
    for module in &plan.modules {
        if let Some(note) = modules::load(module)? {
            channel.note(note);
        }
    }
    for job in &plan.jobs {
        steps::run(job, channel);
        *jobs += 1;
    }
    Ok(())
}
