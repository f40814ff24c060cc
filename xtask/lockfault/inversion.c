// SPDX-License-Identifier: GPL-2.0
/*
 * inversion-mutex, inversion-rwsem: a lock order A -> B, and later B -> A by
 * another task. Nothing hangs: the second order starts when all tasks of the
 * first have gone. For a tracer that sees only contention, each order comes
 * with it: "ab" holds A and waits for B, which "ab-inner" holds (asleep); at
 * the same time "ab-outer" waits for A, owned by "ab", which shows that "ab"
 * holds A while it wants B. Then the same with "ba", "ba-inner", "ba-outer".
 * Verdict: possible lock order inversion A/B, with the call sites
 * lockfault_inversion_*_ab and lockfault_inversion_*_ba; no deadlock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/slab.h>

#include "lockfault.h"

enum { LOCKFAULT_A, LOCKFAULT_B };

struct lockfault_inversion {
	void (*take)(int which);
	void (*give)(int which);
	unsigned int (*waiters)(int which);
	int (*nested[2])(void *);	/* the tasks that take A then B, B then A */
	const char *prefix;
	struct lockfault_gate gate;	/* lets the inner lock's holder go on */
};

static lockfault_frame int lockfault_inversion_inner(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_inversion *v = self->arg;

	v->take(self->index);
	lockfault_holds(self);
	lockfault_gate_pass(&v->gate);
	v->give(self->index);
	return 0;
}

static lockfault_frame int lockfault_inversion_outer(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_inversion *v = self->arg;

	lockfault_wants(self);
	v->take(self->index);
	v->give(self->index);
	return 0;
}

/* One order: @outer first, then @inner. */
static int lockfault_inversion_order(struct lockfault_scenario *s, struct lockfault_inversion *v,
				     int outer, int inner)
{
	static const char *const nested_role[] = { "ab", "ba" };
	static const char *const inner_role[] = { "ab-inner", "ba-inner" };
	static const char *const outer_role[] = { "ab-outer", "ba-outer" };
	const char *order = nested_role[outer];
	struct lockfault_task *t;

	lockfault_gate_close(&v->gate);
	t = lockfault_spawn(s, inner_role[outer], inner, LOCKFAULT_ANY_CPU,
			    lockfault_inversion_inner, v, "%s_%s_in", v->prefix, order);
	if (!t)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(t)))
		return -ETIMEDOUT;
	t = lockfault_spawn(s, order, outer, LOCKFAULT_ANY_CPU, v->nested[outer], v, "%s_%s",
			    v->prefix, order);
	if (!t)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(t) && v->waiters(inner) == 1))
		return -ETIMEDOUT;
	t = lockfault_spawn(s, outer_role[outer], outer, LOCKFAULT_ANY_CPU,
			    lockfault_inversion_outer, v, "%s_%s_out", v->prefix, order);
	if (!t)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_asleep(t) && v->waiters(outer) == 1))
		return -ETIMEDOUT;
	lockfault_established(s);
	lockfault_sleep_ms(lockfault_param(s, "ms"));
	lockfault_gate_open(&v->gate);
	return lockfault_until(s, lockfault_all_exited(s)) ? 0 : -ETIMEDOUT;
}

static int lockfault_inversion_run(struct lockfault_scenario *s, struct lockfault_inversion *v)
{
	int ret;

	init_waitqueue_head(&v->gate.wq);
	ret = lockfault_inversion_order(s, v, LOCKFAULT_A, LOCKFAULT_B);
	return ret ?: lockfault_inversion_order(s, v, LOCKFAULT_B, LOCKFAULT_A);
}

static struct mutex lockfault_inversion_mutexes[2] = {
	__MUTEX_INITIALIZER(lockfault_inversion_mutexes[0]),
	__MUTEX_INITIALIZER(lockfault_inversion_mutexes[1]),
};

static lockfault_frame void lockfault_inversion_mutex_take(int which)
{
	mutex_lock(&lockfault_inversion_mutexes[which]);
}

static lockfault_frame void lockfault_inversion_mutex_give(int which)
{
	mutex_unlock(&lockfault_inversion_mutexes[which]);
}

static unsigned int lockfault_inversion_mutex_waiters(int which)
{
	return lockfault_mutex_waiters(&lockfault_inversion_mutexes[which]);
}

static lockfault_frame int lockfault_inversion_mutex_ab(void *data)
{
	mutex_lock(&lockfault_inversion_mutexes[LOCKFAULT_A]);
	lockfault_wants(data);
	mutex_lock(&lockfault_inversion_mutexes[LOCKFAULT_B]);
	mutex_unlock(&lockfault_inversion_mutexes[LOCKFAULT_B]);
	mutex_unlock(&lockfault_inversion_mutexes[LOCKFAULT_A]);
	return 0;
}

