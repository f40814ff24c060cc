// SPDX-License-Identifier: GPL-2.0
/*
 * Somebody holds a mutex for long, and others queue: why does the holder not
 * let go? Because it sleeps, runs, cannot run, or is gone.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/slab.h>

#include "lockfault.h"

struct lockfault_device {
	u8 other_members[0x30];
	struct mutex lock;
};

static struct lockfault_device *lockfault_running_dev;
static struct lockfault_device *lockfault_exited_dev;
static DEFINE_MUTEX(lockfault_asleep_mutex);
static DEFINE_MUTEX(lockfault_starved_mutex);
static LOCKFAULT_GATE(lockfault_asleep_gate);
static LOCKFAULT_GATE(lockfault_running_gate);
static LOCKFAULT_GATE(lockfault_starved_gate);

static lockfault_frame int lockfault_hold_waiter(void *data)
{
	struct lockfault_task *self = data;
	struct mutex *lock = self->arg;

	lockfault_wants(self);
	mutex_lock(lock);
	mutex_unlock(lock);
	return 0;
}

/* Start the waiters and see them queued and asleep behind the lock's holder. */
static int lockfault_hold_waiters(struct lockfault_scenario *s, struct mutex *lock,
				  const char *comm)
{
	unsigned int n = lockfault_param(s, "waiters");
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!lockfault_spawn(s, "waiter", i, LOCKFAULT_ANY_CPU, lockfault_hold_waiter,
				     lock, "%s%u", comm, i))
			return -ENOMEM;
	if (!lockfault_until(s, lockfault_mutex_waiters(lock) == n &&
				lockfault_all_asleep(s, "waiter")))
		return -ETIMEDOUT;
	return 0;
}

/* Start the holder and the waiters; the holder then stands at its gate. */
static int lockfault_hold_setup(struct lockfault_scenario *s, int cpu, int (*fn)(void *),
				struct mutex *lock, const char *prefix,
				struct lockfault_task **holder)
{
	char comm[TASK_COMM_LEN];

	*holder = lockfault_spawn(s, "holder", 0, cpu, fn, (void *)(unsigned long)
				  lockfault_param(s, "ms"), "%s_holder", prefix);
	if (!*holder)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(*holder)))
		return -ETIMEDOUT;
	snprintf(comm, sizeof(comm), "%s_wait", prefix);
	return lockfault_hold_waiters(s, lock, comm);
}

/* Until the scheduler has given this task so much time on a CPU. */
static void lockfault_run_ns(u64 ns)
{
	u64 end = READ_ONCE(current->se.sum_exec_runtime) + ns;

	while (READ_ONCE(current->se.sum_exec_runtime) < end)
		cpu_relax();
}

/*
 * Sleeps, or sleeps and runs by turns: @busy percent of the time. However late
 * the timers of a busy emulated machine are, it runs for as long in proportion.
 */
static lockfault_frame void lockfault_asleep_doze(unsigned long ms, unsigned int busy)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (busy && ktime_before(ktime_get(), end)) {
		u64 began = ktime_get_ns();

		msleep(100 - busy);
		lockfault_run_ns(div_u64((ktime_get_ns() - began) * busy, 100 - busy));
	}
	if (!busy)
		msleep(ms);
}

/*
 * holder-asleep. Verdict: no deadlock; "holder" owns lockfault_asleep_mutex and
 * sleeps (uninterruptible, not in I/O) in lockfault_asleep_holder; the waiters
 * are blocked by it. Ends after ms.
 */
static lockfault_frame int lockfault_asleep_holder(void *data)
{
	struct lockfault_task *self = data;

	mutex_lock(&lockfault_asleep_mutex);
	lockfault_holds(self);
	lockfault_gate_pass(&lockfault_asleep_gate);
	lockfault_wants(self);
	lockfault_spends(self);
	lockfault_asleep_doze((unsigned long)self->arg,
			      lockfault_param(&lockfault_holder_asleep, "busy"));
	lockfault_spent(self);
	mutex_unlock(&lockfault_asleep_mutex);
	return 0;
}

