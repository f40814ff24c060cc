//! Scenario texts: event sequences and the findings they must lead to, in one file.
//!
//! They serve the tests of every rule, a demo without a kernel, and the tests of the TUI. One statement a line; `#` starts a
//! comment. Names are declared once and used afterwards; an unknown statement, name or field is an error.
//!
//! ```text
//! task  w 215 kworker/1:2 start=1s kthread      # thread: name, tid, comm; tgid= start= cgroup= kthread
//! irq   s softirq cpu=1 above=w                 # interrupt context
//! lock  M mutex lf_aa                           # lock: name, kind, its own name if it has one; addr= class=
//! stack aa __mutex_lock lf_aa_inner lf_aa_fn    # frames, innermost first; pieced-stack: from words, not unwound
//! at 10s                                        # time of what follows: ns, us, ms, s; +100ms is relative
//! state w uninterruptible switches=7            # sample: cpu= switches= last-switch= stack= work=
//! doing w syscall(ioctl) path=/dev/x            # also work(lf_aa_fn) workqueue=, exception; number= kind=, argument= path,
//!                                               # address or the number of a descriptor
//! cgroup 77 /system.slice
//! line lf_aa_fn drivers/aa.c:12                 # place in the source of a frame: inlined=NAME@FILE:LINE
//! user-stack w switches=3 read+0x10@/bin/w:0x20 0x7fff0000   # frames, as FUNCTION+OFFSET@FILE:OFFSET or less, or an address; whole=yes
//! gone  w
//! wait  w M owner=w by=tracepoint stack=aa      # tuple: mode= phase= since= word= queued= cpu=; owner= is a task, nobody,
//!                                               # readers, readers(task), readers(task,count), unreadable, not-recorded
//! end   w M result=0                            # end of the wait: waited=
//! release w M
//! read  M owner=nobody                          # owner word without a waiter: word=
//! depend v on=w work-flush(lf_aa_fn) since=10s  # no lock: by= stack=
//! holder w M shared by=stack-word rank=0        # candidate
//! stats M waits=100 total=1s max=20ms           # each=: length of every wait
//! reinit w M waiters=1 owner=nobody stack=aa
//! acquired w M cpu=1                            # a watched lock: mode= cpu= stack=
//! released w M
//! stall 2 watchdog=3s timer=4s grace-period=5s  # a CPU that neither schedules nor ticks since then; over without any of them
//! loss  ring-full=3 busy=1                      # cumulative
//! round pending begin 1                         # pending | all-tasks; begin | end | aborted; number
//! update                                        # lets the diagnosis look, as the live session does every so often
//! expect                                        # the changes since the last `expect`, in full; none when no line follows
//! > 10.200 OPENED self-deadlock [critical, proven]
//! ```

mod declare;
mod names;
mod parse;
mod statement;
mod user_stack;

use thiserror::Error;

use crate::event::Event;

/// One step of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something happened.
    Event(Event),
    /// The diagnosis looks at the model.
    Update,
    /// The diagnosis looks at the model, and everything it has told since the last expectation must be this text.
    Expect {
        /// The text, lines ended by newlines.
        text: String,
        /// Line of the statement, from 1.
        line: usize,
    },
}

/// A scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Its steps in order.
    pub steps: Vec<Step>,
}

/// What is wrong with a scenario text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("scenario line {line}: {what}")]
pub struct ScriptError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong, with the offending word and what would be right.
    pub what: String,
}

impl Script {
    /// Parses a scenario.
    ///
    /// # Errors
    /// For the first line that is not understood.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        parse::parse(text)
    }

    /// Its events in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.steps.iter().filter_map(|step| {
            if let Step::Event(event) = step {
                Some(event)
            } else {
                None
            }
        })
    }
}
