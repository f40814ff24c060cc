// SPDX-License-Identifier: GPL-2.0
/*
 * Real contention, which ends, on the locks whose waiters sleep. There is
 * nothing to find but the contention itself: no deadlock may be reported. In
 * the first act each waiter waits for the holder, whose pid is known; what
 * exactly is expected stands at each scenario.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/percpu-rwsem.h>
#include <linux/semaphore.h>
#include <linux/slab.h>

#include "contend.h"

/*
 * contend-mutex. Verdict: each "waiter" waits for lockfault_contend_mutex_lock,
 * owner = "holder", which is asleep.
 */
static DEFINE_MUTEX(lockfault_contend_mutex_lock);

static lockfault_frame void lockfault_contend_mutex_take(bool write)
{
	mutex_lock(&lockfault_contend_mutex_lock);
}

static lockfault_frame void lockfault_contend_mutex_give(bool write)
{
	mutex_unlock(&lockfault_contend_mutex_lock);
}

/* Nobody signals a kernel thread that has not asked for it, so none of these returns without the lock. */
static lockfault_frame void lockfault_contend_mutex_otherwise(bool write, unsigned int how)
{
	switch (how % 4) {
	case 0:
		mutex_lock_io(&lockfault_contend_mutex_lock);
		return;
	case 1:
		WARN_ON(mutex_lock_interruptible(&lockfault_contend_mutex_lock));
		return;
	case 2:
		WARN_ON(mutex_lock_killable(&lockfault_contend_mutex_lock));
		return;
	default:
		while (!mutex_trylock(&lockfault_contend_mutex_lock))
			usleep_range(50, 100);
	}
}

static lockfault_frame bool lockfault_contend_mutex_back(bool write, unsigned int how)
{
	mutex_unlock(&lockfault_contend_mutex_lock);
	return false;
}

static bool lockfault_contend_mutex_queued(const struct lockfault_part *part, unsigned int waiters)
{
	return lockfault_mutex_waiters(&lockfault_contend_mutex_lock) == waiters;
}

static const struct lockfault_part lockfault_contend_mutex_parts[] = {
	{ "holder", "lf_cmx_holder", .holder = true },
	{ "waiter", "lf_cmx_wait0" },
	{ "waiter", "lf_cmx_wait1" },
	{ "waiter", "lf_cmx_wait2" },
	{ }
};

static struct lockfault_contend lockfault_contend_mutex_play = {
	.take = lockfault_contend_mutex_take,
	.give = lockfault_contend_mutex_give,
	.take_otherwise = lockfault_contend_mutex_otherwise,
	.give_otherwise = lockfault_contend_mutex_back,
	.queued = lockfault_contend_mutex_queued,
	.parts = lockfault_contend_mutex_parts,
	.storm_comm = "lf_cmx_storm",
};

static int lockfault_contend_mutex_run(struct lockfault_scenario *s)
{
	return lockfault_contend_run(s, &lockfault_contend_mutex_play);
}

struct lockfault_scenario lockfault_contend_mutex = {
	.name = "contend-mutex",
	.run = lockfault_contend_mutex_run,
	.locks = { { "lockfault_contend_mutex_lock", &lockfault_contend_mutex_lock } },
	.params = { LOCKFAULT_CONTEND_PARAMS, LOCKFAULT_CONTEND_WATCHED },
};

/*
 * contend-rwsem. Verdict: "reader-waiter" (read) and "writer-waiter" (write)
 * wait for the writer "writer-holder"; later "drain-waiter" (write) waits for
 * "reader-holder", whom the lock does not record for sure.
 */
struct lockfault_inode {
	u8 other_members[0xa0];
	struct rw_semaphore rwsem;
};

static struct lockfault_inode *lockfault_contend_inode;

static lockfault_frame void lockfault_contend_rwsem_take(bool write)
{
	if (write)
		down_write(&lockfault_contend_inode->rwsem);
	else
		down_read(&lockfault_contend_inode->rwsem);
}

static lockfault_frame void lockfault_contend_rwsem_give(bool write)
{
	if (write)
		up_write(&lockfault_contend_inode->rwsem);
	else
		up_read(&lockfault_contend_inode->rwsem);
}

static lockfault_frame void lockfault_contend_rwsem_otherwise(bool write, unsigned int how)
{
	struct rw_semaphore *rwsem = &lockfault_contend_inode->rwsem;

	switch (how % 3) {
	case 0:
		if (write)
			WARN_ON(down_write_killable(rwsem));
		else
			WARN_ON(down_read_interruptible(rwsem));
		return;
	case 1:
		if (write)
			WARN_ON(down_write_killable(rwsem));
		else
			WARN_ON(down_read_killable(rwsem));
		return;
	default:
		while (!(write ? down_write_trylock(rwsem) : down_read_trylock(rwsem)))
			usleep_range(50, 100);
	}
}

