/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The common part of the contend-* scenarios for locks that sleep.
 *
 * First act, fully determined: a holder takes the lock and sleeps (TASK_IDLE),
 * waiters queue behind it one after the other, each seen asleep in the lock
 * before the next one starts, and only then does the holder let go. So every
 * (waiter, owner, kind, mode) can be predicted. There may be several phases,
 * each with its own holder.
 * Second act: a storm of threads on the same lock for ms milliseconds.
 */
#ifndef LOCKFAULT_CONTEND_H
#define LOCKFAULT_CONTEND_H

#include "lockfault.h"

/* A task of the first act; a holder begins a phase. */
struct lockfault_part {
	const char *role;
	const char *comm;
	bool holder;
	bool write;
};

struct lockfault_contend {
	void (*take)(bool write);
	void (*give)(bool write);
	/*
	 * The other functions that take it, and those that give it back then; NULL: there are none.
	 * how, any number, chooses. Giving back, whether it was had for reading in between.
	 */
	void (*take_otherwise)(bool write, unsigned int how);
	bool (*give_otherwise)(bool write, unsigned int how);
	bool shared;		/* it can be had for reading */
	/* Does the lock itself show that parts[part] and those before it in its phase wait? */
	bool (*queued)(const struct lockfault_part *part, unsigned int waiters);
	const struct lockfault_part *parts;	/* ends with an entry without a role */
	const char *storm_comm;

	struct lockfault_gate gate;		/* lets the holder go on */
	bool otherwise;
	unsigned int rounds;			/* of the storm; 0: until its end */
	unsigned long storm_end;		/* jiffies */
};

int lockfault_contend_run(struct lockfault_scenario *s, struct lockfault_contend *c);

/* hold: how long all waiters of a phase wait together, at least. */
#define LOCKFAULT_CONTEND_PARAMS \
	{ "ms", 1000, 0, 600000 }, \
	{ "threads", 4, 1, 64 }, \
	{ "hold", 200, 0, 600000 }

/*
 * rounds: each thread of the storm takes the lock so often, instead of for ms.
 * otherwise: also by every other function that takes and gives back such a lock.
 */
#define LOCKFAULT_CONTEND_WATCHED \
	{ "rounds", 0, 0, 1000000 }, \
	{ "otherwise", 0, 0, 1 }

#endif
