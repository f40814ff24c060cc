//! The `vm` subcommand: its arguments, the plan they mean, and what goes back to the user.

use super::boot::Outcome;
use super::console::Marker;
use super::files::Returned;
use super::initramfs;
use super::kernels;
use super::module;
use super::scenarios::{self, SCENARIOS, Scenario};
use super::session::{Session, Sink};
use super::stock_modules;
use super::terminal::Terminal;
use crate::setup::{self, Part};
use crate::{build, paths, ui};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use xtask_guest::message::{Exit, Message, Status};
use xtask_guest::plan::{Command, CommandId, Job, JobId, Plan, Ready, Step};

/// What holdup prints on standard error once its probes are active.
pub const ATTACHED: &str = "holdup: attached";
/// Exit code if the machine failed, whatever holdup said.
const FAILED: u8 = 125;
/// Exit code if the command had to be stopped.
const TIMED_OUT: u8 = 124;
/// Longest time that can be asked for: 30 days, in seconds.
const LONGEST: i64 = 30 * 86_400;
/// For probes to be attached, under emulation on a busy host.
pub const READY_WITHIN_MS: u64 = 120_000;
/// For a scenario to be established; the module itself gives up after 60 s of guest time.
pub const ESTABLISHED_WITHIN_MS: u64 = 120_000;

/// The command whose output and exit code become ours.
const MAIN: CommandId = CommandId(0);
/// The user's script where it only accompanies holdup.
const SCRIPT: CommandId = CommandId(1);

/// When holdup starts, seen from the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// holdup's probes are active, then the kernel is broken.
    Before,
    /// The kernel is broken, then holdup starts.
    After,
}

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Stock kernel (see `vm list`), or the path of a kernel image of your own
    #[arg(long, default_value = "6.1", value_name = "NAME|PATH")]
    kernel: String,
    /// Build directory for modules of a kernel of your own
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// How to break the kernel (see `vm list`); parameters may follow the name: "rwsem-reader-io readers=1500"
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Whether holdup attaches before or after the scenario (or, with holdup arguments, the guest script)
    #[arg(long, value_enum, default_value = "after")]
    attach: Attach,
    /// Build and load the out-of-tree kernel modules in this directory; may be repeated
    #[arg(long, value_name = "DIR")]
    module: Vec<PathBuf>,
    /// Load a module of the kernel's own (with what it depends on) first; may be repeated
    #[arg(long, value_name = "NAME")]
    stock_module: Vec<String>,
    /// Run this shell script in the guest, with holdup on its PATH; what it leaves in /out comes back (--out)
    #[arg(long, value_name = "FILE")]
    guest_script: Option<PathBuf>,
    /// Seconds for the guest's commands, booting comes on top [default: 300; for the live view on this terminal: none]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=LONGEST))]
    timeout: Option<u32>,
    /// CPUs of the guest
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    smp: u16,
    /// Let emulated CPUs really run at the same time, even if the scenario does not need it
    #[arg(long)]
    parallel: bool,
    /// Directory for the files that the guest leaves in /out
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Arguments for holdup in the guest; without any, its live view on this terminal (Ctrl-A X ends the machine)
    #[arg(last = true, value_name = "HOLDUP ARGS")]
    holdup: Vec<String>,
}

impl VmArgs {
    /// Whether the terminal shows holdup's live view.
    fn is_interactive(&self) -> bool {
        self.holdup.is_empty() && self.guest_script.is_none()
    }

    /// Time for the guest's commands.
    fn limit(&self) -> Duration {
        let default = if self.is_interactive() { LONGEST } else { 300 };
        Duration::from_secs(self.timeout.map_or(default, i64::from).unsigned_abs())
    }
}

