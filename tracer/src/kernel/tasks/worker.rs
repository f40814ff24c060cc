//! Which work a worker of a workqueue executes.

use super::ask::Asker;
use crate::event::Activity;
use crate::ids::KernelAddr;
use crate::kernel::offsets::KernelOffsets;

/// `PF_WQ_WORKER` (include/linux/sched.h), 5.10 to 6.18.
pub const PF_WQ_WORKER: u32 = 0x20;
/// Bytes read of a workqueue's name, where its size is not known.
const NAME: u32 = 24;

/// The function and the workqueue.
///
/// KERNEL: `process_one_work` (kernel/workqueue.c), 5.10 to 6.18, sets `current_func` and `current_pwq` and clears them behind it.
pub fn work(task: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<Activity> {
    let kthread = ask.pointer(task, o.task.kthread)?;
    let worker = ask.pointer(kthread, o.worker.kthread_data)?;
    let field = |offset: Option<u32>| Some(worker.wrapping_add(offset?.into()));
    let w = &o.worker;
    let [own, function] = ask.words([field(w.task)?, field(w.current_func)?])?;
    if own != task || function == 0 {
        return None;
    }
    Some(Activity::Work {
        function: KernelAddr(function),
        workqueue: workqueue(worker, o, ask).map(Into::into),
    })
}

fn workqueue(worker: u64, o: &KernelOffsets, ask: &mut Asker<'_, '_>) -> Option<String> {
    let pwq = ask.pointer(worker, o.worker.current_pwq)?;
    let wq = ask.pointer(pwq, o.workqueue.pwq_wq)?;
    let size = o.workqueue.name_size.unwrap_or(NAME);
    let name = ask.text(wq.wrapping_add(o.workqueue.name?.into()), size as usize)?;
    (!name.is_empty()).then_some(name)
}
