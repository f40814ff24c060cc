// SPDX-License-Identifier: GPL-2.0
/*
 * stack-locks: "owner" has a mutex and a completion on its own stack. It holds
 * the mutex, for which "waiter" waits, and waits for the completion itself.
 * Ends ms after it is in place, or when it is told to.
 * Verdict: no deadlock; both lie on the stack of owner.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>

#include "lockfault.h"

/* Listed until there are those on the stack. */
static DEFINE_MUTEX(lockfault_stack_nobodys);
static DECLARE_COMPLETION(lockfault_stack_never);

static LOCKFAULT_GATE(lockfault_stack_gate);
static struct mutex *lockfault_stack_mutex;
static struct completion *lockfault_stack_completion;

static lockfault_frame int lockfault_stack_owner(void *data)
{
	DECLARE_COMPLETION_ONSTACK(done);
	struct mutex lock;

	mutex_init(&lock);
	lockfault_stack_mutex = &lock;
	lockfault_stack_completion = &done;
	mutex_lock(&lock);
	lockfault_holds(data);
	lockfault_wants(data);
	wait_for_completion(&done);
	mutex_unlock(&lock);
	/* Until nobody uses what is on this stack any more. */
	lockfault_gate_pass(&lockfault_stack_gate);
	lockfault_stack_mutex = NULL;
	lockfault_stack_completion = NULL;
	return 0;
}

static lockfault_frame int lockfault_stack_waiter(void *data)
{
	lockfault_wants(data);
	mutex_lock(lockfault_stack_mutex);
	mutex_unlock(lockfault_stack_mutex);
	return 0;
}

static int lockfault_stack_locks_run(struct lockfault_scenario *s)
{
	struct lockfault_task *owner, *waiter;

	lockfault_gate_close(&lockfault_stack_gate);
	owner = lockfault_spawn(s, "owner", 0, LOCKFAULT_ANY_CPU, lockfault_stack_owner, NULL,
				"lf_stk_owner");
	if (!owner)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(owner) && lockfault_is_asleep(owner)))
		return -ETIMEDOUT;
	s->locks[0].addr = lockfault_stack_mutex;
	s->locks[1].addr = lockfault_stack_completion;
	waiter = lockfault_spawn(s, "waiter", 0, LOCKFAULT_ANY_CPU, lockfault_stack_waiter, NULL,
				 "lf_stk_waiter");
	if (!waiter)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_mutex_waiters(lockfault_stack_mutex) == 1 &&
				lockfault_is_asleep(waiter)))
		return -ETIMEDOUT;
	lockfault_established(s);
	lockfault_last_ms(s, lockfault_param(s, "ms"));
	complete(lockfault_stack_completion);
	if (!lockfault_until(s, lockfault_has_exited(waiter)))
		return -ETIMEDOUT;
	lockfault_gate_open(&lockfault_stack_gate);
	return LOCKFAULT_ENDS;
}

struct lockfault_scenario lockfault_stack_locks = {
	.name = "stack-locks",
	.run = lockfault_stack_locks_run,
	.locks = {
		{ "stack.mutex", &lockfault_stack_nobodys },
		{ "stack.completion", &lockfault_stack_never },
	},
	.params = { { "ms", 5000, 0, 600000 } },
};
