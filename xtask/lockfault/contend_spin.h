/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Real contention, which ends, on the locks whose waiters spin.
 *
 * First act: the holder, itself spinning on its own CPU, lets the other CPUs
 * ask for the lock one at a time and looks at the lock's word to see each of
 * them wait before it calls the next one and, at last, lets go. (A director
 * could not do that: all CPUs may be spinning.)
 * Second act: a storm on CPUs 0 to 3 for ms milliseconds.
 *
 * Needs CPUs 0 to 3, and a kernel that takes the queued slow path: an x86
 * guest which sees a hypervisor without paravirtual spinlocks does not. On
 * PREEMPT_RT these locks are rtmutexes and their waiters sleep; the same is
 * played with those.
 */
#ifndef LOCKFAULT_CONTEND_SPIN_H
#define LOCKFAULT_CONTEND_SPIN_H

#include "contend.h"

#define LOCKFAULT_SPIN_CPUS 4

struct lockfault_spin_part {
	const char *role;
	const char *comm;
	int cpu;
	bool holder;	/* begins a phase */
	bool write;
};

struct lockfault_spin {
	void (*take)(bool write);
	void (*give)(bool write);
	/* As in struct lockfault_contend. */
	void (*take_otherwise)(bool write, unsigned int how, unsigned long *flags);
	void (*give_otherwise)(bool write, unsigned int how, unsigned long flags);
	bool shared;
	/* Does the lock show that the task playing this part waits, too? */
	bool (*seen)(const struct lockfault_spin_part *part, const struct lockfault_task *t,
		     unsigned int waiters);
	const struct lockfault_spin_part *parts;	/* ends with an entry without a role */
	struct lockfault_task *tasks[LOCKFAULT_SPIN_CPUS * 2];	/* parallel to parts */
	const char *storm_comm;

	unsigned int hold_us;
	int turn;		/* parts up to this one may ask for the lock */
	bool otherwise;
	unsigned int rounds;
	bool failed;		/* a holder waited in vain */
	unsigned long storm_end;
};

int lockfault_spin_run(struct lockfault_scenario *s, struct lockfault_spin *c);

#endif
