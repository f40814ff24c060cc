// SPDX-License-Identifier: GPL-2.0
/*
 * As reinit.c, for a wait queue, an rt_mutex and a percpu-rwsem: initialised
 * again while somebody waits. The waiters are forgotten and never come back.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/percpu-rwsem.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "lockfault.h"

struct lockfault_device {
	u8 other_members[0x48];
	wait_queue_head_t queue;
	bool ready;
	struct rt_mutex rt_mutex;
	struct percpu_rw_semaphore percpu;
};

static struct lockfault_device *lockfault_queue_dev;
static struct lockfault_device *lockfault_rt_dev;
static struct lockfault_device *lockfault_percpu_dev;
static LOCKFAULT_GATE(lockfault_reinit_rt_gate);
static LOCKFAULT_GATE(lockfault_reinit_percpu_gate);

static int lockfault_device_new(struct lockfault_device **dev)
{
	*dev = kzalloc(sizeof(**dev), GFP_KERNEL);
	return *dev ? 0 : -ENOMEM;
}

static unsigned int lockfault_queue_len(wait_queue_head_t *wq)
{
	unsigned int n = 0;
	unsigned long flags;
	struct list_head *node;

	spin_lock_irqsave(&wq->lock, flags);
	list_for_each(node, &wq->head)
		n++;
	spin_unlock_irqrestore(&wq->lock, flags);
	return n;
}

/*
 * reinit-wait-queue: "waiter" is in wait_event(), "reinit" initialises the
 * queue again, makes the condition true and wakes who is on the queue: nobody.
 */
static lockfault_frame int lockfault_reinit_wait_queue_waiter(void *data)
{
	struct lockfault_device *dev = lockfault_queue_dev;

	lockfault_wants(data);
	wait_event(dev->queue, smp_load_acquire(&dev->ready));
	return 0;
}

static lockfault_frame int lockfault_reinit_wait_queue_again(void *data)
{
	struct lockfault_device *dev = lockfault_queue_dev;

	init_waitqueue_head(&dev->queue);
	smp_store_release(&dev->ready, true);
	wake_up_all(&dev->queue);
	return 0;
}

static int lockfault_reinit_wait_queue_run(struct lockfault_scenario *s)
{
	wait_queue_head_t *wq = &lockfault_queue_dev->queue;
	struct lockfault_task *waiter;
	int ret;

	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU,
				 lockfault_reinit_wait_queue_waiter, NULL, "lf_req_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && lockfault_queue_len(wq) == 1))
		return -ETIMEDOUT;
	ret = lockfault_reinit_again(s, lockfault_reinit_wait_queue_again, "lf_req_reinit");
	if (ret)
		return ret;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && !lockfault_queue_len(wq)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_reinit_wait_queue_init(struct lockfault_scenario *s)
{
	int ret = lockfault_device_new(&lockfault_queue_dev);

	if (ret)
		return ret;
	init_waitqueue_head(&lockfault_queue_dev->queue);
	s->locks[0].addr = &lockfault_queue_dev->queue;
	return 0;
}

static void lockfault_reinit_wait_queue_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_queue_dev);
}

struct lockfault_scenario lockfault_reinit_wait_queue = {
	.name = "reinit-wait-queue",
	.init = lockfault_reinit_wait_queue_init,
	.exit = lockfault_reinit_wait_queue_exit,
	.run = lockfault_reinit_wait_queue_run,
	.locks = { { "heap.reinit.wait_queue" } },
};

/*
 * reinit-rt-mutex: "holder" has the rt_mutex, "waiter" is queued, "reinit"
 * calls rt_mutex_init(); the holder then unlocks and exits. The lock looks free
 * and fine, the waiter stays.
 */
static lockfault_frame int lockfault_reinit_rt_mutex_holder(void *data)
{
	rt_mutex_lock(&lockfault_rt_dev->rt_mutex);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_reinit_rt_gate);
	rt_mutex_unlock(&lockfault_rt_dev->rt_mutex);
	return 0;
}

static lockfault_frame int lockfault_reinit_rt_mutex_waiter(void *data)
{
	lockfault_wants(data);
	rt_mutex_lock(&lockfault_rt_dev->rt_mutex);
	rt_mutex_unlock(&lockfault_rt_dev->rt_mutex);
	return 0;
}

static lockfault_frame int lockfault_reinit_rt_mutex_again(void *data)
{
	rt_mutex_init(&lockfault_rt_dev->rt_mutex);
	return 0;
}

