// SPDX-License-Identifier: GPL-2.0
/*
 * mmap-lock-io: a reader sleeps in (fake) block I/O while it holds the mmap_lock
 * of the process pid, as a page fault does, and a writer queues behind it. From
 * then on whoever reads the process's command line (ps, top) hangs, too.
 * Verdict: no deadlock; root blocker is "holder": it has the lock for reading
 * and sleeps in I/O ("likely"); "writer" waits first, then all who looked.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm_types.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>

#include "lockfault.h"

/* Listed until the scenario knows whose lock it takes. */
static DECLARE_RWSEM(lockfault_mmap_nobodys);

static bool lockfault_mmap_io_done;

static lockfault_frame void lockfault_mmap_fake_block_io(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (READ_ONCE(lockfault_mmap_io_done))
			break;
		io_schedule();
	}
	__set_current_state(TASK_RUNNING);
}

static lockfault_frame int lockfault_mmap_lock_holder(void *data)
{
	struct lockfault_task *self = data;
	struct mm_struct *mm = self->arg;

	down_read(&mm->mmap_lock);
	lockfault_wants(self);
	lockfault_mmap_fake_block_io();
	up_read(&mm->mmap_lock);
	return 0;
}

static lockfault_frame int lockfault_mmap_lock_writer(void *data)
{
	struct lockfault_task *self = data;
	struct mm_struct *mm = self->arg;

	lockfault_wants(self);
	down_write(&mm->mmap_lock);
	up_write(&mm->mmap_lock);
	return 0;
}

/* The process's address space, which is never given back. */
static struct mm_struct *lockfault_mm_of(unsigned int nr)
{
	struct pid *pid = find_get_pid(nr);
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	struct mm_struct *mm = NULL;

	put_pid(pid);
	if (task) {
		mm = get_task_mm(task);
		put_task_struct(task);
	}
	return mm;
}

static int lockfault_mmap_lock_io_run(struct lockfault_scenario *s)
{
	struct mm_struct *mm = lockfault_mm_of(lockfault_param(s, "pid"));
	struct lockfault_task *holder, *writer;

	if (!mm)
		return -ESRCH;
	s->locks[0].addr = &mm->mmap_lock;
	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU, lockfault_mmap_lock_holder,
				 mm, "lf_mm_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(holder)))
		return -ETIMEDOUT;
	writer = lockfault_spawn(s, "writer", 0, LOCKFAULT_ANY_CPU, lockfault_mmap_lock_writer,
				 mm, "lf_mm_writer");
	if (!writer)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(writer)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

struct lockfault_scenario lockfault_mmap_lock_io = {
	.name = "mmap-lock-io",
	.run = lockfault_mmap_lock_io_run,
	.locks = { { "mm.mmap_lock", &lockfault_mmap_nobodys } },
	.params = { { "pid", 1, 1, 4194304 } },
};