static int lockfault_holder_asleep_run(struct lockfault_scenario *s)
{
	struct lockfault_task *holder;
	int ret;

	lockfault_gate_close(&lockfault_asleep_gate);
	ret = lockfault_hold_setup(s, LOCKFAULT_ANY_CPU, lockfault_asleep_holder,
				   &lockfault_asleep_mutex, "lf_asl", &holder);
	if (ret)
		return ret;
	lockfault_gate_open(&lockfault_asleep_gate);
	if (!lockfault_until(s, lockfault_is_asleep(holder)))
		return -ETIMEDOUT;
	lockfault_established(s);
	lockfault_sleep_ms(lockfault_param(s, "ms"));
	return LOCKFAULT_ENDS;
}

struct lockfault_scenario lockfault_holder_asleep = {
	.name = "holder-asleep",
	.run = lockfault_holder_asleep_run,
	.locks = { { "lockfault_asleep_mutex", &lockfault_asleep_mutex } },
	.params = {
		{ "ms", 5000, 500, 3600000 }, { "waiters", 8, 1, 1000 }, { "busy", 0, 0, 90 },
	},
};

/*
 * holder-running. Verdict: no deadlock; "holder" owns the device's mutex and is
 * running on CPU cpu in lockfault_running_spin; the waiters sleep behind it.
 * Ends after ms. From about 20 s on the kernel's soft-lockup detector speaks.
 */
static lockfault_frame void lockfault_running_spin(unsigned long ms)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (ktime_before(ktime_get(), end))
		cpu_relax();
}

static lockfault_frame int lockfault_running_holder(void *data)
{
	struct lockfault_task *self = data;

	mutex_lock(&lockfault_running_dev->lock);
	lockfault_holds(self);
	lockfault_gate_pass(&lockfault_running_gate);
	lockfault_wants(self);
	lockfault_spends(self);
	lockfault_running_spin((unsigned long)self->arg);
	lockfault_spent(self);
	mutex_unlock(&lockfault_running_dev->lock);
	return 0;
}

static int lockfault_holder_running_run(struct lockfault_scenario *s)
{
	struct lockfault_task *holder;
	int ret;

	lockfault_gate_close(&lockfault_running_gate);
	ret = lockfault_hold_setup(s, lockfault_param(s, "cpu"), lockfault_running_holder,
				   &lockfault_running_dev->lock, "lf_run", &holder);
	if (ret)
		return ret;
	lockfault_gate_open(&lockfault_running_gate);
	if (!lockfault_until(s, smp_load_acquire(&holder->wants) &&
				READ_ONCE(holder->task->on_cpu)))
		return -ETIMEDOUT;
	lockfault_established(s);
	lockfault_sleep_ms(lockfault_param(s, "ms"));
	return LOCKFAULT_ENDS;
}

static int lockfault_device_new(struct lockfault_scenario *s, struct lockfault_device **dev)
{
	*dev = kzalloc(sizeof(**dev), GFP_KERNEL);
	if (!*dev)
		return -ENOMEM;
	mutex_init(&(*dev)->lock);
	s->locks[0].addr = &(*dev)->lock;
	return 0;
}

static int lockfault_holder_running_init(struct lockfault_scenario *s)
{
	return lockfault_device_new(s, &lockfault_running_dev);
}

static void lockfault_holder_running_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_running_dev);
}

struct lockfault_scenario lockfault_holder_running = {
	.name = "holder-running",
	.init = lockfault_holder_running_init,
	.exit = lockfault_holder_running_exit,
	.run = lockfault_holder_running_run,
	.locks = { { "heap.running.lock" } },
	.params = {
		{ "ms", 5000, 500, 120000 },
		{ "waiters", 2, 1, 1000 },
		{ "cpu", 1, 0, NR_CPUS - 1 },
	},
};

/*
 * holder-starved. Verdict: no deadlock; "holder" (SCHED_FIFO, lowest priority,
 * bound to CPU cpu) owns lockfault_starved_mutex, is runnable and does not run:
 * "hog" (SCHED_FIFO, 50) has that CPU. The waiters are blocked by the holder,
 * the holder by the scheduler. Ends after ms.
 * SCHED_FIFO also for the holder, because the kernel grants normal tasks 5 % of
 * a CPU hogged by real-time tasks.
 */
static lockfault_frame int lockfault_starved_holder(void *data)
{
	struct lockfault_task *self = data;

	sched_set_fifo_low(current);
	mutex_lock(&lockfault_starved_mutex);
	lockfault_holds(self);
	lockfault_spends(self);
	lockfault_gate_pass(&lockfault_starved_gate);
	lockfault_spent(self);
	mutex_unlock(&lockfault_starved_mutex);
	return 0;
}