/// Prints what `--kernel` and `--scenario` take.
pub fn list() {
    println!("kernels:");
    for stock in kernels::STOCK {
        println!("  {:<22} {} (package {})", stock.name, stock.meaning, stock.meta);
    }
    println!(
        "  {:<22} a kernel image of your own; modules need --headers DIR",
        "PATH"
    );
    println!("\nscenarios:");
    for scenario in SCENARIOS {
        println!("  {:<22} {}", scenario.name, scenario.meaning);
        let mut remarks = Vec::new();
        if !scenario.expects.is_empty() {
            let markers: Vec<String> = scenario.expects.iter().map(ToString::to_string).collect();
            remarks.push(format!("the kernel may report: {}", markers.join(", ")));
        }
        if scenario.parallel {
            remarks.push("runs its CPUs in parallel".to_owned());
        }
        if scenario.isolated {
            remarks.push("boots with isolcpus".to_owned());
        }
        if !scenario.on_rt {
            remarks.push("not on PREEMPT_RT".to_owned());
        }
        if !remarks.is_empty() {
            println!("  {:<22}   {}", "", remarks.join("; "));
        }
    }
}

/// Runs the machine. The result is the exit code: that of the guest's command, 124 if it had to be stopped, 125 if the
/// machine failed.
///
/// # Errors
/// What could not be prepared or started.
pub fn run(args: &VmArgs) -> Result<u8> {
    let scenario = args.scenario.as_deref().map(scenarios::find).transpose()?;
    let script = match &args.guest_script {
        Some(path) => Some(std::fs::read(path).with_context(|| format!("--guest-script {}", path.display()))?),
        None => None,
    };
    let interactive = args.is_interactive();
    // Before anything is fetched or built: without a terminal there is nothing to show it on.
    let terminal = if interactive { Some(Terminal::save()?) } else { None };
    setup::ensure(&[Part::Machine])?;
    let kernel = kernels::ensure(&args.kernel, args.headers.as_deref())?;
    if let Some(scenario) = scenario {
        scenario.possible_on(&kernel.release)?;
    }
    let mut modules = stock_modules::collect(&kernel, &args.stock_module)?;
    if scenario.is_some() || !args.module.is_empty() {
        setup::ensure(&[Part::Modules])?;
    }
    if scenario.is_some() {
        modules.extend(module::build(&module::lockfault_source(), &kernel)?);
    }
    for directory in &args.module {
        modules.extend(module::build(directory, &kernel)?);
    }
    if interactive {
        ui::step("Ctrl-A X switches the machine off, Ctrl-A C leads to QEMU's monitor and back");
    }
    let plan = plan(args, scenario, terminal.as_ref());
    let session = Session {
        holdup: Some(build::guest_holdup()?),
        modules,
        script,
        cpus: args.smp,
        parallel: args.parallel || scenario.is_some_and(|scenario| scenario.parallel),
        isolated: scenario.is_some_and(|scenario| scenario.isolated),
        timeout: args.limit(),
        directory: paths::target().join(format!("vm/run-{}", std::process::id())),
        terminal: interactive,
        kernel,
    };
    let mut sink = Forward::new(args.out.clone());
    let outcome = session.run(plan, &mut sink);
    drop(terminal);
    if sink.reader_left {
        return Ok(0);
    }
    let trusted = args.module.is_empty() && args.guest_script.is_none();
    let code = report(&session, scenario, trusted, &outcome?, sink);
    if code != FAILED {
        // Only a failure's console is worth a look.
        let _ = std::fs::remove_dir_all(&session.directory);
    }
    Ok(code)
}

