// SPDX-License-Identifier: GPL-2.0
/*
 * A mutex's holder waits for something that is no lock: an RCU grace period, a
 * locked page, a wait queue; or it was stopped. Waiters queue behind it.
 * All four end after ms.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/srcu.h>
#include <linux/string.h>

#include "lockfault.h"

static DEFINE_MUTEX(lockfault_in_rcu_mutex);
static DEFINE_MUTEX(lockfault_in_page_mutex);
static DEFINE_MUTEX(lockfault_in_queue_mutex);
static DEFINE_MUTEX(lockfault_stopped_mutex);
static LOCKFAULT_GATE(lockfault_in_rcu_gate);
static LOCKFAULT_GATE(lockfault_in_page_gate);
DEFINE_STATIC_SRCU(lockfault_srcu);
static DECLARE_WAIT_QUEUE_HEAD(lockfault_wait_queue);
static bool lockfault_wait_queue_over;
static struct page *lockfault_page;

static lockfault_frame int lockfault_in_waiter(void *data)
{
	struct lockfault_task *self = data;
	struct mutex *lock = self->arg;

	lockfault_wants(self);
	mutex_lock(lock);
	mutex_unlock(lock);
	return 0;
}

/* Start the holder, see it asleep in what it waits for, and two waiters behind it. */
static int lockfault_in_setup(struct lockfault_scenario *s, int (*fn)(void *),
			      struct mutex *lock, const char *prefix)
{
	struct lockfault_task *holder;
	unsigned int i;

	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU, fn, NULL, "%s_holder", prefix);
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(holder)))
		return -ETIMEDOUT;
	for (i = 0; i < 2; i++)
		if (!lockfault_spawn(s, "waiter", i, LOCKFAULT_ANY_CPU, lockfault_in_waiter, lock,
				     "%s_wait%u", prefix, i))
			return -ENOMEM;
	if (!lockfault_until(s, lockfault_mutex_waiters(lock) == 2 &&
				lockfault_all_asleep(s, "waiter")))
		return -ETIMEDOUT;
	return 0;
}

/*
 * holder-in-rcu. Verdict: no deadlock; "holder" owns lockfault_in_rcu_mutex and
 * waits for an RCU grace period, which "reader" holds up in its read-side
 * section: sleepable RCU, so that the reader may sleep.
 */
static lockfault_frame int lockfault_in_rcu_reader(void *data)
{
	struct lockfault_task *self = data;
	int idx = srcu_read_lock(&lockfault_srcu);

	lockfault_holds(self);
	lockfault_gate_pass(&lockfault_in_rcu_gate);
	srcu_read_unlock(&lockfault_srcu, idx);
	return 0;
}

static lockfault_frame int lockfault_in_rcu_holder(void *data)
{
	struct lockfault_task *self = data;

	mutex_lock(&lockfault_in_rcu_mutex);
	lockfault_wants(self);
	synchronize_srcu(&lockfault_srcu);
	mutex_unlock(&lockfault_in_rcu_mutex);
	return 0;
}

static int lockfault_holder_in_rcu_run(struct lockfault_scenario *s)
{
	struct lockfault_task *reader;
	int ret = -ETIMEDOUT;

	lockfault_gate_close(&lockfault_in_rcu_gate);
	reader = lockfault_spawn(s, "reader", 0, LOCKFAULT_ANY_CPU, lockfault_in_rcu_reader, NULL,
				 "lf_rcu_reader");
	if (!reader)
		return -ENOMEM;
	if (lockfault_until(s, lockfault_is_holding(reader)))
		ret = lockfault_in_setup(s, lockfault_in_rcu_holder, &lockfault_in_rcu_mutex,
					 "lf_rcu");
	if (!ret) {
		lockfault_established(s);
		lockfault_sleep_ms(lockfault_param(s, "ms"));
	}
	lockfault_gate_open(&lockfault_in_rcu_gate);
	return ret ? ret : LOCKFAULT_ENDS;
}

struct lockfault_scenario lockfault_holder_in_rcu = {
	.name = "holder-in-rcu",
	.run = lockfault_holder_in_rcu_run,
	.locks = { { "lockfault_in_rcu_mutex", &lockfault_in_rcu_mutex } },
	.params = { { "ms", 5000, 500, 3600000 } },
};

/*
 * holder-in-page. Verdict: no deadlock; "holder" owns lockfault_in_page_mutex
 * and waits for a page that "locker" has locked.
 */
static lockfault_frame int lockfault_in_page_locker(void *data)
{
	struct lockfault_task *self = data;

	lock_page(lockfault_page);
	lockfault_holds(self);
	lockfault_gate_pass(&lockfault_in_page_gate);
	unlock_page(lockfault_page);
	return 0;
}

static lockfault_frame int lockfault_in_page_holder(void *data)
{
	struct lockfault_task *self = data;

	mutex_lock(&lockfault_in_page_mutex);
	lockfault_wants(self);
	lock_page(lockfault_page);
	unlock_page(lockfault_page);
	mutex_unlock(&lockfault_in_page_mutex);
	return 0;
}