static int lockfault_reinit_rt_mutex_run(struct lockfault_scenario *s)
{
	struct rt_mutex_base *lock = &lockfault_rt_dev->rt_mutex.rtmutex;
	struct lockfault_task *holder, *waiter;
	int ret;

	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU,
				 lockfault_reinit_rt_mutex_holder, NULL, "lf_ret_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(holder)))
		return -ETIMEDOUT;
	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU,
				 lockfault_reinit_rt_mutex_waiter, NULL, "lf_ret_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && lockfault_rt_waiters(lock) == 1))
		return -ETIMEDOUT;
	ret = lockfault_reinit_again(s, lockfault_reinit_rt_mutex_again, "lf_ret_reinit");
	if (ret)
		return ret;
	lockfault_gate_open(&lockfault_reinit_rt_gate);
	if (!lockfault_until(s, lockfault_has_exited(holder) && lockfault_is_asleep(waiter) &&
				!lockfault_rt_owner(lock) && !lockfault_rt_waiters(lock)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_reinit_rt_mutex_init(struct lockfault_scenario *s)
{
	int ret = lockfault_device_new(&lockfault_rt_dev);

	if (ret)
		return ret;
	rt_mutex_init(&lockfault_rt_dev->rt_mutex);
	s->locks[0].addr = &lockfault_rt_dev->rt_mutex;
	return 0;
}

static void lockfault_reinit_rt_mutex_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_rt_dev);
}

struct lockfault_scenario lockfault_reinit_rt_mutex = {
	.name = "reinit-rt-mutex",
	.init = lockfault_reinit_rt_mutex_init,
	.exit = lockfault_reinit_rt_mutex_exit,
	.run = lockfault_reinit_rt_mutex_run,
	.locks = { { "heap.reinit.rt_mutex" } },
};

/*
 * reinit-percpu-rwsem: "holder" has it for writing, "waiter" (read) is queued,
 * "reinit" initialises it again and reads at once, beside the writer. The holder
 * keeps it: the kernel would notice an up_write() of a lock that is not held.
 */
static lockfault_frame int lockfault_reinit_percpu_rwsem_holder(void *data)
{
	percpu_down_write(&lockfault_percpu_dev->percpu);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_reinit_percpu_gate);
	return 0;
}

static lockfault_frame int lockfault_reinit_percpu_rwsem_waiter(void *data)
{
	lockfault_wants(data);
	percpu_down_read(&lockfault_percpu_dev->percpu);
	percpu_up_read(&lockfault_percpu_dev->percpu);
	return 0;
}

static lockfault_frame int lockfault_reinit_percpu_rwsem_again(void *data)
{
	struct percpu_rw_semaphore *sem = &lockfault_percpu_dev->percpu;

	if (percpu_init_rwsem(sem))
		return -ENOMEM;
	percpu_down_read(sem);
	percpu_up_read(sem);
	return 0;
}

static int lockfault_reinit_percpu_rwsem_run(struct lockfault_scenario *s)
{
	struct percpu_rw_semaphore *sem = &lockfault_percpu_dev->percpu;
	struct lockfault_task *holder, *waiter;
	int ret;

	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU,
				 lockfault_reinit_percpu_rwsem_holder, NULL, "lf_rep_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(holder)))
		return -ETIMEDOUT;
	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU,
				 lockfault_reinit_percpu_rwsem_waiter, NULL, "lf_rep_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) &&
				lockfault_queue_len(&sem->waiters) == 1))
		return -ETIMEDOUT;
	ret = lockfault_reinit_again(s, lockfault_reinit_percpu_rwsem_again, "lf_rep_reinit");
	if (ret)
		return ret;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && !lockfault_has_exited(holder) &&
				!lockfault_queue_len(&sem->waiters)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_reinit_percpu_rwsem_init(struct lockfault_scenario *s)
{
	int ret = lockfault_device_new(&lockfault_percpu_dev);

	if (ret)
		return ret;
	s->locks[0].addr = &lockfault_percpu_dev->percpu;
	return percpu_init_rwsem(&lockfault_percpu_dev->percpu);
}

static void lockfault_reinit_percpu_rwsem_exit(struct lockfault_scenario *s)
{
	if (!lockfault_percpu_dev)
		return;
	percpu_free_rwsem(&lockfault_percpu_dev->percpu);
	kfree(lockfault_percpu_dev);
}

struct lockfault_scenario lockfault_reinit_percpu_rwsem = {
	.name = "reinit-percpu-rwsem",
	.init = lockfault_reinit_percpu_rwsem_init,
	.exit = lockfault_reinit_percpu_rwsem_exit,
	.run = lockfault_reinit_percpu_rwsem_run,
	.locks = { { "heap.reinit.percpu_rwsem" } },
};
