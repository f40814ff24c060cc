//! What the arguments of `cargo xtask vm` mean: the steps in the guest, and their order.

use super::command::{Attach, VmArgs};
use super::initramfs;
use super::scenarios::Scenario;
use super::terminal::Terminal;
use xtask_guest::plan::{Command, CommandId, Job, JobId, Plan, Ready, Step};

/// What holdup prints on standard error once its probes are active.
pub const ATTACHED: &str = "holdup: attached";
/// For probes to be attached, under emulation on a busy host.
pub const READY_WITHIN_MS: u64 = 120_000;
/// For a scenario to be established; the module itself gives up after 60 s of guest time.
pub const ESTABLISHED_WITHIN_MS: u64 = 120_000;

/// The command whose output and exit code become ours.
pub const MAIN: CommandId = CommandId(0);
/// The user's script where it only accompanies holdup.
const SCRIPT: CommandId = CommandId(1);

/// The steps that the arguments mean.
pub fn plan(args: &VmArgs, scenario: Option<&Scenario>, terminal: Option<&Terminal>) -> Plan {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::scenarios;
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
