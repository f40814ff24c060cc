//! One run of a verb: source, model, diagnosis and outputs put together.

use std::io::{self, Write};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::LiveArgs;
use crate::event::Event;
use crate::kernel::facts::KernelFacts;
use crate::source::live::Live;
use crate::view::tuple;

/// Runs `live` as a stream of lines on stdout.
///
/// # Errors
/// When the probes cannot be attached, the kernel stops answering, or stdout cannot be written (other than a closed pipe).
pub async fn live(args: &LiveArgs) -> Result<Outcome> {
    let facts = KernelFacts::of_this_machine()?;
    let mut signals = Signals::new()?;
    let mut live = Live::start(&args.capture.options(), &facts)?;
    for failed in live.attached().iter().filter(|a| a.error.is_some()) {
        eprintln!("holdup: not attached: {failed}");
    }
    let count = live.attached().iter().filter(|a| a.error.is_none()).count();
    eprintln!("holdup: attached ({count} probes)");
    let mut out = io::stdout().lock();
    let deadline = args.duration.map(|d| tokio::time::Instant::now() + d);
    let mut events = Vec::new();
    loop {
        events.clear();
        let stop = tokio::select! {
            biased;
            () = signals.any() => true,
            () = until(deadline) => true,
            result = live.next(&mut events) => { result?; false }
        };
        if stop {
            live.finish(&mut events)?;
        }
        show(args, &events, &mut out)?;
        if stop {
            return Ok(Outcome::Nothing);
        }
    }
}

/// What a run found; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing of severity warning or above.
    Nothing,
    /// Something, but no deadlock.
    Warning,
    /// A deadlock.
    Deadlock,
}

impl Outcome {
    /// The documented exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Warning => 4,
            Self::Deadlock => 3,
        }
    }
}

fn show(args: &LiveArgs, events: &[Event], out: &mut impl Write) -> Result<()> {
    if args.tuples {
        for event in events {
            let result = if args.json {
                tuple::json(event, out)
            } else {
                tuple::text(event, out)
            };
            result.context("writing to stdout")?;
        }
    }
    out.flush().context("writing to stdout")
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The signals that end a run in good order.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("installing a signal handler");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
