//! The one place that says which bytes an event is. Codes are never reused; see [`super`] for how to change the format.

#[cfg(test)]
use super::every::{Every, pick};
use super::primitive::Wire;
use super::{CodecError, Decoder, Encoder};
use crate::event::{
    Act, Activity, Actor, Argument, Body, CgroupName, CodeLine, Context, CpuStall, Dependency, DependencySample, Doing,
    Evidence, FileKind, HolderCandidate, Inlined, LockKind, LockName, LockSample, LockStats, LossCause, LossReport,
    Mode, Owner, Phase, Place, Queued, Reinit, Release, Round, RoundEdge, RoundScope, StackFrames, SymbolName,
    TaskSample, TaskState, TimeSpent, UserFile, UserFrame, UserFunction, UserStack, WaitEnd, WaitSample, Watched,
};

/// The events with their codes, 1 to 119.
macro_rules! bodies {
    ($($name:ident = $code:literal),* $(,)?) => {
        /// Code of an event.
        pub fn code(body: &Body) -> u8 {
            match body {
                $(Body::$name(_) => $code,)*
                Body::Record(_) => super::records::TAG,
            }
        }

        /// Appends what follows the code and the time.
        pub fn put(body: &Body, out: &mut Encoder) {
            match body {
                $(Body::$name(value) => value.put(out),)*
                // Written as such: see `records`.
                Body::Record(_) => {}
            }
        }

        /// Reads what follows the code and the time.
        pub fn take(code: u8, from: &mut Decoder) -> Result<Body, CodecError> {
            Ok(match code {
                $($code => Body::$name(Wire::take(from)?),)*
                other => return Err(CodecError::Unknown { what: "item", code: other.into() }),
            })
        }

        #[cfg(test)]
        impl Every for Body {
            fn every() -> Vec<Self> {
                [$(Every::every().into_iter().map(Body::$name).collect::<Vec<_>>()),*].concat()
            }
        }
    };
}

bodies! {
    Task = 1,
    TaskGone = 2,
    Wait = 3,
    WaitEnd = 4,
    Release = 5,
    Lock = 6,
    Dependency = 7,
    Holder = 8,
    Stats = 9,
    Stack = 10,
    Symbol = 11,
    LockName = 12,
    Reinit = 13,
    Loss = 14,
    Round = 15,
    Doing = 16,
    CgroupName = 17,
    CodeLine = 18,
    TimeSpent = 19,
    Watch = 20,
    UserStack = 21,
    Stall = 22,
}

/// Fields in the order in which they are written. `field: word` writes an owner word, which repeats like an address.
/// `field since 2` came with that version of the format: in older captures it has its default.
macro_rules! record {
    ($name:ident { $($field:ident $(: $how:ident)? $(since $version:literal)?),* $(,)? }) => {
        impl Wire for $name {
            fn put(&self, out: &mut Encoder) {
                let Self { $($field),* } = self;
                $(record!(@put out, $field $(, $how)?);)*
            }
            fn take(from: &mut Decoder) -> Result<Self, CodecError> {
                $(let $field = record!(@take from $(, $how)? $(, since $version)?);)*
                Ok(Self { $($field),* })
            }
        }

        #[cfg(test)]
        impl Every for $name {
            fn every() -> Vec<Self> {
                $(let $field = Every::every();)*
                let most = [$($field.len()),*].into_iter().max().unwrap_or(0);
                (0..most).map(|n| Self { $($field: pick(&$field, n)),* }).collect()
            }
        }
    };
    (@put $out:ident, $field:ident) => { $field.put($out) };
    (@put $out:ident, $field:ident, word) => { $out.word(*$field) };
    (@take $from:ident) => { Wire::take($from)? };
    (@take $from:ident, word) => { $from.word()? };
    (@take $from:ident, since $version:literal) => {
        if $from.version() >= $version { Wire::take($from)? } else { Default::default() }
    };
}

record!(TaskSample {
    task,
    state,
    cpu,
    switches,
    last_switch,
    kernel_thread,
    cgroup,
    stack,
    work
});
record!(WaitSample {
    waiter,
    task,
    lock,
    kind,
    mode,
    phase,
    since,
    owner_word: word,
    owner,
    queued,
    cpu,
    stack,
    evidence,
});
record!(WaitEnd {
    waiter,
    lock,
    result,
    waited
});
record!(Release {
    task,
    lock,
    kind,
    stack
});
record!(LockSample {
    lock,
    kind,
    owner_word: word,
    owner
});
record!(DependencySample {
    waiter,
    task,
    dependency,
    on,
    on_task,
    since,
    stack,
    evidence
});
record!(HolderCandidate {
    lock,
    kind,
    mode,
    holder,
    task,
    rank,
    evidence
});
record!(LockStats {
    lock,
    kind,
    mode,
    waits,
    total,
    max,
    histogram
});
record!(StackFrames { id, frames, pieced since 6 });
record!(SymbolName {
    addr,
    name,
    offset,
    module
});
record!(LockName { lock, name, source, class since 2 });
record!(Reinit {
    lock,
    kind,
    task,
    stack,
    waiters,
    owner
});
record!(TimeSpent {
    task,
    since,
    running,
    runnable,
    sleeping,
    io
});
record!(Watched {
    lock,
    kind,
    mode,
    act,
    by,
    task,
    cpu,
    stack
});
record!(CpuStall {
    cpu,
    watchdog,
    timer,
    grace_period
});
record!(LossReport { by_cause });
record!(Doing { task, activity });
record!(CgroupName { cgroup, path });
record!(CodeLine { addr, place, inlined });
record!(Inlined { name, place });
record!(UserStack {
    task,
    switches,
    whole,
    frames
});
record!(UserFrame {
    address: word,
    file,
    function,
    place,
    inlined
});
record!(UserFile { path, build_id, offset });
record!(UserFunction { name, offset });
record!(Place { file, line });
record!(Round { number, edge, scope });

