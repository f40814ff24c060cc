// SPDX-License-Identifier: GPL-2.0
/*
 * Deadlocks of several tasks over sleeping locks. They never end.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/slab.h>

#include "lockfault.h"

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

/*
 * mixed-cycle. Verdict: deadlock of three tasks, proven: "mutex-holder" waits
 * for the rwsem (write) that "rwsem-holder" owns as writer, who waits for the
 * rt_mutex of "rtmutex-holder", who waits for the mutex of the first.
 */
struct lockfault_mixed {
	u8 other_members[0x40];
	struct mutex mutex;
	struct rw_semaphore rwsem;
	struct rt_mutex rtmutex;
};

static struct lockfault_mixed *lockfault_mixed;
static LOCKFAULT_GATE(lockfault_mixed_gate);

static lockfault_frame int lockfault_mixed_mutex_holder(void *data)
{
	struct lockfault_mixed *m = lockfault_mixed;

	mutex_lock(&m->mutex);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_mixed_gate);
	lockfault_wants(data);
	down_write(&m->rwsem);
	up_write(&m->rwsem);
	mutex_unlock(&m->mutex);
	return 0;
}

static lockfault_frame int lockfault_mixed_rwsem_holder(void *data)
{
	struct lockfault_mixed *m = lockfault_mixed;

	down_write(&m->rwsem);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_mixed_gate);
	lockfault_wants(data);
	rt_mutex_lock(&m->rtmutex);
	rt_mutex_unlock(&m->rtmutex);
	up_write(&m->rwsem);
	return 0;
}

static lockfault_frame int lockfault_mixed_rtmutex_holder(void *data)
{
	struct lockfault_mixed *m = lockfault_mixed;

	rt_mutex_lock(&m->rtmutex);
	lockfault_holds(data);
	lockfault_gate_pass(&lockfault_mixed_gate);
	lockfault_wants(data);
	mutex_lock(&m->mutex);
	mutex_unlock(&m->mutex);
	rt_mutex_unlock(&m->rtmutex);
	return 0;
}

static int lockfault_mixed_cycle_run(struct lockfault_scenario *s)
{
	struct lockfault_mixed *m = lockfault_mixed;
	struct lockfault_task *a, *b, *c;

	a = lockfault_spawn(s, "mutex-holder", 0, LOCKFAULT_ANY_CPU,
			    lockfault_mixed_mutex_holder, NULL, "lf_mix_mutex");
	b = lockfault_spawn(s, "rwsem-holder", 0, LOCKFAULT_ANY_CPU,
			    lockfault_mixed_rwsem_holder, NULL, "lf_mix_rwsem");
	c = lockfault_spawn(s, "rtmutex-holder", 0, LOCKFAULT_ANY_CPU,
			    lockfault_mixed_rtmutex_holder, NULL, "lf_mix_rtmutex");
	if (!a || !b || !c)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(a) && lockfault_is_holding(b) &&
				lockfault_is_holding(c)))
		return -ETIMEDOUT;
	lockfault_gate_open(&lockfault_mixed_gate);
	if (!lockfault_until(s, lockfault_mutex_owner(&m->mutex) == a->task &&
				lockfault_rt_owner(&m->rtmutex.rtmutex) == c->task &&
				lockfault_mutex_waiters(&m->mutex) == 1 &&
				lockfault_rwsem_waiters(&m->rwsem) == 1 &&
				lockfault_rt_waiters(&m->rtmutex.rtmutex) == 1 &&
				lockfault_all_asleep(s, NULL)))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_mixed_cycle_init(struct lockfault_scenario *s)
{
	struct lockfault_mixed *m = kzalloc(sizeof(*m), GFP_KERNEL);

	if (!m)
		return -ENOMEM;
	mutex_init(&m->mutex);
	init_rwsem(&m->rwsem);
	rt_mutex_init(&m->rtmutex);
	s->locks[0].addr = &m->mutex;
	s->locks[1].addr = &m->rwsem;
	s->locks[2].addr = &m->rtmutex;
	lockfault_mixed = m;
	return 0;
}

static void lockfault_mixed_cycle_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_mixed);
}

struct lockfault_scenario lockfault_mixed_cycle = {
	.name = "mixed-cycle",
	.init = lockfault_mixed_cycle_init,
	.exit = lockfault_mixed_cycle_exit,
	.run = lockfault_mixed_cycle_run,
	.locks = { { "heap.mixed.mutex" }, { "heap.mixed.rwsem" }, { "heap.mixed.rtmutex" } },
};
