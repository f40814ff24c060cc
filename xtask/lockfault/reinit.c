// SPDX-License-Identifier: GPL-2.0
/*
 * Locks that are initialised again while they are in use. The waiters are
 * forgotten by the lock and never come back.
 * Verdict, when armed before: initialised again while in use, by "reinit", in
 * lockfault_reinit_*_again. Afterwards: the waiter is queued on a list that the
 * lock does not know: its list head is empty.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/slab.h>
#include <linux/swait.h>

#include "lockfault.h"

struct lockfault_request {
	u8 other_members[0x38];
	struct completion done;
	struct mutex mutex;
	struct rw_semaphore rwsem;
};

static struct lockfault_request *lockfault_completion_req;
static struct lockfault_request *lockfault_mutex_req;
static struct lockfault_request *lockfault_rwsem_req;
static LOCKFAULT_GATE(lockfault_reinit_mutex_gate);
static LOCKFAULT_GATE(lockfault_reinit_rwsem_gate);

static int lockfault_request_new(struct lockfault_request **req)
{
	*req = kzalloc(sizeof(**req), GFP_KERNEL);
	if (!*req)
		return -ENOMEM;
	init_completion(&(*req)->done);
	mutex_init(&(*req)->mutex);
	init_rwsem(&(*req)->rwsem);
	return 0;
}

/* Run fn in a task of its own, on CPU 1, and see it end. */
int lockfault_reinit_again(struct lockfault_scenario *s, int (*fn)(void *), const char *comm)
{
	struct lockfault_task *t = lockfault_spawn(s, "reinit", 0, 1, fn, NULL, "%s", comm);

	if (!t)
		return -ENOMEM;
	return lockfault_until(s, lockfault_has_exited(t)) ? 0 : -ETIMEDOUT;
}

/*
 * reinit-completion: "waiter" is in wait_for_completion(), "reinit" initialises
 * the completion again and completes it: done = 1, nobody on the list.
 */
static lockfault_frame int lockfault_reinit_completion_waiter(void *data)
{
	lockfault_wants(data);
	wait_for_completion(&lockfault_completion_req->done);
	return 0;
}

static lockfault_frame int lockfault_reinit_completion_again(void *data)
{
	init_completion(&lockfault_completion_req->done);
	complete(&lockfault_completion_req->done);
	return 0;
}

static int lockfault_reinit_completion_run(struct lockfault_scenario *s)
{
	struct completion *done = &lockfault_completion_req->done;
	struct lockfault_task *waiter;
	int ret;

	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU,
				 lockfault_reinit_completion_waiter, NULL, "lf_rec_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && swait_active(&done->wait)))
		return -ETIMEDOUT;
	ret = lockfault_reinit_again(s, lockfault_reinit_completion_again, "lf_rec_reinit");
	if (ret)
		return ret;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && !swait_active(&done->wait) &&
				READ_ONCE(done->done) == 1))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_reinit_completion_init(struct lockfault_scenario *s)
{
	int ret = lockfault_request_new(&lockfault_completion_req);

	if (!ret)
		s->locks[0].addr = &lockfault_completion_req->done;
	return ret;
}

static void lockfault_reinit_completion_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_completion_req);
}

struct lockfault_scenario lockfault_reinit_completion = {
	.name = "reinit-completion",
	.init = lockfault_reinit_completion_init,
	.exit = lockfault_reinit_completion_exit,
	.run = lockfault_reinit_completion_run,
	.locks = { { "heap.reinit.completion" } },
};

/*
 * reinit-mutex: "holder" has the mutex, "waiter" is queued, "reinit" calls
 * mutex_init(); the holder then unlocks and exits. The mutex looks free and
 * fine, the waiter stays.
 */
static lockfault_frame int lockfault_reinit_mutex_holder(void *data)
{
	mutex_lock(&lockfault_mutex_req->mutex);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_reinit_mutex_gate);
	mutex_unlock(&lockfault_mutex_req->mutex);
	return 0;
}

static lockfault_frame int lockfault_reinit_mutex_waiter(void *data)
{
	lockfault_wants(data);
	mutex_lock(&lockfault_mutex_req->mutex);
	mutex_unlock(&lockfault_mutex_req->mutex);
	return 0;
}

static lockfault_frame int lockfault_reinit_mutex_again(void *data)
{
	mutex_init(&lockfault_mutex_req->mutex);
	return 0;
}

