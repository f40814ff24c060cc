/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For scenarios that wedge a CPU: with ms=N the wedge is undone N milliseconds
 * after it was established, with ms=0 never.
 */
#ifndef LOCKFAULT_RESCUE_H
#define LOCKFAULT_RESCUE_H

#include <linux/hrtimer.h>
#include <linux/version.h>

#include "lockfault.h"

struct lockfault_rescue {
	struct hrtimer timer;
	void (*repair)(void);	/* called in hard interrupt context on CPU 0 */
};

void lockfault_rescue_init(struct lockfault_rescue *r, void (*repair)(void));
void lockfault_rescue_prepare(struct lockfault_scenario *s, struct lockfault_rescue *r);
void lockfault_rescue_established(struct lockfault_scenario *s, struct lockfault_rescue *r);
int lockfault_rescue_outcome(struct lockfault_scenario *s);
void lockfault_rescue_exit(struct lockfault_rescue *r);

/* A timer that fires in hard interrupt context, also on PREEMPT_RT, on the CPU that starts it. */
static inline void lockfault_hrtimer_setup(struct hrtimer *timer,
					   enum hrtimer_restart (*fn)(struct hrtimer *))
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(timer, fn, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
#else
	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	timer->function = fn;
#endif
}

#endif