static lockfault_frame bool lockfault_contend_rwsem_back(bool write, unsigned int how)
{
	bool downgraded = write && how % 2;

	if (downgraded) {
		downgrade_write(&lockfault_contend_inode->rwsem);
		udelay(50);
	}
	lockfault_contend_rwsem_give(write && !downgraded);
	return downgraded;
}

static bool lockfault_contend_rwsem_queued(const struct lockfault_part *part, unsigned int waiters)
{
	/* PREEMPT_RT: a writer that waits for readers is on no list. */
	return IS_ENABLED(CONFIG_PREEMPT_RT) ||
	       lockfault_rwsem_waiters(&lockfault_contend_inode->rwsem) == waiters;
}

static const struct lockfault_part lockfault_contend_rwsem_parts[] = {
	{ "writer-holder", "lf_crs_wholder", .holder = true, .write = true },
	{ "reader-waiter", "lf_crs_rwait" },
	{ "writer-waiter", "lf_crs_wwait", .write = true },
	{ "reader-holder", "lf_crs_rholder", .holder = true },
	{ "drain-waiter", "lf_crs_drain", .write = true },
	{ }
};

static struct lockfault_contend lockfault_contend_rwsem_play = {
	.take = lockfault_contend_rwsem_take,
	.give = lockfault_contend_rwsem_give,
	.take_otherwise = lockfault_contend_rwsem_otherwise,
	.give_otherwise = lockfault_contend_rwsem_back,
	.shared = true,
	.queued = lockfault_contend_rwsem_queued,
	.parts = lockfault_contend_rwsem_parts,
	.storm_comm = "lf_crs_storm",
};

static int lockfault_contend_rwsem_run(struct lockfault_scenario *s)
{
	return lockfault_contend_run(s, &lockfault_contend_rwsem_play);
}

static int lockfault_contend_rwsem_init(struct lockfault_scenario *s)
{
	lockfault_contend_inode = kzalloc(sizeof(*lockfault_contend_inode), GFP_KERNEL);
	if (!lockfault_contend_inode)
		return -ENOMEM;
	init_rwsem(&lockfault_contend_inode->rwsem);
	s->locks[0].addr = &lockfault_contend_inode->rwsem;
	return 0;
}

static void lockfault_contend_rwsem_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_contend_inode);
}

struct lockfault_scenario lockfault_contend_rwsem = {
	.name = "contend-rwsem",
	.init = lockfault_contend_rwsem_init,
	.exit = lockfault_contend_rwsem_exit,
	.run = lockfault_contend_rwsem_run,
	.locks = { { "heap.contend.rwsem" } },
	.params = { LOCKFAULT_CONTEND_PARAMS, LOCKFAULT_CONTEND_WATCHED },
};

/*
 * contend-semaphore. Verdict: each "waiter" waits for the semaphore. It has no
 * owner: naming one for certain would be wrong ("holder" went through down()).
 */
static struct semaphore lockfault_contend_sem;

static lockfault_frame void lockfault_contend_semaphore_take(bool write)
{
	down(&lockfault_contend_sem);
}

static lockfault_frame void lockfault_contend_semaphore_give(bool write)
{
	up(&lockfault_contend_sem);
}

static bool lockfault_contend_semaphore_queued(const struct lockfault_part *part,
					       unsigned int waiters)
{
	return lockfault_list_len(&lockfault_contend_sem.lock,
				  &lockfault_contend_sem.wait_list) == waiters;
}

static const struct lockfault_part lockfault_contend_semaphore_parts[] = {
	{ "holder", "lf_csm_holder", .holder = true },
	{ "waiter", "lf_csm_wait0" },
	{ "waiter", "lf_csm_wait1" },
	{ }
};

static struct lockfault_contend lockfault_contend_semaphore_play = {
	.take = lockfault_contend_semaphore_take,
	.give = lockfault_contend_semaphore_give,
	.queued = lockfault_contend_semaphore_queued,
	.parts = lockfault_contend_semaphore_parts,
	.storm_comm = "lf_csm_storm",
};

static int lockfault_contend_semaphore_init(struct lockfault_scenario *s)
{
	sema_init(&lockfault_contend_sem, 1);
	return 0;
}

static int lockfault_contend_semaphore_run(struct lockfault_scenario *s)
{
	return lockfault_contend_run(s, &lockfault_contend_semaphore_play);
}

struct lockfault_scenario lockfault_contend_semaphore = {
	.name = "contend-semaphore",
	.init = lockfault_contend_semaphore_init,
	.run = lockfault_contend_semaphore_run,
	.locks = { { "lockfault_contend_sem", &lockfault_contend_sem } },
	.params = { LOCKFAULT_CONTEND_PARAMS },
};

/*
 * contend-rt-mutex. Verdict: each "waiter" waits for
 * lockfault_contend_rtm, owner = "holder".
 */
