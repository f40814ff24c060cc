// SPDX-License-Identifier: GPL-2.0
/*
 * hardirq-aa: as softirq-aa-*, but a hard interrupt (a hrtimer) spins on the
 * raw spinlock that the thread it interrupted holds with interrupts enabled.
 * Happens on PREEMPT_RT, too.
 * Verdict: self-deadlock across contexts on CPU cpu: the hard interrupt spins,
 * having interrupted "holder"; cure: raw_spin_lock_irqsave() in the thread. A
 * single spinner waits for the pending bit, which no tracepoint shows.
 *
 * With ms=N CPU 0 unlocks on the thread's behalf after N milliseconds, so that
 * all goes on. Otherwise CPU cpu is lost.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/spinlock.h>

#include "rescue.h"

static DEFINE_RAW_SPINLOCK(lockfault_hardirq_lock);
static struct hrtimer lockfault_hardirq_timer;
static struct lockfault_rescue lockfault_hardirq_rescue;
static bool lockfault_hardirq_caught;
static bool lockfault_hardirq_released;

static lockfault_frame enum hrtimer_restart lockfault_hardirq_fn(struct hrtimer *timer)
{
	smp_store_release(&lockfault_hardirq_caught, true);
	raw_spin_lock(&lockfault_hardirq_lock);
	raw_spin_unlock(&lockfault_hardirq_lock);
	return HRTIMER_NORESTART;
}

static lockfault_frame void lockfault_hardirq_section(void)
{
	raw_spin_lock(&lockfault_hardirq_lock);
	hrtimer_start(&lockfault_hardirq_timer, ms_to_ktime(1), HRTIMER_MODE_REL_PINNED_HARD);
	while (!smp_load_acquire(&lockfault_hardirq_released))
		cpu_relax();
	preempt_enable();	/* the rescue has unlocked */
}

static lockfault_frame int lockfault_hardirq_holder(void *data)
{
	lockfault_hardirq_section();
	return 0;
}

static void lockfault_hardirq_repair(void)
{
	if (!smp_load_acquire(&lockfault_hardirq_caught))
		return;
	smp_store_release(&lockfault_hardirq_released, true);
	arch_spin_unlock(&lockfault_hardirq_lock.raw_lock);
}

static int lockfault_hardirq_run(struct lockfault_scenario *s)
{
	bool caught;

	lockfault_hardirq_caught = false;
	lockfault_hardirq_released = false;
	lockfault_rescue_prepare(s, &lockfault_hardirq_rescue);
	if (!lockfault_spawn(s, "holder", 0, lockfault_param(s, "cpu"), lockfault_hardirq_holder,
			     NULL, "lf_hrq_holder"))
		return -ENOMEM;
	/*
	 * From now on a task that sends an IPI to all CPUs waits for ever, with
	 * preemption off: let none on this CPU before all is done.
	 */
	preempt_disable();
	caught = lockfault_busy_until(smp_load_acquire(&lockfault_hardirq_caught) &&
				      raw_spin_is_locked(&lockfault_hardirq_lock));
	if (caught)
		lockfault_rescue_established(s, &lockfault_hardirq_rescue);
	preempt_enable();
	return caught ? lockfault_rescue_outcome(s) : -ETIMEDOUT;
}

static int lockfault_hardirq_init(struct lockfault_scenario *s)
{
	lockfault_hrtimer_setup(&lockfault_hardirq_timer, lockfault_hardirq_fn);
	lockfault_rescue_init(&lockfault_hardirq_rescue, lockfault_hardirq_repair);
	return 0;
}

static void lockfault_hardirq_exit(struct lockfault_scenario *s)
{
	lockfault_rescue_exit(&lockfault_hardirq_rescue);
}

struct lockfault_scenario lockfault_hardirq_aa = {
	.name = "hardirq-aa",
	.init = lockfault_hardirq_init,
	.exit = lockfault_hardirq_exit,
	.run = lockfault_hardirq_run,
	.locks = { { "lockfault_hardirq_lock", &lockfault_hardirq_lock } },
	.params = { { "ms", 0, 0, 3600000 }, { "cpu", 1, 1, NR_CPUS - 1 } },
};