static int lockfault_reinit_mutex_run(struct lockfault_scenario *s)
{
	struct mutex *lock = &lockfault_mutex_req->mutex;
	struct lockfault_task *holder, *waiter;
	int ret;

	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU, lockfault_reinit_mutex_holder,
				 NULL, "lf_rem_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(holder)))
		return -ETIMEDOUT;
	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU, lockfault_reinit_mutex_waiter,
				 NULL, "lf_rem_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && lockfault_mutex_waiters(lock) == 1))
		return -ETIMEDOUT;
	ret = lockfault_reinit_again(s, lockfault_reinit_mutex_again, "lf_rem_reinit");
	if (ret)
		return ret;
	lockfault_gate_open(&lockfault_reinit_mutex_gate);
	if (!lockfault_until(s, lockfault_has_exited(holder) && lockfault_is_asleep(waiter) &&
				!lockfault_mutex_owner(lock) && !lockfault_mutex_waiters(lock)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_reinit_mutex_init(struct lockfault_scenario *s)
{
	int ret = lockfault_request_new(&lockfault_mutex_req);

	if (!ret)
		s->locks[0].addr = &lockfault_mutex_req->mutex;
	return ret;
}

static void lockfault_reinit_mutex_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_mutex_req);
}

struct lockfault_scenario lockfault_reinit_mutex = {
	.name = "reinit-mutex",
	.init = lockfault_reinit_mutex_init,
	.exit = lockfault_reinit_mutex_exit,
	.run = lockfault_reinit_mutex_run,
	.locks = { { "heap.reinit.mutex" } },
};

/*
 * reinit-rwsem: "holder" has the rwsem for writing, "waiter" (read) is queued,
 * "reinit" calls init_rwsem(); the holder then does up_write() and exits: the
 * count goes from 0 to -1, an impossible state in which everyone waits for ever
 * and no owner is recorded. (PREEMPT_RT: the reader bias becomes wrong instead.)
 */
static lockfault_frame int lockfault_reinit_rwsem_holder(void *data)
{
	down_write(&lockfault_rwsem_req->rwsem);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_reinit_rwsem_gate);
	up_write(&lockfault_rwsem_req->rwsem);
	return 0;
}

static lockfault_frame int lockfault_reinit_rwsem_waiter(void *data)
{
	lockfault_wants(data);
	down_read(&lockfault_rwsem_req->rwsem);
	up_read(&lockfault_rwsem_req->rwsem);
	return 0;
}

static lockfault_frame int lockfault_reinit_rwsem_again(void *data)
{
	init_rwsem(&lockfault_rwsem_req->rwsem);
	return 0;
}

static int lockfault_reinit_rwsem_run(struct lockfault_scenario *s)
{
	struct rw_semaphore *sem = &lockfault_rwsem_req->rwsem;
	struct lockfault_task *holder, *waiter;
	int ret;

	holder = lockfault_spawn(s, "holder", 0, LOCKFAULT_ANY_CPU, lockfault_reinit_rwsem_holder,
				 NULL, "lf_rer_holder");
	if (!holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(holder)))
		return -ETIMEDOUT;
	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU, lockfault_reinit_rwsem_waiter,
				 NULL, "lf_rer_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(waiter) && lockfault_rwsem_waiters(sem) == 1))
		return -ETIMEDOUT;
	ret = lockfault_reinit_again(s, lockfault_reinit_rwsem_again, "lf_rer_reinit");
	if (ret)
		return ret;
	lockfault_gate_open(&lockfault_reinit_rwsem_gate);
	if (!lockfault_until(s, lockfault_has_exited(holder) && lockfault_is_asleep(waiter) &&
				!lockfault_rwsem_waiters(sem)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_reinit_rwsem_init(struct lockfault_scenario *s)
{
	int ret = lockfault_request_new(&lockfault_rwsem_req);

	if (!ret)
		s->locks[0].addr = &lockfault_rwsem_req->rwsem;
	return ret;
}

static void lockfault_reinit_rwsem_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_rwsem_req);
}

struct lockfault_scenario lockfault_reinit_rwsem = {
	.name = "reinit-rwsem",
	.init = lockfault_reinit_rwsem_init,
	.exit = lockfault_reinit_rwsem_exit,
	.run = lockfault_reinit_rwsem_run,
	.locks = { { "heap.reinit.rwsem" } },
};
