// SPDX-License-Identifier: GPL-2.0
/*
 * The two acts of the contend-* scenarios for sleeping locks: see contend.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>

#include "contend.h"

static lockfault_frame int lockfault_contend_holder(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_contend *c = self->arg;
	bool write = c->parts[self->index].write;

	c->take(write);
	lockfault_took(self, write || !c->shared);
	lockfault_holds(self);
	lockfault_gate_pass(&c->gate);
	c->give(write);
	return 0;
}

static lockfault_frame int lockfault_contend_waiter(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_contend *c = self->arg;
	bool write = c->parts[self->index].write;

	lockfault_wants(self);
	c->take(write);
	lockfault_took(self, write || !c->shared);
	c->give(write);
	return 0;
}

/*
 * Every fourth hold sleeps, so that the others queue and sleep; the rest are
 * busy, so that optimistic spinning happens, too. Half the threads' turns are
 * reads, where the lock knows reading.
 */
static lockfault_frame int lockfault_contend_storm(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_contend *c = self->arg;
	unsigned int round;

	for (round = self->index; c->rounds ? round - self->index < c->rounds :
					      time_before(jiffies, c->storm_end); round++) {
		bool write = round % 2;
		bool otherwise = c->otherwise && round % 3;

		if (otherwise)
			c->take_otherwise(write, round / 6);
		else
			c->take(write);
		lockfault_took(self, write || !c->shared);
		if (round % 4)
			udelay(50);
		else
			usleep_range(200, 400);
		if (!otherwise)
			c->give(write);
		else if (c->give_otherwise(write, round / 6))
			lockfault_took(self, false);
		cond_resched();
	}
	return 0;
}

/* Plays the phase that begins with parts[first]; returns where the next one begins, or -errno. */
static int lockfault_contend_phase(struct lockfault_scenario *s, struct lockfault_contend *c,
				   unsigned int first)
{
	struct lockfault_task *t;
	unsigned int i;

	lockfault_gate_close(&c->gate);
	t = lockfault_spawn(s, c->parts[first].role, first, LOCKFAULT_ANY_CPU,
			    lockfault_contend_holder, c, "%s", c->parts[first].comm);
	if (!t)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(t)))
		return -ETIMEDOUT;
	for (i = first + 1; c->parts[i].role && !c->parts[i].holder; i++) {
		t = lockfault_spawn(s, c->parts[i].role, i, LOCKFAULT_ANY_CPU,
				    lockfault_contend_waiter, c, "%s", c->parts[i].comm);
		if (!t)
			return -ENOMEM;
		if (!lockfault_until(s, lockfault_is_asleep(t) &&
					c->queued(&c->parts[i], i - first)))
			return -ETIMEDOUT;
	}
	lockfault_established(s);
	lockfault_sleep_ms(lockfault_param(s, "hold"));
	lockfault_gate_open(&c->gate);
	if (!lockfault_until(s, lockfault_all_exited(s)))
		return -ETIMEDOUT;
	return i;
}

int lockfault_contend_run(struct lockfault_scenario *s, struct lockfault_contend *c)
{
	unsigned int i;
	int next = 0;

	init_waitqueue_head(&c->gate.wq);
	while (c->parts[next].role) {
		next = lockfault_contend_phase(s, c, next);
		if (next < 0)
			return next;
	}
	c->rounds = c->take_otherwise ? lockfault_param(s, "rounds") : 0;
	c->otherwise = c->take_otherwise && lockfault_param(s, "otherwise");
	c->storm_end = jiffies + msecs_to_jiffies(lockfault_param(s, "ms"));
	for (i = 0; i < lockfault_param(s, "threads"); i++)
		if (!lockfault_spawn(s, "storm", i, LOCKFAULT_ANY_CPU,
				     lockfault_contend_storm, c, "%s%u", c->storm_comm, i))
			return -ENOMEM;
	if (!c->rounds)
		lockfault_sleep_ms(lockfault_param(s, "ms"));
	return LOCKFAULT_ENDS;
}