static int lockfault_holder_in_page_run(struct lockfault_scenario *s)
{
	struct lockfault_task *locker;
	int ret = -ETIMEDOUT;

	lockfault_gate_close(&lockfault_in_page_gate);
	locker = lockfault_spawn(s, "locker", 0, LOCKFAULT_ANY_CPU, lockfault_in_page_locker, NULL,
				 "lf_page_locker");
	if (!locker)
		return -ENOMEM;
	if (lockfault_until(s, lockfault_is_holding(locker)))
		ret = lockfault_in_setup(s, lockfault_in_page_holder, &lockfault_in_page_mutex,
					 "lf_page");
	if (!ret) {
		lockfault_established(s);
		lockfault_sleep_ms(lockfault_param(s, "ms"));
	}
	lockfault_gate_open(&lockfault_in_page_gate);
	return ret ? ret : LOCKFAULT_ENDS;
}

static int lockfault_holder_in_page_init(struct lockfault_scenario *s)
{
	lockfault_page = alloc_page(GFP_KERNEL);
	return lockfault_page ? 0 : -ENOMEM;
}

static void lockfault_holder_in_page_exit(struct lockfault_scenario *s)
{
	__free_page(lockfault_page);
}

struct lockfault_scenario lockfault_holder_in_page = {
	.name = "holder-in-page",
	.init = lockfault_holder_in_page_init,
	.exit = lockfault_holder_in_page_exit,
	.run = lockfault_holder_in_page_run,
	.locks = { { "lockfault_in_page_mutex", &lockfault_in_page_mutex } },
	.params = { { "ms", 5000, 500, 3600000 } },
};

/*
 * holder-in-queue. Verdict: no deadlock; "holder" owns lockfault_in_queue_mutex
 * and sleeps (uninterruptible) in wait_event() on lockfault_wait_queue.
 */
static lockfault_frame int lockfault_in_queue_holder(void *data)
{
	struct lockfault_task *self = data;

	mutex_lock(&lockfault_in_queue_mutex);
	lockfault_wants(self);
	wait_event(lockfault_wait_queue, READ_ONCE(lockfault_wait_queue_over));
	mutex_unlock(&lockfault_in_queue_mutex);
	return 0;
}

static int lockfault_holder_in_queue_run(struct lockfault_scenario *s)
{
	int ret;

	WRITE_ONCE(lockfault_wait_queue_over, false);
	ret = lockfault_in_setup(s, lockfault_in_queue_holder, &lockfault_in_queue_mutex,
				 "lf_queue");
	if (!ret) {
		lockfault_established(s);
		lockfault_sleep_ms(lockfault_param(s, "ms"));
	}
	WRITE_ONCE(lockfault_wait_queue_over, true);
	wake_up(&lockfault_wait_queue);
	return ret ? ret : LOCKFAULT_ENDS;
}

struct lockfault_scenario lockfault_holder_in_queue = {
	.name = "holder-in-queue",
	.run = lockfault_holder_in_queue_run,
	.locks = { { "lockfault_in_queue_mutex", &lockfault_in_queue_mutex } },
	.params = { { "ms", 5000, 500, 3600000 } },
};

/*
 * holder-stopped. Verdict: no deadlock; "holder" owns lockfault_stopped_mutex
 * and is in state T, as after SIGSTOP or under a debugger.
 */
static lockfault_frame void lockfault_stopped_here(void)
{
	/* TASK_STOPPED contains TASK_WAKEKILL: a SIGKILL wakes it. */
	while (!signal_pending(current)) {
		set_special_state(TASK_STOPPED);
		if (signal_pending(current))
			__set_current_state(TASK_RUNNING);
		schedule();
	}
	flush_signals(current);
}

static lockfault_frame int lockfault_stopped_holder(void *data)
{
	struct lockfault_task *self = data;

	allow_signal(SIGKILL);
	mutex_lock(&lockfault_stopped_mutex);
	lockfault_wants(self);
	lockfault_stopped_here();
	mutex_unlock(&lockfault_stopped_mutex);
	return 0;
}

static void lockfault_stopped_resume(struct lockfault_scenario *s)
{
	struct lockfault_task *t;

	list_for_each_entry(t, &s->tasks, node)
		if (!strcmp(t->role, "holder"))
			send_sig(SIGKILL, t->task, 1);
}

static int lockfault_holder_stopped_run(struct lockfault_scenario *s)
{
	int ret;

	ret = lockfault_in_setup(s, lockfault_stopped_holder, &lockfault_stopped_mutex, "lf_stop");
	if (!ret) {
		lockfault_established(s);
		lockfault_sleep_ms(lockfault_param(s, "ms"));
	}
	lockfault_stopped_resume(s);
	return ret ? ret : LOCKFAULT_ENDS;
}

struct lockfault_scenario lockfault_holder_stopped = {
	.name = "holder-stopped",
	.run = lockfault_holder_stopped_run,
	.locks = { { "lockfault_stopped_mutex", &lockfault_stopped_mutex } },
	.params = { { "ms", 5000, 500, 3600000 } },
};
