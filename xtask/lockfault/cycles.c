// SPDX-License-Identifier: GPL-2.0
/*
 * Real deadlocks among sleeping locks: a task behind itself (AA), two tasks
 * crosswise (AB-BA), longer and mixed cycles. None of them ever ends.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/slab.h>
#include <linux/workqueue.h>

#include "lockfault.h"

/*
 * PREEMPT_RT notices a task that queues behind itself: it warns, takes the
 * task off the wait list and parks it for ever.
 */
static bool lockfault_is_queued(unsigned int waiters)
{
	return IS_ENABLED(CONFIG_PREEMPT_RT) || waiters == 1;
}

/*
 * mutex-aa. Verdict: self-deadlock, proven: the kworker owns
 * lockfault_aa_mutex (taken in lockfault_mutex_aa_worker) and waits for it
 * (in lockfault_mutex_aa_inner). The flusher is a victim: it waits for the
 * kworker's work item, not for a lock.
 */
static DEFINE_MUTEX(lockfault_aa_mutex);
static struct workqueue_struct *lockfault_aa_wq;
static struct lockfault_task *lockfault_aa_kworker;

static lockfault_frame void lockfault_mutex_aa_inner(struct lockfault_task *self)
{
	lockfault_wants(self);
	mutex_lock(&lockfault_aa_mutex);
	mutex_unlock(&lockfault_aa_mutex);
}

static lockfault_frame void lockfault_mutex_aa_worker(struct work_struct *work)
{
	struct lockfault_task *self = lockfault_join(&lockfault_mutex_aa, "worker");

	if (!self)
		return;
	mutex_lock(&lockfault_aa_mutex);
	smp_store_release(&lockfault_aa_kworker, self);
	lockfault_mutex_aa_inner(self);
	mutex_unlock(&lockfault_aa_mutex);
}

static DECLARE_WORK(lockfault_aa_work, lockfault_mutex_aa_worker);

static lockfault_frame int lockfault_mutex_aa_flusher(void *data)
{
	lockfault_wants(data);
	flush_work(&lockfault_aa_work);
	return 0;
}

static int lockfault_mutex_aa_run(struct lockfault_scenario *s)
{
	struct lockfault_task *worker, *flusher;

	queue_work(lockfault_aa_wq, &lockfault_aa_work);
	if (!lockfault_until(s, (worker = smp_load_acquire(&lockfault_aa_kworker))))
		return -ETIMEDOUT;
	if (!lockfault_until(s, lockfault_mutex_owner(&lockfault_aa_mutex) == worker->task &&
				lockfault_is_queued(lockfault_mutex_waiters(&lockfault_aa_mutex)) &&
				lockfault_is_asleep(worker)))
		return -ETIMEDOUT;
	flusher = lockfault_spawn(s, "flusher", 0, LOCKFAULT_ANY_CPU,
				  lockfault_mutex_aa_flusher, NULL, "lf_aa_flush");
	if (!flusher)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(flusher)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_mutex_aa_init(struct lockfault_scenario *s)
{
	lockfault_aa_wq = alloc_workqueue("lf_aa_wq", 0, 0);
	return lockfault_aa_wq ? 0 : -ENOMEM;
}

static void lockfault_mutex_aa_exit(struct lockfault_scenario *s)
{
	destroy_workqueue(lockfault_aa_wq);
}

struct lockfault_scenario lockfault_mutex_aa = {
	.name = "mutex-aa",
	.init = lockfault_mutex_aa_init,
	.exit = lockfault_mutex_aa_exit,
	.run = lockfault_mutex_aa_run,
	.locks = { { "lockfault_aa_mutex", &lockfault_aa_mutex } },
};

/*
 * mutex-abba. Verdict: deadlock of two tasks, proven: "first" owns
 * lockfault_abba_a and waits for lockfault_abba_b, "second" the other way round.
 */
static DEFINE_MUTEX(lockfault_abba_a);
static DEFINE_MUTEX(lockfault_abba_b);
static LOCKFAULT_GATE(lockfault_abba_gate);

static lockfault_frame int lockfault_mutex_abba_first(void *data)
{
	mutex_lock(&lockfault_abba_a);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_abba_gate);
	lockfault_wants(data);
	mutex_lock(&lockfault_abba_b);
	mutex_unlock(&lockfault_abba_b);
	mutex_unlock(&lockfault_abba_a);
	return 0;
}

static lockfault_frame int lockfault_mutex_abba_second(void *data)
{
	mutex_lock(&lockfault_abba_b);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_abba_gate);
	lockfault_wants(data);
	mutex_lock(&lockfault_abba_a);
	mutex_unlock(&lockfault_abba_a);
	mutex_unlock(&lockfault_abba_b);
	return 0;
}

static int lockfault_mutex_abba_run(struct lockfault_scenario *s)
{
	struct lockfault_task *first, *second;

	first = lockfault_spawn(s, "first", 0, LOCKFAULT_ANY_CPU,
				lockfault_mutex_abba_first, NULL, "lf_abba_first");
	second = lockfault_spawn(s, "second", 0, LOCKFAULT_ANY_CPU,
				 lockfault_mutex_abba_second, NULL, "lf_abba_second");
	if (!first || !second)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(first) && lockfault_is_holding(second)))
		return -ETIMEDOUT;
	lockfault_gate_open(&lockfault_abba_gate);
	if (!lockfault_until(s, lockfault_mutex_owner(&lockfault_abba_a) == first->task &&
				lockfault_mutex_owner(&lockfault_abba_b) == second->task &&
				lockfault_mutex_waiters(&lockfault_abba_a) == 1 &&
				lockfault_mutex_waiters(&lockfault_abba_b) == 1 &&
				lockfault_is_asleep(first) && lockfault_is_asleep(second)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

struct lockfault_scenario lockfault_mutex_abba = {
	.name = "mutex-abba",
	.run = lockfault_mutex_abba_run,
	.locks = {
		{ "lockfault_abba_a", &lockfault_abba_a },
		{ "lockfault_abba_b", &lockfault_abba_b },
	},
};
