// SPDX-License-Identifier: GPL-2.0
/*
 * Undoes a wedge from a hard interrupt on CPU 0. A director cannot be relied on
 * for that: CPU 0 may itself be waiting, with preemption off, for the wedged
 * CPU to answer an IPI.
 */
#include <linux/smp.h>

#include "rescue.h"

/* How long a scenario may take to get established before it is undone anyway. */
#define LOCKFAULT_RESCUE_FALLBACK_MS 10000

static enum hrtimer_restart lockfault_rescue_fn(struct hrtimer *timer)
{
	container_of(timer, struct lockfault_rescue, timer)->repair();
	return HRTIMER_NORESTART;
}

void lockfault_rescue_init(struct lockfault_rescue *r, void (*repair)(void))
{
	r->repair = repair;
	lockfault_hrtimer_setup(&r->timer, lockfault_rescue_fn);
}

/* Called by the director, which is bound to CPU 0, before anything is wedged. */
void lockfault_rescue_prepare(struct lockfault_scenario *s, struct lockfault_rescue *r)
{
	unsigned int ms = lockfault_param(s, "ms");

	if (ms)
		hrtimer_start(&r->timer, ms_to_ktime(ms + LOCKFAULT_RESCUE_FALLBACK_MS),
			      HRTIMER_MODE_REL_PINNED_HARD);
}

/* May be called, and for wedges with interrupts off must be, with preemption off. */
void lockfault_rescue_established(struct lockfault_scenario *s, struct lockfault_rescue *r)
{
	unsigned int ms = lockfault_param(s, "ms");

	if (ms)
		hrtimer_start(&r->timer, ms_to_ktime(ms), HRTIMER_MODE_REL_PINNED_HARD);
	lockfault_established(s);
}

/* The rest of run() once the wedge is in place. */
int lockfault_rescue_outcome(struct lockfault_scenario *s)
{
	unsigned int ms = lockfault_param(s, "ms");

	if (!ms)
		return LOCKFAULT_STAYS;
	lockfault_sleep_ms(ms);
	return LOCKFAULT_ENDS;
}

void lockfault_rescue_exit(struct lockfault_rescue *r)
{
	hrtimer_cancel(&r->timer);
}
