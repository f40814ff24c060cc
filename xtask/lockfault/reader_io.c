// SPDX-License-Identifier: GPL-2.0
/*
 * rwsem-reader-io: the reader who left with the key. A reader sleeps in (fake)
 * block I/O while it holds a rwsem, a writer queues, then N readers queue
 * behind the writer. The lock does not record the reader.
 * Verdict: no deadlock; root blocker is "holder": it has the rwsem for reading
 * and sleeps in I/O (found by the owner hint or by a search of the stacks, so
 * "likely", not "proven"); first waiter is "writer", then N times "reader".
 * With ms=N the I/O completes N milliseconds after all are queued, and all of
 * them leave.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/slab.h>

#include "lockfault.h"

struct lockfault_address_space {
	u8 other_members[0x88];
	struct rw_semaphore sem;
	bool io_done;
};

static struct lockfault_address_space *lockfault_io_space;

static lockfault_frame void lockfault_fake_block_io(bool *io_done)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (READ_ONCE(*io_done))
			break;
		io_schedule();
	}
	__set_current_state(TASK_RUNNING);
}

/* Needs @sem again after the I/O: so the lock's address is on the sleeping task's stack. */
static lockfault_frame void lockfault_reader_io_fault(struct rw_semaphore *sem, bool *io_done,
						      struct lockfault_task *self)
{
	down_read(sem);
	lockfault_wants(self);
	lockfault_fake_block_io(io_done);
	up_read(sem);
}

static lockfault_frame int lockfault_reader_io_holder(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_address_space *space = self->arg;

	lockfault_spends(self);
	lockfault_reader_io_fault(&space->sem, &space->io_done, self);
	lockfault_spent(self);
	return 0;
}

static lockfault_frame int lockfault_reader_io_writer(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_address_space *space = self->arg;

	lockfault_wants(self);
	down_write(&space->sem);
	up_write(&space->sem);
	return 0;
}

static lockfault_frame int lockfault_reader_io_reader(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_address_space *space = self->arg;

	lockfault_wants(self);
	down_read(&space->sem);
	up_read(&space->sem);
	return 0;
}

static int lockfault_reader_io_run(struct lockfault_scenario *s)
{
	struct lockfault_address_space *space = lockfault_io_space;
	/* PREEMPT_RT: a writer that waits for readers is on no list. */
	unsigned int writers = IS_ENABLED(CONFIG_PREEMPT_RT) ? 0 : 1;
	unsigned int readers = lockfault_param(s, "readers");
	struct lockfault_task *holder, *writer;
	unsigned int i;

	space->io_done = false;
	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU, lockfault_reader_io_holder,
				 space, "lf_io_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(holder)))
		return -ETIMEDOUT;
	writer = lockfault_spawn(s, "writer", 0, LOCKFAULT_ANY_CPU, lockfault_reader_io_writer,
				 space, "lf_io_writer");
	if (!writer)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(writer) &&
				lockfault_rwsem_waiters(&space->sem) == writers))
		return -ETIMEDOUT;
	for (i = 0; i < readers; i++)
		if (!lockfault_spawn(s, "reader", i, LOCKFAULT_ANY_CPU, lockfault_reader_io_reader,
				     space, "lf_io_rd%u", i))
			return -ENOMEM;
	if (!lockfault_until(s, lockfault_rwsem_waiters(&space->sem) == writers + readers &&
				lockfault_all_asleep(s, NULL)))
		return -ETIMEDOUT;
	lockfault_established(s);
	if (!lockfault_param(s, "ms"))
		return LOCKFAULT_STAYS;
	lockfault_sleep_ms(lockfault_param(s, "ms"));
	WRITE_ONCE(space->io_done, true);
	wake_up_process(holder->task);
	return LOCKFAULT_ENDS;
}

static int lockfault_reader_io_init(struct lockfault_scenario *s)
{
	lockfault_io_space = kzalloc(sizeof(*lockfault_io_space), GFP_KERNEL);
	if (!lockfault_io_space)
		return -ENOMEM;
	init_rwsem(&lockfault_io_space->sem);
	s->locks[0].addr = &lockfault_io_space->sem;
	return 0;
}

static void lockfault_reader_io_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_io_space);
}

struct lockfault_scenario lockfault_rwsem_reader_io = {
	.name = "rwsem-reader-io",
	.init = lockfault_reader_io_init,
	.exit = lockfault_reader_io_exit,
	.run = lockfault_reader_io_run,
	.locks = { { "heap.reader_io.sem" } },
	.params = { { "readers", 20, 1, 1500 }, { "ms", 0, 0, 3600000 } },
};