/// Variants without fields and their codes.
macro_rules! codes {
    ($name:ident, $what:literal { $($variant:ident = $code:literal),* $(,)? }) => {
        impl Wire for $name {
            fn put(&self, out: &mut Encoder) {
                out.byte(match self {
                    $(Self::$variant => $code,)*
                });
            }
            fn take(from: &mut Decoder) -> Result<Self, CodecError> {
                match from.byte()? {
                    $($code => Ok(Self::$variant),)*
                    other => Err(CodecError::Unknown { what: $what, code: other.into() }),
                }
            }
        }

        #[cfg(test)]
        impl Every for $name {
            fn every() -> Vec<Self> {
                vec![$(Self::$variant),*]
            }
        }
    };
}

codes!(Context, "context" { Task = 0, Softirq = 1, Hardirq = 2, Nmi = 3 });
codes!(TaskState, "task state" {
    Unknown = 0,
    Running = 1,
    Runnable = 2,
    InIo = 3,
    Uninterruptible = 4,
    Interruptible = 5,
    Idle = 6,
    Stopped = 7,
    Exited = 8,
});
codes!(LockKind, "lock kind" {
    Unknown = 0,
    Mutex = 1,
    WwMutex = 2,
    Rwsem = 3,
    RtMutex = 4,
    PercpuRwsem = 5,
    Semaphore = 6,
    Spinlock = 7,
    Rwlock = 8,
    RtSpinlock = 9,
});
codes!(Mode, "mode" { Exclusive = 0, Shared = 1 });
codes!(Phase, "phase" { Spinning = 0, Sleeping = 1 });
codes!(Evidence, "evidence" {
    Tracepoint = 0,
    Kprobe = 1,
    Reread = 2,
    WaiterRecord = 3,
    BlockedOnField = 4,
    PiBlockedOn = 5,
    StackFrames = 6,
    StackWord = 7,
    StackNear = 8,
    OwnerHint = 9,
    CpuSample = 10,
    Acquisition = 11,
    Script = 12,
    RegisterWord = 13,
    RegisterNear = 14,
});
codes!(LossCause, "cause of loss" {
    RingFull = 0,
    Busy = 1,
    WaitTableFull = 2,
    LockTableFull = 3,
    SpinNesting = 4,
    MissedEnd = 5,
    ProgramSkipped = 6,
    Malformed = 7,
    ReadFailed = 8,
    Overrun = 9,
    StackLost = 10,
});
codes!(FileKind, "kind of file" {
    Unknown = 0,
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Pipe = 5,
    Socket = 6,
    Symlink = 7,
    Anonymous = 8,
});
codes!(Act, "act" { Acquired = 0, Released = 1 });
codes!(RoundEdge, "edge of a round" { Begin = 0, End = 1, Aborted = 2 });
codes!(RoundScope, "scope of a round" { Pending = 0, AllTasks = 1 });

/// Variants with fields and their codes.
macro_rules! variants {
    ($name:ident, $what:literal {
        $($variant:ident $({ $($field:ident),* })? $(($inner:ident))? = $code:literal),* $(,)?
    }) => {
        impl Wire for $name {
            fn put(&self, out: &mut Encoder) {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        out.byte($code);
                        $($($field.put(out);)*)?
                        $($inner.put(out);)?
                    })*
                }
            }
            fn take(from: &mut Decoder) -> Result<Self, CodecError> {
                Ok(match from.byte()? {
                    $($code => {
                        $($(let $field = Wire::take(from)?;)*)?
                        $(let $inner = Wire::take(from)?;)?
                        Self::$variant $({ $($field),* })? $(($inner))?
                    })*
                    other => return Err(CodecError::Unknown { what: $what, code: other.into() }),
                })
            }
        }

        #[cfg(test)]
        impl Every for $name {
            fn every() -> Vec<Self> {
                let mut all = Vec::new();
                $({
                    $($(let $field = Every::every();)*)?
                    $(let $inner = Every::every();)?
                    let most = [1 $($(, $field.len())*)? $(, $inner.len())?].into_iter().max().unwrap_or(0);
                    all.extend((0..most).map(|n| {
                        let _ = n;
                        $($(let $field = pick(&$field, n);)*)?
                        $(let $inner = pick(&$inner, n);)?
                        Self::$variant $({ $($field),* })? $(($inner))?
                    }));
                })*
                all
            }
        }
    };
}

variants!(Actor, "actor" {
    Task(key) = 0,
    Interrupt { cpu, context, interrupted } = 1,
});
variants!(Owner, "owner" {
    Nobody = 0,
    Task(task) = 1,
    Unreadable(address) = 2,
    Readers { hint, count } = 3,
    NotRecorded = 4,
});
variants!(Queued, "place in the queue" {
    Unknown = 0,
    At(place) = 1,
    Somewhere = 2,
    Absent = 3,
});
variants!(Dependency, "dependency" {
    WorkFlush { function } = 0,
    WorkqueueFlush { workqueue } = 1,
    Completion { completion } = 2,
    Ipi { cpu } = 3,
    BlockIo = 4,
    PageLock = 5,
    RcuGracePeriod = 6,
    Stop = 7,
    WaitQueue = 8,
    WaitQueueHead { queue } = 9,
});
variants!(Activity, "activity" {
    Work { function, workqueue } = 0,
    Syscall { number, name, argument } = 1,
    Exception = 2,
});
variants!(Argument, "argument" {
    Other = 0,
    File { kind, path } = 1,
    Descriptor { number } = 2,
    Path = 3,
    Address = 4,
});
