//! What every thread uses, for names of locks: nothing is followed, only pointers are copied.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use tracer_common::{
    kind::record_kind,
    snapshot::{USED_OBJECTS, UserRecord},
};

use crate::{
    emit::header,
    layout::off,
    mem::{field, read},
    snapshot::IterTask,
};

/// Writes a record for every thread.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn iter_users(ctx: *const IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; task is null at the end of the iteration.
    let (seq, task) = unsafe { ((*(*ctx).meta).seq, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let at = task as u64;
    let objects: [u64; USED_OBJECTS] = [
        field(at, off!(task_mm)).unwrap_or(0),
        field(at, off!(task_signal)).unwrap_or(0),
        field(at, off!(task_sighand)).unwrap_or(0),
        field(at, off!(task_files)).unwrap_or(0),
        field(at, off!(task_fs)).unwrap_or(0),
    ];
    let record = UserRecord {
        header: header(record_kind::USER, size_of::<UserRecord>() as u16),
        task: at,
        stack: field(at, off!(task_stack)).unwrap_or(0),
        objects,
        tid: field(at, off!(task_pid)).unwrap_or(0),
        tgid: field(at, off!(task_tgid)).unwrap_or(0),
        comm: read(at + u64::from(off!(task_comm))).unwrap_or([0; 16]),
    };
    // SAFETY: a record of exactly this size, all of it written.
    unsafe {
        bpf_seq_write(
            seq,
            (&raw const record).cast::<c_void>(),
            size_of::<UserRecord>() as u32,
        )
    };
    0
}
