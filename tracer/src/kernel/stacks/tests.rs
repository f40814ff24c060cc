use std::path::Path;

use proptest::prelude::*;

use super::*;

fn names<'a>(stack: &[&'a str]) -> Vec<Option<FrameName<'a>>> {
    stack
        .iter()
        .map(|text| match text.split_once(' ') {
            _ if *text == "?" => None,
            Some((name, module)) => Some(FrameName {
                name,
                module: Some(module),
            }),
            None => Some(FrameName {
                name: text,
                module: None,
            }),
        })
        .collect()
}

/// The stacks as the kernels print them; `*` marks the caller that matters.
#[test]
fn the_first_frame_shown_is_the_caller_that_matters() {
    let cases: &[&[&str]] = &[
        // A sleeping mutex waiter by the tracepoint, 6.12 and 6.18.
        &[
            "bpf_prog_3d2b_contention_begin bpf",
            "bpf_trace_run2",
            "__traceiter_contention_begin",
            "__mutex_lock.constprop.0",
            "__mutex_lock_slowpath",
            "mutex_lock",
            "*lockfault_aa_inner lockfault",
            "lockfault_aa lockfault",
            "process_one_work",
        ],
        &[
            "bpf_prog_1 bpf",
            "bpf_trampoline_6442 bpf",
            "?",
            "__mutex_lock_slowpath",
            "mutex_lock",
            "*pipe_read",
            "vfs_read",
        ],
        // The same as a stack of a sleeping task, with and without the frames of .sched.text.
        &[
            "__schedule",
            "schedule",
            "schedule_preempt_disabled",
            "__mutex_lock.constprop.0",
            "*pipe_write",
            "vfs_write",
        ],
        &["*lockfault_aa lockfault", "process_one_work", "worker_thread"],
        // A spinlock function that a trampoline traces.
        &[
            "native_queued_spin_lock_slowpath",
            "_raw_spin_lock",
            "bpf_trampoline_6442 bpf",
            "*lockfault_softirq_touch lockfault",
            "call_timer_fn",
        ],
        // rwsem, read and write, mmap_lock.
        &[
            "schedule",
            "rwsem_down_read_slowpath",
            "down_read",
            "*proc_pid_cmdline_read",
            "vfs_read",
        ],
        &[
            "rwsem_down_write_slowpath",
            "down_write_killable",
            "*vm_mmap_pgoff",
            "ksys_mmap_pgoff",
        ],
        &["rwsem_wake.isra.0", "up_write", "*do_unlinkat"],
        // ww_mutex of case A.
        &[
            "__schedule",
            "schedule_preempt_disabled",
            "__ww_mutex_lock.constprop.0",
            "__ww_mutex_lock_interruptible_slowpath",
            "ww_mutex_lock_interruptible",
            "*ttm_eu_reserve_buffers ttm",
            "qxl_release_reserve_list qxl",
        ],
        // Spinlocks: native, paravirtual, in softirq, with debugging.
        &[
            "native_queued_spin_lock_slowpath",
            "_raw_spin_lock",
            "*kflow_free_rcu kflow",
            "rcu_core",
            "__do_softirq",
        ],
        &[
            "kvm_wait",
            "__pv_queued_spin_lock_slowpath",
            "_raw_spin_lock_irqsave",
            "*try_to_wake_up",
        ],
        &[
            "queued_spin_lock_slowpath",
            "do_raw_spin_lock",
            "_raw_spin_lock_irqsave",
            "*wake_up_q",
        ],
        &[
            "queued_write_lock_slowpath",
            "_raw_write_lock_irq",
            "*do_exit",
            "do_group_exit",
        ],
        // PREEMPT_RT.
        &[
            "schedule_rtlock",
            "rtlock_slowlock_locked",
            "rt_spin_lock",
            "*kmem_cache_alloc_noprof",
        ],
        &[
            "rt_mutex_schedule",
            "rt_mutex_slowlock_block.constprop.0",
            "__rt_mutex_slowlock_locked.constprop.0",
            "rt_mutex_slowlock.constprop.0",
            "mutex_lock",
            "*pipe_read",
        ],
        &["rwbase_write_lock", "down_write", "*do_mmap"],
        // Semaphore, per-CPU rwsem, completion, I/O.
        &[
            "schedule_timeout",
            "___down_common",
            "__down_common",
            "__down",
            "down",
            "*console_lock",
        ],
        &[
            "schedule_timeout_uninterruptible",
            "__down_timeout",
            "down_timeout",
            "*acpi_os_wait_semaphore",
        ],
        &["percpu_rwsem_wait", "__percpu_down_read", "*cgroup_attach_lock"],
        &[
            "schedule_timeout",
            "__wait_for_common",
            "wait_for_completion",
            "*__flush_work",
            "flush_work",
        ],
        &[
            "io_schedule",
            "bit_wait_io",
            "__wait_on_bit",
            "out_of_line_wait_on_bit",
            "*__wait_on_buffer",
        ],
        // kprobes: on an ftrace site, and by breakpoint.
        &[
            "trace_call_bpf",
            "kprobe_perf_func",
            "kprobe_ftrace_handler",
            "ftrace_trampoline __builtin__ftrace",
            "__mutex_unlock_slowpath.isra.0",
            "mutex_unlock",
            "*unix_stream_read_generic",
        ],
        &[
            "?",
            "kprobe_dispatcher",
            "aggr_pre_handler",
            "kprobe_int3_handler",
            "do_int3",
            "exc_int3",
            "asm_exc_int3",
            "__down",
            "down",
            "*f m",
        ],
        // lockdep kernels.
        &["lock_acquire", "_raw_spin_lock_nested", "*double_rq_lock"],
        &["__mutex_lock", "mutex_lock_io_nested", "*blk_mq_x"],
    ];
    for stack in cases {
        let plain: Vec<_> = stack.iter().map(|n| n.trim_start_matches('*')).collect();
        let expected = stack
            .iter()
            .position(|n| n.starts_with('*'))
            .expect("each case marks its caller");
        assert_eq!(caller_position(names(&plain)), expected, "{stack:?}");
    }
}