static lockfault_frame int lockfault_starved_hog(void *data)
{
	struct lockfault_task *self = data;

	sched_set_fifo(current);
	lockfault_holds(self);
	lockfault_running_spin((unsigned long)self->arg);
	return 0;
}

static int lockfault_holder_starved_run(struct lockfault_scenario *s)
{
	struct lockfault_task *holder, *hog;
	int cpu = lockfault_param(s, "cpu");
	int ret;

	lockfault_gate_close(&lockfault_starved_gate);
	ret = lockfault_hold_setup(s, cpu, lockfault_starved_holder,
				   &lockfault_starved_mutex, "lf_stv", &holder);
	if (ret)
		return ret;
	hog = lockfault_spawn(s, "hog", 0, cpu, lockfault_starved_hog,
			      (void *)(unsigned long)lockfault_param(s, "ms"), "lf_stv_hog");
	if (!hog)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_is_holding(hog)))
		return -ETIMEDOUT;
	lockfault_gate_open(&lockfault_starved_gate);
	if (!lockfault_until(s, READ_ONCE(holder->task->__state) == TASK_RUNNING &&
				!READ_ONCE(holder->task->on_cpu) &&
				READ_ONCE(hog->task->on_cpu)))
		return -ETIMEDOUT;
	lockfault_established(s);
	lockfault_sleep_ms(lockfault_param(s, "ms"));
	return LOCKFAULT_ENDS;
}

struct lockfault_scenario lockfault_holder_starved = {
	.name = "holder-starved",
	.run = lockfault_holder_starved_run,
	.locks = { { "lockfault_starved_mutex", &lockfault_starved_mutex } },
	.params = {
		{ "ms", 5000, 500, 120000 },
		{ "waiters", 2, 1, 1000 },
		{ "cpu", 1, 1, NR_CPUS - 1 },
	},
};

/*
 * owner-exited. Verdict: "owner" (pid known, no longer there) took the device's
 * mutex and exited; nobody can release it. The waiters wait for ever.
 * keep=1 keeps the owner's task_struct, which then says that it is dead;
 * keep=0 lets it go: the owner word dangles and may even come to point to a new
 * task, which must not be accused.
 */
static lockfault_frame int lockfault_exited_owner(void *data)
{
	mutex_lock(&lockfault_exited_dev->lock);
	return 0;
}

static int lockfault_owner_exited_run(struct lockfault_scenario *s)
{
	struct mutex *lock = &lockfault_exited_dev->lock;
	bool keep = lockfault_param(s, "keep");
	struct lockfault_task *owner;
	int ret;

	/* An rt_mutex waiter writes into its owner's task_struct. */
	if (!keep && IS_ENABLED(CONFIG_PREEMPT_RT)) {
		pr_err("%s: keep=0 would corrupt memory on PREEMPT_RT\n", s->name);
		return -EOPNOTSUPP;
	}
	owner = lockfault_spawn(s, "owner", 0, LOCKFAULT_ANY_CPU, lockfault_exited_owner, NULL,
				"lf_exit_owner");
	if (!owner)
		return -ENOMEM;
	if (!lockfault_until(s, lockfault_has_exited(owner) &&
				lockfault_mutex_owner(lock) == owner->task))
		return -ETIMEDOUT;
	if (!keep)
		lockfault_forget_task(owner);
	ret = lockfault_hold_waiters(s, lock, "lf_exit_wait");
	if (ret)
		return ret;
	lockfault_established(s);
	return LOCKFAULT_STAYS;
}

static int lockfault_owner_exited_init(struct lockfault_scenario *s)
{
	return lockfault_device_new(s, &lockfault_exited_dev);
}

static void lockfault_owner_exited_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_exited_dev);
}

struct lockfault_scenario lockfault_owner_exited = {
	.name = "owner-exited",
	.init = lockfault_owner_exited_init,
	.exit = lockfault_owner_exited_exit,
	.run = lockfault_owner_exited_run,
	.locks = { { "heap.exited.lock" } },
	.params = { { "waiters", 1, 1, 1000 }, { "keep", 1, 0, 1 } },
};