static DEFINE_RT_MUTEX(lockfault_contend_rtm);

static lockfault_frame void lockfault_contend_rt_mutex_take(bool write)
{
	rt_mutex_lock(&lockfault_contend_rtm);
}

static lockfault_frame void lockfault_contend_rt_mutex_give(bool write)
{
	rt_mutex_unlock(&lockfault_contend_rtm);
}

static bool lockfault_contend_rt_mutex_queued(const struct lockfault_part *part,
					      unsigned int waiters)
{
	return lockfault_rt_waiters(&lockfault_contend_rtm.rtmutex) == waiters;
}

static const struct lockfault_part lockfault_contend_rt_mutex_parts[] = {
	{ "holder", "lf_crt_holder", .holder = true },
	{ "waiter", "lf_crt_wait0" },
	{ "waiter", "lf_crt_wait1" },
	{ }
};

static struct lockfault_contend lockfault_contend_rt_mutex_play = {
	.take = lockfault_contend_rt_mutex_take,
	.give = lockfault_contend_rt_mutex_give,
	.queued = lockfault_contend_rt_mutex_queued,
	.parts = lockfault_contend_rt_mutex_parts,
	.storm_comm = "lf_crt_storm",
};

static int lockfault_contend_rt_mutex_run(struct lockfault_scenario *s)
{
	return lockfault_contend_run(s, &lockfault_contend_rt_mutex_play);
}

struct lockfault_scenario lockfault_contend_rt_mutex = {
	.name = "contend-rt-mutex",
	.run = lockfault_contend_rt_mutex_run,
	.locks = { { "lockfault_contend_rtm", &lockfault_contend_rtm } },
	.params = { LOCKFAULT_CONTEND_PARAMS },
};

/*
 * contend-percpu-rwsem. Verdict: "reader-waiter" (read) and "writer-waiter"
 * (write) wait for "writer-holder", whom the lock does not record; later
 * "drain-waiter", who holds it for writing, waits until "reader-holder" leaves.
 */
static struct percpu_rw_semaphore lockfault_contend_percpu;

static lockfault_frame void lockfault_contend_percpu_take(bool write)
{
	if (write)
		percpu_down_write(&lockfault_contend_percpu);
	else
		percpu_down_read(&lockfault_contend_percpu);
}

static lockfault_frame void lockfault_contend_percpu_give(bool write)
{
	if (write)
		percpu_up_write(&lockfault_contend_percpu);
	else
		percpu_up_read(&lockfault_contend_percpu);
}

/*
 * On the wait queue, or, for the one writer that drains the readers, in the
 * lock's rcuwait. (A writer may first sleep until an RCU grace period is over:
 * that is not yet the lock.)
 */
static bool lockfault_contend_percpu_queued(const struct lockfault_part *part,
					    unsigned int waiters)
{
	wait_queue_head_t *wq = &lockfault_contend_percpu.waiters;
	struct list_head *node;
	unsigned int n = 0;

	spin_lock_irq(&wq->lock);
	list_for_each(node, &wq->head)
		n++;
	spin_unlock_irq(&wq->lock);
	return n == waiters || rcuwait_active(&lockfault_contend_percpu.writer);
}

static const struct lockfault_part lockfault_contend_percpu_parts[] = {
	{ "writer-holder", "lf_cpr_wholder", .holder = true, .write = true },
	{ "reader-waiter", "lf_cpr_rwait" },
	{ "writer-waiter", "lf_cpr_wwait", .write = true },
	{ "reader-holder", "lf_cpr_rholder", .holder = true },
	{ "drain-waiter", "lf_cpr_drain", .write = true },
	{ }
};

static struct lockfault_contend lockfault_contend_percpu_play = {
	.take = lockfault_contend_percpu_take,
	.give = lockfault_contend_percpu_give,
	.shared = true,
	.queued = lockfault_contend_percpu_queued,
	.parts = lockfault_contend_percpu_parts,
	.storm_comm = "lf_cpr_storm",
};

static int lockfault_contend_percpu_init(struct lockfault_scenario *s)
{
	return percpu_init_rwsem(&lockfault_contend_percpu);
}

static void lockfault_contend_percpu_exit(struct lockfault_scenario *s)
{
	percpu_free_rwsem(&lockfault_contend_percpu);
}

static int lockfault_contend_percpu_run(struct lockfault_scenario *s)
{
	return lockfault_contend_run(s, &lockfault_contend_percpu_play);
}

struct lockfault_scenario lockfault_contend_percpu_rwsem = {
	.name = "contend-percpu-rwsem",
	.init = lockfault_contend_percpu_init,
	.exit = lockfault_contend_percpu_exit,
	.run = lockfault_contend_percpu_run,
	.locks = { { "lockfault_contend_percpu", &lockfault_contend_percpu } },
	.params = { LOCKFAULT_CONTEND_PARAMS },
};