#[test]
fn tracing_that_waits_for_a_lock_itself_is_a_caller() {
    // Stacks of sleeping tasks lack the frames of the lock (they lie in .sched.text): the caller comes first.
    for name in [
        "bpf_trampoline_update",
        "ftrace_set_filter",
        "kprobe_register",
        "perf_trace_init",
        "ftrace_startup",
    ] {
        assert_eq!(caller_position(names(&[name, "vfs_write"])), 0, "{name}");
    }
}

#[test]
fn what_only_looks_like_machinery_is_a_caller() {
    for name in [
        "schedule_on_each_cpu",
        "schedule_page_work_fn",
        "percpu_counter_sync",
        "down_the_road",
        "upload",
        "mutex_lock_my_way",
        "rt_mutex_adjust_prio_chain",
        "percpu_ref_kill_and_confirm",
        "_raw_spin_cleverly",
        "flush_work",
        "rtnl_lock",
        "lock_sock_nested",
        "folio_wait_bit_common",
        "up_console_sem",
        "__up_console_sem.isra.0",
        "wait_for_completion_of_x",
        "schedule_tail",
        "mutex",
        "",
    ] {
        assert_eq!(caller_position(names(&["mutex_lock", name, "vfs_read"])), 1, "{name}");
    }
}

#[test]
fn a_modules_own_function_is_never_machinery() {
    assert_eq!(caller_position(names(&["mutex_lock", "down mymodule", "vfs_read"])), 1);
    assert_eq!(caller_position(names(&["schedule mymodule", "vfs_read"])), 0);
}

#[test]
fn a_bpf_program_or_a_nameless_frame_behind_the_lock_is_the_caller() {
    // A scheduler written in BPF calls kernel functions that lock.
    let stack = [
        "bpf_prog_trace bpf",
        "_raw_spin_lock",
        "bpf_prog_enqueue bpf",
        "enqueue_task_scx",
    ];
    assert_eq!(caller_position(names(&stack)), 2);
    assert_eq!(
        caller_position(names(&["mutex_lock", "?", "mutex_lock", "vfs_read"])),
        1
    );
}

#[test]
fn machinery_alone_or_without_names_stays_whole() {
    for stack in [
        &["__schedule", "schedule"][..],
        &["?", "?"],
        &["?", "vfs_read"],
        &["vfs_read"],
        &[],
    ] {
        assert_eq!(caller_position(names(stack)), 0, "{stack:?}");
    }
}

const SYMBOLS: &str = "\
ffffffff81000000 T __schedule
ffffffff81000100 T mutex_lock
ffffffff81000200 t do_exit
ffffffff81000300 T do_group_exit
ffffffff81000340 T __x64_sys_exit_group
ffffffffc0000000 t helper\t[m]
";

fn stack_of<'a>(symbols: &'a Symbols, low: &[u64]) -> Stack<'a> {
    let addresses: Vec<_> = low.iter().map(|a| KernelAddr(0xffff_ffff_8100_0000 + a)).collect();
    Stack::new(symbols, &addresses)
}

#[test]
fn stacks_are_named_trimmed_and_kept_whole() {
    let symbols = Symbols::parse(Path::new("k"), SYMBOLS.as_bytes()).expect("symbols");
    let stack = stack_of(&symbols, &[0x50, 0x120, 0x3f00_0008, 0x250]);
    let shown = |frames: &[Frame<'_>]| frames.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        shown(stack.all()),
        ["__schedule+0x50", "mutex_lock+0x20", "helper+0x8 [m]", "do_exit+0x50"]
    );
    assert_eq!(shown(stack.trimmed()), ["helper+0x8 [m]", "do_exit+0x50"]);
    assert_eq!(
        stack.caller().map(ToString::to_string).as_deref(),
        Some("helper+0x8 [m]")
    );
    let unknown = stack_of(&symbols, &[0x50, 0x120, 0x1000_0000]);
    assert_eq!(shown(unknown.trimmed()), ["0xffffffff91000000"]);
    assert_eq!(Stack::new(&symbols, &[]).caller(), None);
}

#[test]
fn a_return_address_behind_a_call_that_never_returns_belongs_to_the_caller() {
    let symbols = Symbols::parse(Path::new("k"), SYMBOLS.as_bytes()).expect("symbols");
    // do_exit never returns, so its return address is the first byte behind do_group_exit.
    let stack = stack_of(&symbols, &[0x210, 0x340]);
    assert_eq!(
        stack.all().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["do_exit+0x10", "do_group_exit+0x40"]
    );
    // The innermost frame may be the entry of a probed function: it is looked up as it is.
    assert_eq!(stack_of(&symbols, &[0x100]).all()[0].to_string(), "mutex_lock");
}

proptest! {
    #[test]
    fn trimming_never_takes_all_and_stops_at_the_first_stranger(kinds in proptest::collection::vec(0u8..4, 0..30)) {
        let stack: Vec<_> = kinds.iter().map(|k| ["?", "bpf_trace_run2", "mutex_lock", "vfs_read"][*k as usize]).collect();
        let caller = caller_position(names(&stack));
        prop_assert!(caller < stack.len() || (stack.is_empty() && caller == 0));
        prop_assert!(!stack[..caller].contains(&"vfs_read"));
        if caller > 0 { prop_assert!(stack[caller - 1] != "?", "the last frame taken away is known to be machinery"); }
    }
}
