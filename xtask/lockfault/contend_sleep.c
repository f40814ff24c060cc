// SPDX-License-Identifier: GPL-2.0
/*
 * Real contention, which ends, on the locks whose waiters sleep. There is
 * nothing to find but the contention itself: no deadlock may be reported. In
 * the first act each waiter waits for the holder, whose pid is known; what
 * exactly is expected stands at each scenario.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

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
	.params = LOCKFAULT_CONTEND_PARAMS,
};