/// The steps that the arguments mean.
fn plan(args: &VmArgs, scenario: Option<&Scenario>, terminal: Option<&Terminal>) -> Plan {
    let timeout_ms = args.limit().as_millis() as u64;
    let command = |id, argv| Command { id, argv, timeout_ms };
    let script = || vec!["/bin/sh".to_owned(), initramfs::SCRIPT.to_owned()];
    let holdup: Vec<String> = std::iter::once("holdup".to_owned())
        .chain(args.holdup.iter().cloned())
        .collect();
    let ready = || Ready {
        text: ATTACHED.to_owned(),
        within_ms: READY_WITHIN_MS,
    };
    let with_script = args.guest_script.is_some();
    let mut break_it = Vec::new();
    if let (Some(scenario), Some(trigger)) = (scenario, &args.scenario) {
        break_it.push(Step::Trigger { text: trigger.clone() });
        if args.attach == Attach::After {
            break_it.push(Step::AwaitState {
                scenario: scenario.name.to_owned(),
                state: "established".to_owned(),
                within_ms: ESTABLISHED_WITHIN_MS,
            });
        }
    }
    if with_script && !args.holdup.is_empty() {
        break_it.push(Step::Start {
            command: command(SCRIPT, script()),
            ready: None,
        });
        break_it.push(Step::Wait { id: SCRIPT });
    }
    let mut steps = Vec::new();
    match (terminal, args.attach) {
        (Some(terminal), Attach::After) => {
            steps.extend(break_it);
            steps.push(console(holdup, terminal, None, None));
        }
        (Some(terminal), Attach::Before) => {
            steps.push(console(holdup, terminal, Some(ready()), args.scenario.clone()));
        }
        (None, _) if args.holdup.is_empty() => {
            steps.extend(break_it);
            steps.push(Step::Start {
                command: command(MAIN, script()),
                ready: None,
            });
        }
        (None, Attach::After) => {
            steps.extend(break_it);
            steps.push(Step::Start {
                command: command(MAIN, holdup),
                ready: None,
            });
        }
        (None, Attach::Before) if break_it.is_empty() => {
            steps.push(Step::Start {
                command: command(MAIN, holdup),
                ready: None,
            });
        }
        (None, Attach::Before) => {
            steps.push(Step::Start {
                command: command(MAIN, holdup),
                ready: Some(ready()),
            });
            steps.extend(break_it);
        }
    }
    if terminal.is_none() {
        steps.push(Step::Wait { id: MAIN });
    }
    Plan {
        modules: Vec::new(),
        jobs: vec![Job { id: JobId(0), steps }],
    }
}

fn console(argv: Vec<String>, terminal: &Terminal, ready: Option<Ready>, trigger: Option<String>) -> Step {
    Step::Console {
        argv,
        rows: terminal.size.rows,
        columns: terminal.size.columns,
        ready,
        trigger,
    }
}

/// Passes the main command's output on as it comes and keeps the rest.
struct Forward {
    exit: Option<Exit>,
    job_error: Option<String>,
    shown: bool,
    reader_left: bool,
    files: Option<Returned>,
    ignored_files: usize,
}

impl Forward {
    fn new(out: Option<PathBuf>) -> Self {
        let files = out.map(Returned::new);
        Self {
            exit: None,
            job_error: None,
            shown: false,
            reader_left: false,
            files,
            ignored_files: 0,
        }
    }
}

impl Sink for Forward {
    fn message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Stdout(MAIN, bytes) => {
                self.shown = true;
                let mut stdout = std::io::stdout().lock();
                if let Err(error) = stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
                    self.reader_left = error.kind() == std::io::ErrorKind::BrokenPipe;
                    return Err(error).context("writing to standard output");
                }
            }
            Message::Stdout(_, bytes) | Message::Stderr(_, bytes) => {
                self.shown = true;
                std::io::stderr()
                    .lock()
                    .write_all(&bytes)
                    .context("writing to standard error")?;
            }
            Message::Exit(MAIN, exit) => self.exit = Some(exit),
            Message::Exit(_, exit) => match exit.status {
                Status::Code(0) => {}
                status => ui::step(format!("the guest script: {status}")),
            },
            Message::JobEnd(_, end) => self.job_error = end.error,
            Message::File(head) => match &mut self.files {
                Some(files) => files.begin(&head)?,
                None => self.ignored_files += 1,
            },
            Message::FileData(bytes) => {
                if let Some(files) = &mut self.files {
                    files.data(&bytes)?;
                }
            }
            Message::Note(text) => ui::step(format!("guest: {text}")),
            Message::Hello(hello) => ui::step(format!("guest is up after {} ms", hello.uptime_ms)),
            Message::Verdict(_) => {
                if let Some(files) = &mut self.files {
                    files.end();
                }
            }
        }
        Ok(())
    }

    fn start_over(&mut self) -> bool {
        if self.shown {
            return false;
        }
        self.exit = None;
        self.job_error = None;
        true
    }
}

