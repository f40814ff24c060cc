//! What is true of each scenario; `xtask/lockfault/README.md` says it in words.

use super::{Expected, Verdict};

/// They never end, and the locks' own words prove it.
pub const DEADLOCKS: &[Verdict] = &[
    Verdict {
        scenario: "mutex-aa",
        parameters: "",
        findings: &[Expected {
            kind: "self-deadlock",
            severity: "critical",
            certainty: "proven",
            tasks: &[("worker", "lockfault_mutex_aa_inner")],
            locks: &["lockfault_aa_mutex"],
            first: "worker",
            victims: &["flusher"],
            title: "that it holds itself; at lockfault_mutex_aa_inner",
        }],
    },
    Verdict {
        scenario: "ww-mutex-aa",
        parameters: "",
        findings: &[Expected {
            kind: "self-deadlock",
            severity: "critical",
            certainty: "proven",
            tasks: &[("worker", "lockfault_ww_mutex_aa_reserve")],
            locks: &["heap.ww_aa.reservation"],
            first: "worker",
            victims: &["flusher"],
            title: "that it holds itself; at lockfault_ww_mutex_aa_reserve",
        }],
    },
    Verdict {
        scenario: "mutex-abba",
        parameters: "",
        findings: &[Expected {
            kind: "cycle",
            severity: "critical",
            certainty: "proven",
            tasks: &[
                ("first", "lockfault_mutex_abba_first"),
                ("second", "lockfault_mutex_abba_second"),
            ],
            locks: &["lockfault_abba_a", "lockfault_abba_b"],
            first: "first",
            victims: &[],
            title: "wait for each other",
        }],
    },
    Verdict {
        scenario: "mixed-cycle",
        parameters: "",
        findings: &[Expected {
            kind: "cycle",
            severity: "critical",
            certainty: "proven",
            tasks: &[
                ("mutex-holder", "lockfault_mixed_mutex_holder"),
                ("rwsem-holder", "lockfault_mixed_rwsem_holder"),
                ("rtmutex-holder", "lockfault_mixed_rtmutex_holder"),
            ],
            locks: &["heap.mixed.mutex", "heap.mixed.rwsem", "heap.mixed.rtmutex"],
            first: "mutex-holder",
            victims: &[],
            title: "3 tasks wait for each other in a circle",
        }],
    },
];

/// A rwsem records its readers only as a hint, which proves nothing.
pub const RWSEM_AA: Verdict = Verdict {
    scenario: "rwsem-aa",
    parameters: "",
    findings: &[Expected {
        kind: "self-deadlock",
        severity: "warning",
        certainty: "likely",
        tasks: &[("holder", "lockfault_rwsem_aa_write")],
        locks: &["lockfault_rwsem_aa_sem"],
        first: "holder",
        victims: &[],
        title: "for writing, which it seems to hold for reading itself",
    }],
};

pub const ORPHAN: Verdict = Verdict {
    scenario: "owner-exited",
    parameters: "waiters=3",
    findings: &[Expected {
        kind: "orphaned-lock",
        severity: "critical",
        certainty: "proven",
        tasks: &[("owner", "")],
        locks: &["heap.exited.lock"],
        first: "waiter",
        victims: &["waiter"],
        title: "whose owner lf_exit_owner",
    }],
};

pub const READER_IO: Verdict = Verdict {
    scenario: "rwsem-reader-io",
    parameters: "readers=20",
    findings: &[
        Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "likely",
            tasks: &[("holder", "lockfault_fake_block_io")],
            locks: &["heap.reader_io.sem"],
            first: "writer",
            victims: &["writer", "reader"],
            title: "for reading and is asleep in block I/O; 21 tasks wait behind it",
        },
        Expected {
            kind: "reader-pile-up",
            severity: "info",
            certainty: "likely",
            tasks: &[("writer", "lockfault_reader_io_writer")],
            locks: &["heap.reader_io.sem"],
            first: "writer",
            victims: &["reader"],
            title: "20 readers queue behind lf_io_writer",
        },
    ],
};

/// They end by themselves, but not soon.
pub const HOLDERS: &[Verdict] = &[
    Verdict {
        scenario: "holder-asleep",
        parameters: "ms=600000",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["lockfault_asleep_mutex"],
            first: "waiter",
            victims: &["waiter"],
            title: "is asleep (uninterruptible); 8 tasks wait behind it",
        }],
    },
    Verdict {
        scenario: "holder-running",
        parameters: "ms=120000",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["heap.running.lock"],
            first: "waiter",
            victims: &["waiter"],
            title: "is running on CPU 1; 2 tasks wait behind it",
        }],
    },
    Verdict {
        scenario: "holder-starved",
        parameters: "ms=120000 cpu=2",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["lockfault_starved_mutex"],
            first: "waiter",
            victims: &["waiter"],
            title: "is runnable, but has no CPU; 2 tasks wait behind it",
        }],
    },
];

/// Holders that wait for what is no lock.
pub const WAITING_HOLDERS: &[Verdict] = &[
    Verdict {
        scenario: "holder-in-rcu",
        parameters: "ms=600000",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["lockfault_in_rcu_mutex"],
            first: "waiter",
            victims: &["waiter"],
            title: "and waits for an RCU grace period; 2 tasks wait behind it",
        }],
    },
    Verdict {
        scenario: "holder-in-page",
        parameters: "ms=600000",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["lockfault_in_page_mutex"],
            first: "waiter",
            victims: &["waiter"],
            title: "and waits for a locked page; 2 tasks wait behind it",
        }],
    },
    Verdict {
        scenario: "holder-in-queue",
        parameters: "ms=600000",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["lockfault_in_queue_mutex"],
            first: "waiter",
            victims: &["waiter"],
            title: "and waits for wait queue lockfault_wait_queue [lockfault] (",
        }],
    },
    Verdict {
        scenario: "holder-stopped",
        parameters: "ms=600000",
        findings: &[Expected {
            kind: "root-blocker",
            severity: "warning",
            certainty: "proven",
            tasks: &[("holder", "")],
            locks: &["lockfault_stopped_mutex"],
            first: "waiter",
            victims: &["waiter"],
            title: "and is stopped; 2 tasks wait behind it",
        }],
    },
];

/// Nothing hangs. Each order lasts long enough for owners to be re-read in it.
pub const INVERSIONS: &[Verdict] = &[
    Verdict {
        scenario: "inversion-mutex",
        parameters: "ms=3000",
        findings: &[Expected {
            kind: "order-inversion",
            severity: "info",
            certainty: "possible",
            tasks: &[
                ("ab", "lockfault_inversion_mutex_ab"),
                ("ba", "lockfault_inversion_mutex_ba"),
            ],
            locks: &["lockfault_inversion_mutexes[0]", "lockfault_inversion_mutexes[1]"],
            first: "",
            victims: &[],
            title: "mutex lockfault_inversion_mutexes",
        }],
    },
    Verdict {
        scenario: "inversion-rwsem",
        parameters: "ms=3000",
        findings: &[Expected {
            kind: "order-inversion",
            severity: "info",
            certainty: "possible",
            tasks: &[
                ("ab", "lockfault_inversion_rwsem_ab"),
                ("ba", "lockfault_inversion_rwsem_ba"),
            ],
            locks: &["heap.inversion.rwsem_a", "heap.inversion.rwsem_b"],
            first: "",
            victims: &[],
            title: "rw_semaphore ",
        }],
    },
];
