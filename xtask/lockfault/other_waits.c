// SPDX-License-Identifier: GPL-2.0
/*
 * other-waits: nobody waits for a lock. A kworker sleeps; "flusher" waits in
 * flush_work(), "canceller" in cancel_work_sync(), "wq-flusher" in
 * flush_workqueue() and "drainer" in drain_workqueue() for it, "waiter" for a
 * completion, "reader" in (fake) block I/O. After ms milliseconds, or on
 * "end other-waits", all of them go on. Verdict: no deadlock; the first four are behind worker; nobody is
 * behind waiter and reader.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/workqueue.h>

#include "lockfault.h"

static struct workqueue_struct *lockfault_slow_wq;
static struct lockfault_task *lockfault_slow_kworker;
static DECLARE_COMPLETION(lockfault_slow_done);
static DECLARE_WAIT_QUEUE_HEAD(lockfault_slow_queue);
static bool lockfault_slow_over;

static lockfault_frame void lockfault_other_waits_worker(struct work_struct *work)
{
	struct lockfault_task *self = lockfault_join(&lockfault_other_waits, "worker");

	if (!self)
		return;
	smp_store_release(&lockfault_slow_kworker, self);
	lockfault_wants(self);
	wait_event(lockfault_slow_queue, READ_ONCE(lockfault_slow_over));
}

static DECLARE_WORK(lockfault_slow_work, lockfault_other_waits_worker);

static lockfault_frame int lockfault_other_waits_flusher(void *data)
{
	lockfault_wants(data);
	flush_work(&lockfault_slow_work);
	return 0;
}

static lockfault_frame int lockfault_other_waits_canceller(void *data)
{
	lockfault_wants(data);
	cancel_work_sync(&lockfault_slow_work);
	return 0;
}

static lockfault_frame int lockfault_other_waits_wq_flusher(void *data)
{
	lockfault_wants(data);
	flush_workqueue(lockfault_slow_wq);
	return 0;
}

static lockfault_frame int lockfault_other_waits_drainer(void *data)
{
	lockfault_wants(data);
	drain_workqueue(lockfault_slow_wq);
	return 0;
}

static lockfault_frame int lockfault_other_waits_waiter(void *data)
{
	lockfault_wants(data);
	wait_for_completion(&lockfault_slow_done);
	return 0;
}

static lockfault_frame int lockfault_other_waits_reader(void *data)
{
	lockfault_wants(data);
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		if (READ_ONCE(lockfault_slow_over))
			break;
		io_schedule();
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static const struct {
	const char *role;
	const char *comm;
	int (*fn)(void *);
} lockfault_other_waits_parts[] = {
	{ "flusher", "lf_ow_flush", lockfault_other_waits_flusher },
	{ "canceller", "lf_ow_cancel", lockfault_other_waits_canceller },
	{ "wq-flusher", "lf_ow_wq", lockfault_other_waits_wq_flusher },
	{ "drainer", "lf_ow_drain", lockfault_other_waits_drainer },
	{ "waiter", "lf_ow_wait", lockfault_other_waits_waiter },
	{ "reader", "lf_ow_read", lockfault_other_waits_reader },
};

static int lockfault_other_waits_run(struct lockfault_scenario *s)
{
	struct lockfault_task *tasks[ARRAY_SIZE(lockfault_other_waits_parts)];
	struct lockfault_task *worker;
	unsigned int i;

	reinit_completion(&lockfault_slow_done);
	WRITE_ONCE(lockfault_slow_over, false);
	WRITE_ONCE(lockfault_slow_kworker, NULL);
	queue_work(lockfault_slow_wq, &lockfault_slow_work);
	if (!lockfault_until(s, (worker = smp_load_acquire(&lockfault_slow_kworker)) &&
				lockfault_is_asleep(worker)))
		return -ETIMEDOUT;
	for (i = 0; i < ARRAY_SIZE(tasks); i++) {
		tasks[i] = lockfault_spawn(s, lockfault_other_waits_parts[i].role, 0,
					   LOCKFAULT_ANY_CPU, lockfault_other_waits_parts[i].fn,
					   NULL, "%s", lockfault_other_waits_parts[i].comm);
		if (!tasks[i])
			return -ENOMEM;
		if (!lockfault_until(s, lockfault_is_asleep(tasks[i])))
			return -ETIMEDOUT;
	}
	lockfault_established(s);
	lockfault_last_ms(s, lockfault_param(s, "ms"));
	WRITE_ONCE(lockfault_slow_over, true);
	complete(&lockfault_slow_done);
	wake_up(&lockfault_slow_queue);
	wake_up_process(tasks[ARRAY_SIZE(tasks) - 1]->task);
	flush_work(&lockfault_slow_work);
	/* The kworker itself goes on to other things. */
	lockfault_forget_task(worker);
	return LOCKFAULT_ENDS;
}

static int lockfault_other_waits_init(struct lockfault_scenario *s)
{
	lockfault_slow_wq = alloc_workqueue("lf_slow_wq", 0, 0);
	return lockfault_slow_wq ? 0 : -ENOMEM;
}

static void lockfault_other_waits_exit(struct lockfault_scenario *s)
{
	destroy_workqueue(lockfault_slow_wq);
}

struct lockfault_scenario lockfault_other_waits = {
	.name = "other-waits",
	.init = lockfault_other_waits_init,
	.exit = lockfault_other_waits_exit,
	.run = lockfault_other_waits_run,
	.params = { { "ms", 5000, 0, 600000 } },
};