/// Says what went wrong and finds the exit code.
fn report(session: &Session, scenario: Option<&Scenario>, trusted: bool, outcome: &Outcome, sink: Forward) -> u8 {
    let mut failed = false;
    if let Some(files) = &sink.files {
        ui::step(format!("{} files came back", files.complete.len()));
        for broken in &files.broken {
            ui::step(format!("file {broken}"));
            failed = true;
        }
    } else if sink.ignored_files > 0 {
        ui::step(format!(
            "the guest left {} files in /out; --out DIR brings them back",
            sink.ignored_files
        ));
    }
    let switched_off = session.terminal && outcome.verdicts.is_empty() && !outcome.console.has(Marker::Panic);
    if switched_off {
        ui::step("the machine was switched off");
    } else if let Some(problem) = outcome.problem() {
        ui::step(format!("the machine failed: {problem}"));
        failed = true;
    }
    if let Some(error) = &sink.job_error {
        ui::step(format!("the guest could not go on: {error}"));
        failed = true;
    }
    let expected = scenario
        .map(|scenario| scenario.expected_on(&session.kernel.release))
        .unwrap_or_default();
    for (marker, line) in outcome.console.unexpected(&expected) {
        ui::step(format!("the kernel reports {marker}: {line}"));
        // With someone's own module or script it may be what they are after.
        failed |= trusted || *marker == Marker::Panic;
    }
    if failed {
        ui::step(format!(
            "end of the console ({}):",
            session.directory.join(super::qemu::CONSOLE).display()
        ));
        eprint!("{}", outcome.console.tail(40));
        return FAILED;
    }
    if session.terminal {
        return 0;
    }
    match sink.exit.map(|exit| exit.status) {
        Some(Status::Code(code)) => u8::try_from(code).unwrap_or(FAILED),
        Some(Status::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(FAILED),
        Some(status @ Status::TimedOut { .. }) => {
            ui::step(format!("the guest's command: {status}"));
            TIMED_OUT
        }
        Some(status @ Status::NotStarted(_)) => {
            ui::step(format!("the guest's command: {status}"));
            FAILED
        }
        None => {
            ui::step("the guest's command never ended");
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: VmArgs,
    }

    fn steps(line: &str) -> Vec<Step> {
        let args = Cli::try_parse_from(std::iter::once("vm").chain(line.split_whitespace()))
            .unwrap()
            .args;
        let scenario = args
            .scenario
            .as_deref()
            .map(|trigger| scenarios::find(trigger).unwrap());
        plan(&args, scenario, None).jobs.remove(0).steps
    }

    fn shape(line: &str) -> String {
        let name = |step: &Step| match step {
            Step::Trigger { text } => format!("trigger({text})"),
            Step::AwaitState { scenario, state, .. } => format!("{state}({scenario})"),
            Step::Start { command, ready: None } => format!("start({})", command.argv.join(" ")),
            Step::Start {
                command,
                ready: Some(_),
            } => format!("ready({})", command.argv.join(" ")),
            Step::Wait { id } => format!("wait({})", id.0),
            other => format!("{other:?}"),
        };
        steps(line).iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn order_of_fault_and_tracer() {
        assert_eq!(shape("-- doctor"), "start(holdup doctor) wait(0)");
        assert_eq!(
            shape("--scenario mutex-aa -- snapshot --json"),
            "trigger(mutex-aa) established(mutex-aa) start(holdup snapshot --json) wait(0)"
        );
        assert_eq!(
            shape("--scenario mutex-aa --attach before -- live --text"),
            "ready(holdup live --text) trigger(mutex-aa) wait(0)"
        );
        assert_eq!(shape("--guest-script x.sh"), "start(/bin/sh /script.sh) wait(0)");
        assert_eq!(
            shape("--guest-script x.sh --attach before -- live"),
            "ready(holdup live) start(/bin/sh /script.sh) wait(1) wait(0)"
        );
        assert_eq!(
            shape("--guest-script x.sh --scenario mutex-aa"),
            "trigger(mutex-aa) established(mutex-aa) start(/bin/sh /script.sh) wait(0)"
        );
    }
}