static lockfault_frame int lockfault_inversion_mutex_ba(void *data)
{
	mutex_lock(&lockfault_inversion_mutexes[LOCKFAULT_B]);
	lockfault_wants(data);
	mutex_lock(&lockfault_inversion_mutexes[LOCKFAULT_A]);
	mutex_unlock(&lockfault_inversion_mutexes[LOCKFAULT_A]);
	mutex_unlock(&lockfault_inversion_mutexes[LOCKFAULT_B]);
	return 0;
}

static struct lockfault_inversion lockfault_inversion_mutex_play = {
	.take = lockfault_inversion_mutex_take,
	.give = lockfault_inversion_mutex_give,
	.waiters = lockfault_inversion_mutex_waiters,
	.nested = { lockfault_inversion_mutex_ab, lockfault_inversion_mutex_ba },
	.prefix = "lf_invm",
};

static int lockfault_inversion_mutex_run(struct lockfault_scenario *s)
{
	return lockfault_inversion_run(s, &lockfault_inversion_mutex_play);
}

struct lockfault_scenario lockfault_inversion_mutex = {
	.name = "inversion-mutex",
	.run = lockfault_inversion_mutex_run,
	.locks = {
		{ "lockfault_inversion_mutexes[0]", &lockfault_inversion_mutexes[0] },
		{ "lockfault_inversion_mutexes[1]", &lockfault_inversion_mutexes[1] },
	},
	.params = { { "ms", 300, 0, 600000 } },
};

/* Two objects of one kind, taken for writing. */
struct lockfault_directory {
	u8 other_members[0x70];
	struct rw_semaphore rwsem;
};

static struct lockfault_directory *lockfault_directories[2];

static lockfault_frame void lockfault_inversion_rwsem_take(int which)
{
	down_write(&lockfault_directories[which]->rwsem);
}

static lockfault_frame void lockfault_inversion_rwsem_give(int which)
{
	up_write(&lockfault_directories[which]->rwsem);
}

static unsigned int lockfault_inversion_rwsem_waiters(int which)
{
	return lockfault_rwsem_waiters(&lockfault_directories[which]->rwsem);
}

static lockfault_frame int lockfault_inversion_rwsem_ab(void *data)
{
	down_write(&lockfault_directories[LOCKFAULT_A]->rwsem);
	lockfault_wants(data);
	down_write(&lockfault_directories[LOCKFAULT_B]->rwsem);
	up_write(&lockfault_directories[LOCKFAULT_B]->rwsem);
	up_write(&lockfault_directories[LOCKFAULT_A]->rwsem);
	return 0;
}

static lockfault_frame int lockfault_inversion_rwsem_ba(void *data)
{
	down_write(&lockfault_directories[LOCKFAULT_B]->rwsem);
	lockfault_wants(data);
	down_write(&lockfault_directories[LOCKFAULT_A]->rwsem);
	up_write(&lockfault_directories[LOCKFAULT_A]->rwsem);
	up_write(&lockfault_directories[LOCKFAULT_B]->rwsem);
	return 0;
}

static struct lockfault_inversion lockfault_inversion_rwsem_play = {
	.take = lockfault_inversion_rwsem_take,
	.give = lockfault_inversion_rwsem_give,
	.waiters = lockfault_inversion_rwsem_waiters,
	.nested = { lockfault_inversion_rwsem_ab, lockfault_inversion_rwsem_ba },
	.prefix = "lf_invr",
};

static int lockfault_inversion_rwsem_run(struct lockfault_scenario *s)
{
	return lockfault_inversion_run(s, &lockfault_inversion_rwsem_play);
}

static void lockfault_inversion_rwsem_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_directories[LOCKFAULT_A]);
	kfree(lockfault_directories[LOCKFAULT_B]);
}

static int lockfault_inversion_rwsem_init(struct lockfault_scenario *s)
{
	int i;

	for (i = 0; i < 2; i++) {
		lockfault_directories[i] = kzalloc(sizeof(*lockfault_directories[i]), GFP_KERNEL);
		if (!lockfault_directories[i]) {
			lockfault_inversion_rwsem_exit(s);
			return -ENOMEM;
		}
		init_rwsem(&lockfault_directories[i]->rwsem);
		s->locks[i].addr = &lockfault_directories[i]->rwsem;
	}
	return 0;
}

struct lockfault_scenario lockfault_inversion_rwsem = {
	.name = "inversion-rwsem",
	.init = lockfault_inversion_rwsem_init,
	.exit = lockfault_inversion_rwsem_exit,
	.run = lockfault_inversion_rwsem_run,
	.locks = { { "heap.inversion.rwsem_a" }, { "heap.inversion.rwsem_b" } },
	.params = { { "ms", 300, 0, 600000 } },
};
