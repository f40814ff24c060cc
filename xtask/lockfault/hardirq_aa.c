// SPDX-License-Identifier: GPL-2.0
/*
 * hardirq-aa: as softirq-aa-*, but a hard interrupt (a hrtimer) spins on the
 * raw spinlock that the thread it interrupted holds with interrupts enabled.
 * Happens on PREEMPT_RT, too.
 * Verdict: self-deadlock across contexts on CPU cpu: the hard interrupt spins,
 * having interrupted "holder"; cure: raw_spin_lock_irqsave() in the thread. A
 * single spinner waits for the pending bit, which no tracepoint shows.
 *
 * With ms=N the director, on CPU 0, unlocks on the thread's behalf after N
 * milliseconds, so that all goes on. Otherwise CPU cpu is lost.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hrtimer.h>
#include <linux/spinlock.h>
#include <linux/version.h>

#include "lockfault.h"

static DEFINE_RAW_SPINLOCK(lockfault_hardirq_lock);
static struct hrtimer lockfault_hardirq_timer;
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
	preempt_enable();	/* the director has unlocked */
}

static lockfault_frame int lockfault_hardirq_holder(void *data)
{
	lockfault_hardirq_section();
	return 0;
}

static int lockfault_hardirq_run(struct lockfault_scenario *s)
{
	lockfault_hardirq_caught = false;
	lockfault_hardirq_released = false;
	if (!lockfault_spawn(s, "holder", 0, lockfault_param(s, "cpu"), lockfault_hardirq_holder,
			     NULL, "lf_hrq_holder"))
		return -ENOMEM;
	if (!lockfault_until(s, smp_load_acquire(&lockfault_hardirq_caught) &&
				raw_spin_is_locked(&lockfault_hardirq_lock)))
		return -ETIMEDOUT;
	lockfault_established(s);
	if (!lockfault_param(s, "ms"))
		return LOCKFAULT_STAYS;
	lockfault_sleep_ms(lockfault_param(s, "ms"));
	smp_store_release(&lockfault_hardirq_released, true);
	arch_spin_unlock(&lockfault_hardirq_lock.raw_lock);
	return LOCKFAULT_ENDS;
}

static int lockfault_hardirq_init(struct lockfault_scenario *s)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&lockfault_hardirq_timer, lockfault_hardirq_fn, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL_PINNED_HARD);
#else
	hrtimer_init(&lockfault_hardirq_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	lockfault_hardirq_timer.function = lockfault_hardirq_fn;
#endif
	return 0;
}

struct lockfault_scenario lockfault_hardirq_aa = {
	.name = "hardirq-aa",
	.init = lockfault_hardirq_init,
	.run = lockfault_hardirq_run,
	.locks = { { "lockfault_hardirq_lock", &lockfault_hardirq_lock } },
	.params = { { "ms", 0, 0, 3600000 }, { "cpu", 1, 1, NR_CPUS - 1 } },
};
