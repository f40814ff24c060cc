// SPDX-License-Identifier: GPL-2.0
/*
 * AA: a task waits for a sleeping lock that it holds itself. Never ends.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/slab.h>
#include <linux/workqueue.h>
#include <linux/ww_mutex.h>

#include "lockfault.h"

/*
 * PREEMPT_RT notices a task that queues behind itself: it warns, takes the
 * task off the wait list and parks it for ever. And its rwsem writers, while
 * they wait for readers, are on no list.
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
 * ww-mutex-aa: the qxl hang: a kworker takes a ww_mutex twice, without an
 * acquire context, so that the ww logic (-EALREADY, -EDEADLK) has no say; an
 * rmmod-like task is in flush_workqueue() behind it.
 * Verdict: self-deadlock, proven: the kworker owns the buffer object's
 * reservation and waits for it. The flusher is a victim.
 */
struct lockfault_buffer_object {
	u8 other_members[0x60];
	struct ww_mutex reservation;
};

static DEFINE_WW_CLASS(lockfault_ww_class);
static struct lockfault_buffer_object *lockfault_bo;
static struct workqueue_struct *lockfault_ww_wq;
static struct lockfault_task *lockfault_ww_kworker;

static lockfault_frame void lockfault_ww_mutex_aa_reserve(struct lockfault_buffer_object *bo,
							  struct lockfault_task *self)
{
	lockfault_wants(self);
	ww_mutex_lock(&bo->reservation, NULL);
	ww_mutex_unlock(&bo->reservation);
}

static lockfault_frame void lockfault_ww_mutex_aa_worker(struct work_struct *work)
{
	struct lockfault_task *self = lockfault_join(&lockfault_ww_mutex_aa, "worker");

	if (!self)
		return;
	ww_mutex_lock(&lockfault_bo->reservation, NULL);
	smp_store_release(&lockfault_ww_kworker, self);
	lockfault_ww_mutex_aa_reserve(lockfault_bo, self);
	ww_mutex_unlock(&lockfault_bo->reservation);
}

static DECLARE_WORK(lockfault_ww_work, lockfault_ww_mutex_aa_worker);

static lockfault_frame int lockfault_ww_mutex_aa_flusher(void *data)
{
	lockfault_wants(data);
	flush_workqueue(lockfault_ww_wq);
	return 0;
}

static int lockfault_ww_mutex_aa_run(struct lockfault_scenario *s)
{
	struct ww_mutex *lock = &lockfault_bo->reservation;
	struct lockfault_task *worker, *flusher;

	queue_work(lockfault_ww_wq, &lockfault_ww_work);
	if (!lockfault_until(s, (worker = smp_load_acquire(&lockfault_ww_kworker))))
		return -ETIMEDOUT;
	if (!lockfault_until(s, lockfault_ww_owner(lock) == worker->task &&
				lockfault_is_queued(lockfault_ww_waiters(lock)) &&
				lockfault_is_asleep(worker)))
		return -ETIMEDOUT;
	flusher = lockfault_spawn(s, "flusher", 0, LOCKFAULT_ANY_CPU,
				  lockfault_ww_mutex_aa_flusher, NULL, "lf_wwaa_flush");
	if (!flusher)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(flusher)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_ww_mutex_aa_init(struct lockfault_scenario *s)
{
	lockfault_bo = kzalloc(sizeof(*lockfault_bo), GFP_KERNEL);
	lockfault_ww_wq = alloc_workqueue("lf_ww_wq", 0, 0);
	if (!lockfault_bo || !lockfault_ww_wq) {
		if (lockfault_ww_wq)
			destroy_workqueue(lockfault_ww_wq);
		kfree(lockfault_bo);
		return -ENOMEM;
	}
	ww_mutex_init(&lockfault_bo->reservation, &lockfault_ww_class);
	s->locks[0].addr = &lockfault_bo->reservation;
	return 0;
}

static void lockfault_ww_mutex_aa_exit(struct lockfault_scenario *s)
{
	destroy_workqueue(lockfault_ww_wq);
	kfree(lockfault_bo);
}

struct lockfault_scenario lockfault_ww_mutex_aa = {
	.name = "ww-mutex-aa",
	.init = lockfault_ww_mutex_aa_init,
	.exit = lockfault_ww_mutex_aa_exit,
	.run = lockfault_ww_mutex_aa_run,
	.locks = { { "heap.ww_aa.reservation" } },
};

/*
 * rwsem-aa. Verdict: self-deadlock: "holder" has lockfault_rwsem_aa_sem for
 * reading (lockfault_rwsem_aa_holder) and waits for it for writing
 * (lockfault_rwsem_aa_write). A reader is not recorded by the lock: the owner
 * word is only a hint (last reader to come), so this is "proven" only if
 * something else confirms it.
 */
static DECLARE_RWSEM(lockfault_rwsem_aa_sem);

static lockfault_frame void lockfault_rwsem_aa_write(struct lockfault_task *self)
{
	lockfault_wants(self);
	down_write(&lockfault_rwsem_aa_sem);
	up_write(&lockfault_rwsem_aa_sem);
}

static lockfault_frame int lockfault_rwsem_aa_holder(void *data)
{
	down_read(&lockfault_rwsem_aa_sem);
	lockfault_rwsem_aa_write(data);
	up_read(&lockfault_rwsem_aa_sem);
	return 0;
}

static int lockfault_rwsem_aa_run(struct lockfault_scenario *s)
{
	struct rw_semaphore *sem = &lockfault_rwsem_aa_sem;
	struct lockfault_task *holder;

	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU,
				 lockfault_rwsem_aa_holder, NULL, "lf_rwaa_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(holder) &&
				lockfault_is_queued(lockfault_rwsem_waiters(sem))))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

struct lockfault_scenario lockfault_rwsem_aa = {
	.name = "rwsem-aa",
	.run = lockfault_rwsem_aa_run,
	.locks = { { "lockfault_rwsem_aa_sem", &lockfault_rwsem_aa_sem } },
};
