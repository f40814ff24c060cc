//! `holdup`: who is holding up the kernel.

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tracer::cli::{Cli, LiveArgs, Verb};
use tracer::session::{self, Outcome};
use tracer::verbs;

const FAILED: u8 = 1;

fn main() -> ExitCode {
    // Usage errors end here with code 2.
    let cli = Cli::parse();
    match run(cli) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdup: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli) -> Result<Outcome> {
    tracer::descriptors::make_room();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    match cli.verb.unwrap_or_else(|| Verb::Live(LiveArgs::default())) {
        Verb::Live(args) => runtime.block_on(session::live(&args)),
        Verb::Snapshot(args) => verbs::snapshot::run(&args),
        Verb::Record(args) => runtime.block_on(session::record(&args)),
        Verb::Replay(args) => runtime.block_on(verbs::replay::run(&args)),
        Verb::Report(args) => verbs::report::run(&args),
        Verb::Export(args) => verbs::export::run(&args),
        Verb::Doctor(args) => tracer::doctor::run(&args),
    }
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|e| e.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}
