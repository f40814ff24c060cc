// SPDX-License-Identifier: GPL-2.0
/*
 * contend-task-locks: contention, as in contend-spinlock, on the three
 * spinlocks that the thread pid has: siglock, which all threads of its process
 * share, alloc_lock and pi_lock. The thread must live until it is over.
 * Verdict: contention on a lock of that thread or process.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "contend_spin.h"

/* Listed until the scenario knows whose locks it takes. */
static DEFINE_RAW_SPINLOCK(lockfault_task_nobodys);

#ifndef CONFIG_PREEMPT_RT

#define LOCKFAULT_TASK_LOCK_TRIES 5

static raw_spinlock_t *lockfault_task_lock;

/* Interrupts take siglock and pi_lock, too. */
static lockfault_frame void lockfault_task_lock_take(bool write)
{
	raw_spin_lock_irq(lockfault_task_lock);
}

static lockfault_frame void lockfault_task_lock_give(bool write)
{
	raw_spin_unlock_irq(lockfault_task_lock);
}

static bool lockfault_task_lock_seen(const struct lockfault_spin_part *part,
				     const struct lockfault_task *t, unsigned int waiters)
{
	u32 word = atomic_read(&lockfault_task_lock->raw_lock.val);

	if (waiters == 1)
		return word & _Q_PENDING_MASK;
	return word >> _Q_TAIL_CPU_OFFSET == part->cpu + 1;
}

static const struct lockfault_spin_part lockfault_task_lock_parts[] = {
	{ "holder", "lf_tsk_holder", 1, .holder = true },
	{ "pending", "lf_tsk_pending", 2 },
	{ "waiter", "lf_tsk_wait0", 3 },
	{ "waiter", "lf_tsk_wait1", 0 },
	{ }
};

static struct lockfault_spin lockfault_task_lock_play = {
	.take = lockfault_task_lock_take,
	.give = lockfault_task_lock_give,
	.seen = lockfault_task_lock_seen,
	.parts = lockfault_task_lock_parts,
	.storm_comm = "lf_tsk_storm",
};

/*
 * The holder has interrupts off. Whoever needs an answer from its CPU at that
 * moment keeps its own CPU, and a waiter from spinning there, until the holder
 * gives up: then they start again.
 */
static int lockfault_task_lock_contend(struct lockfault_scenario *s)
{
	unsigned int tries;
	int ret = -ENXIO;

	for (tries = 0; tries < LOCKFAULT_TASK_LOCK_TRIES && ret == -ENXIO; tries++) {
		ret = lockfault_spin_run(s, &lockfault_task_lock_play);
		if (ret < 0 && ret != -ENXIO)
			return ret;
		if (!lockfault_until(s, lockfault_all_exited(s)))
			return -ETIMEDOUT;
	}
	return ret;
}

static int lockfault_task_locks_play(struct lockfault_scenario *s, struct task_struct *task)
{
	raw_spinlock_t *locks[] = {
		&task->sighand->siglock.rlock, &task->alloc_lock.rlock, &task->pi_lock,
	};
	unsigned int i;
	int ret = LOCKFAULT_ENDS;

	for (i = 0; i < ARRAY_SIZE(locks); i++)
		s->locks[i].addr = locks[i];
	for (i = 0; i < ARRAY_SIZE(locks) && ret >= 0; i++) {
		lockfault_task_lock = locks[i];
		ret = lockfault_task_lock_contend(s);
	}
	return ret;
}

static int lockfault_task_locks_run(struct lockfault_scenario *s)
{
	struct pid *pid = find_get_pid(lockfault_param(s, "pid"));
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	int ret = -ESRCH;

	put_pid(pid);
	if (task) {
		ret = lockfault_task_locks_play(s, task);
		put_task_struct(task);
	}
	return ret;
}

#define LOCKFAULT_TASK_LOCKS_RUN lockfault_task_locks_run
#else
#define LOCKFAULT_TASK_LOCKS_RUN NULL
#endif

struct lockfault_scenario lockfault_contend_task_locks = {
	.name = "contend-task-locks",
	.run = LOCKFAULT_TASK_LOCKS_RUN,
	.locks = {
		{ "heap.task.siglock", &lockfault_task_nobodys },
		{ "heap.task.alloc_lock", &lockfault_task_nobodys },
		{ "heap.task.pi_lock", &lockfault_task_nobodys },
	},
	.params = {
		{ "ms", 300, 0, 600000 }, { "hold", 20, 0, 5000 }, { "pid", 1, 1, PID_MAX_LIMIT },
	},
};
