// SPDX-License-Identifier: GPL-2.0
/*
 * holder-in-user: the process that writes the command gets back to user space
 * with a mutex. So whatever stops a process stops the holder: a signal, a
 * tracer, the freezer of its cgroup. Waiters queue behind it, for ever.
 * Verdict: no deadlock; "holder" owns lockfault_in_user_mutex and does
 * whatever it does.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "lockfault.h"

static DEFINE_MUTEX(lockfault_in_user_mutex);

static int lockfault_holder_in_user_here(struct lockfault_scenario *s)
{
	struct lockfault_task *self = lockfault_join(s, "holder");

	if (!self)
		return -ENOMEM;
	mutex_lock(&lockfault_in_user_mutex);
	lockfault_holds(self);
	return 0;
}

static lockfault_frame int lockfault_in_user_waiter(void *data)
{
	struct lockfault_task *self = data;

	lockfault_wants(self);
	mutex_lock(&lockfault_in_user_mutex);
	mutex_unlock(&lockfault_in_user_mutex);
	return 0;
}

static int lockfault_holder_in_user_run(struct lockfault_scenario *s)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (!lockfault_spawn(s, "waiter", i, LOCKFAULT_ANY_CPU, lockfault_in_user_waiter,
				     NULL, "lf_user_wait%u", i))
			return -ENOMEM;
	if (!lockfault_until(s, lockfault_mutex_waiters(&lockfault_in_user_mutex) == 2 &&
				lockfault_all_asleep(s, "waiter")))
		return -ETIMEDOUT;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

struct lockfault_scenario lockfault_holder_in_user = {
	.name = "holder-in-user",
	.here = lockfault_holder_in_user_here,
	.run = lockfault_holder_in_user_run,
	.locks = { { "lockfault_in_user_mutex", &lockfault_in_user_mutex } },
};
