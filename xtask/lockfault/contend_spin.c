// SPDX-License-Identifier: GPL-2.0
/*
 * The two acts of the scenarios for locks whose waiters spin, and two of them:
 * see contend_spin.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "contend_spin.h"

static lockfault_frame int lockfault_spin_waiter(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_spin *c = self->arg;
	bool write = c->parts[self->index].write;

	while (smp_load_acquire(&c->turn) < (int)self->index)
		usleep_range(100, 200);
	lockfault_wants(self);
	c->take(write);
	lockfault_took(self, write || !c->shared);
	c->give(write);
	return 0;
}

static lockfault_frame int lockfault_spin_holder(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_spin *c = self->arg;
	bool write = c->parts[self->index].write;
	ktime_t end;
	unsigned int i;

	while (smp_load_acquire(&c->turn) < (int)self->index)
		usleep_range(100, 200);
	c->take(write);
	lockfault_took(self, write || !c->shared);
	lockfault_holds(self);
	for (i = self->index + 1; c->parts[i].role && !c->parts[i].holder; i++) {
		smp_store_release(&c->turn, i);
		if (!lockfault_busy_until(smp_load_acquire(&c->tasks[i]->wants) &&
					  c->seen(&c->parts[i], c->tasks[i], i - self->index))) {
			WRITE_ONCE(c->failed, true);
			break;
		}
	}
	end = ktime_add_us(ktime_get(), c->hold_us);
	while (ktime_before(ktime_get(), end))
		cpu_relax();
	c->give(write);
	return 0;
}

static lockfault_frame int lockfault_spin_storm(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_spin *c = self->arg;
	unsigned int round;

	for (round = self->index; c->rounds ? round - self->index < c->rounds :
					      time_before(jiffies, c->storm_end); round++) {
		bool write = round % 2;
		bool otherwise = c->otherwise && round % 3;
		unsigned long flags = 0;

		if (otherwise)
			c->take_otherwise(write, round / 6, &flags);
		else
			c->take(write);
		lockfault_took(self, write || !c->shared);
		udelay(100);
		if (otherwise)
			c->give_otherwise(write, round / 6, flags);
		else
			c->give(write);
		cond_resched();
	}
	return 0;
}

/* All tasks of the first act exist before the first of them spins. */
static int lockfault_spin_cast(struct lockfault_scenario *s, struct lockfault_spin *c)
{
	const struct lockfault_spin_part *part;
	unsigned int i;

	for (i = 0; (part = &c->parts[i])->role; i++) {
		c->tasks[i] = lockfault_spawn(s, part->role, i, part->cpu,
					      part->holder ? lockfault_spin_holder :
							     lockfault_spin_waiter,
					      c, "%s", part->comm);
		if (!c->tasks[i])
			return -ENOMEM;
	}
	return 0;
}

/* The tasks of the phase that begins with part first. */
static bool lockfault_spin_phase_over(struct lockfault_spin *c, unsigned int first)
{
	unsigned int i = first;

	do {
		if (!lockfault_has_exited(c->tasks[i]))
			return false;
		i++;
	} while (c->parts[i].role && !c->parts[i].holder);
	return true;
}

int lockfault_spin_run(struct lockfault_scenario *s, struct lockfault_spin *c)
{
	unsigned int cpu, i;
	int ret;

	for (cpu = 0; cpu < LOCKFAULT_SPIN_CPUS; cpu++) {
		if (!cpu_online(cpu)) {
			pr_err("%s: needs CPUs 0 to %d\n", s->name, LOCKFAULT_SPIN_CPUS - 1);
			return -ENODEV;
		}
	}
	c->hold_us = lockfault_param(s, "hold") * USEC_PER_MSEC;
	c->failed = false;
	/* Nobody may look at c->tasks before all are there. */
	c->turn = -1;
	ret = lockfault_spin_cast(s, c);
	if (ret)
		return ret;
	for (i = 0; c->parts[i].role; i++) {
		if (!c->parts[i].holder)
			continue;
		smp_store_release(&c->turn, i);
		if (!lockfault_until(s, lockfault_spin_phase_over(c, i)))
			return -ETIMEDOUT;
	}
	if (READ_ONCE(c->failed)) {
		pr_err("%s: the lock's word never showed the waiters; no queued spinlocks?\n",
		       s->name);
		return -ENXIO;
	}
	lockfault_established(s);
	c->rounds = c->take_otherwise ? lockfault_param(s, "rounds") : 0;
	c->otherwise = c->take_otherwise && lockfault_param(s, "otherwise");
	c->storm_end = jiffies + msecs_to_jiffies(lockfault_param(s, "ms"));
	for (cpu = 0; cpu < LOCKFAULT_SPIN_CPUS; cpu++)
		if (!lockfault_spawn(s, "storm", cpu, cpu, lockfault_spin_storm, c, "%s%u",
				     c->storm_comm, cpu))
			return -ENOMEM;
	if (!c->rounds)
		lockfault_sleep_ms(lockfault_param(s, "ms"));
	return LOCKFAULT_ENDS;
}

/*
 * contend-spinlock. Verdict: contention on the object's lock; a spinlock has no
 * owner. "waiter" (twice: CPUs 3 and 0) queue and are seen by contention_begin;
 * "pending", the first one to come, spins on the lock's pending bit, which no
 * tracepoint shows. With PREEMPT_RT all three sleep in an rtmutex that
 * "holder" owns.
 */
struct lockfault_zone {
	u8 other_members[0x48];
	spinlock_t lock;
};

static struct lockfault_zone *lockfault_zone;

static lockfault_frame void lockfault_contend_spinlock_take(bool write)
{
	spin_lock(&lockfault_zone->lock);
}

static lockfault_frame void lockfault_contend_spinlock_give(bool write)
{
	spin_unlock(&lockfault_zone->lock);
}

static lockfault_frame void lockfault_contend_spinlock_otherwise(bool write, unsigned int how,
								 unsigned long *flags)
{
	switch (how % 5) {
	case 0:
		spin_lock_bh(&lockfault_zone->lock);
		return;
	case 1:
		spin_lock_irq(&lockfault_zone->lock);
		return;
	case 2:
		spin_lock_irqsave(&lockfault_zone->lock, *flags);
		return;
	case 3:
		while (!spin_trylock_bh(&lockfault_zone->lock))
			cpu_relax();
		return;
	default:
		while (!spin_trylock(&lockfault_zone->lock))
			cpu_relax();
	}
}

static lockfault_frame void lockfault_contend_spinlock_back(bool write, unsigned int how,
							    unsigned long flags)
{
	switch (how % 5) {
	case 0:
	case 3:
		spin_unlock_bh(&lockfault_zone->lock);
		return;
	case 1:
		spin_unlock_irq(&lockfault_zone->lock);
		return;
	case 2:
		spin_unlock_irqrestore(&lockfault_zone->lock, flags);
		return;
	default:
		spin_unlock(&lockfault_zone->lock);
	}
}

static bool lockfault_contend_spinlock_seen(const struct lockfault_spin_part *part,
					    const struct lockfault_task *t, unsigned int waiters)
{
#ifdef CONFIG_PREEMPT_RT
	return lockfault_rt_waiters(&lockfault_zone->lock.lock) == waiters;
#else
	u32 word = atomic_read(&lockfault_zone->lock.rlock.raw_lock.val);

	if (waiters == 1)
		return word & _Q_PENDING_MASK;
	return word >> _Q_TAIL_CPU_OFFSET == part->cpu + 1;
#endif
}

static const struct lockfault_spin_part lockfault_contend_spinlock_parts[] = {
	{ "holder", "lf_csp_holder", 1, .holder = true },
	{ "pending", "lf_csp_pending", 2 },
	{ "waiter", "lf_csp_wait0", 3 },
	{ "waiter", "lf_csp_wait1", 0 },
	{ }
};

static struct lockfault_spin lockfault_contend_spinlock_play = {
	.take = lockfault_contend_spinlock_take,
	.give = lockfault_contend_spinlock_give,
	.take_otherwise = lockfault_contend_spinlock_otherwise,
	.give_otherwise = lockfault_contend_spinlock_back,
	.seen = lockfault_contend_spinlock_seen,
	.parts = lockfault_contend_spinlock_parts,
	.storm_comm = "lf_csp_storm",
};

static int lockfault_contend_spinlock_init(struct lockfault_scenario *s)
{
	lockfault_zone = kzalloc(sizeof(*lockfault_zone), GFP_KERNEL);
	if (!lockfault_zone)
		return -ENOMEM;
	spin_lock_init(&lockfault_zone->lock);
	s->locks[0].addr = &lockfault_zone->lock;
	return 0;
}

static void lockfault_contend_spinlock_exit(struct lockfault_scenario *s)
{
	kfree(lockfault_zone);
}

static int lockfault_contend_spinlock_run(struct lockfault_scenario *s)
{
	return lockfault_spin_run(s, &lockfault_contend_spinlock_play);
}

struct lockfault_scenario lockfault_contend_spinlock = {
	.name = "contend-spinlock",
	.init = lockfault_contend_spinlock_init,
	.exit = lockfault_contend_spinlock_exit,
	.run = lockfault_contend_spinlock_run,
	.locks = { { "heap.contend.spinlock" } },
	.params = { { "ms", 1000, 0, 600000 }, { "hold", 20, 0, 5000 }, LOCKFAULT_CONTEND_WATCHED },
};

/*
 * contend-rwlock. Verdict: "reader-waiter" (read) and "writer-waiter" (write)
 * spin on lockfault_contend_rwl while "writer-holder" has it; later
 * "drain-waiter" (write) spins while "reader-holder" has it. A rwlock has no
 * owner.
 */
static DEFINE_RWLOCK(lockfault_contend_rwl);

static lockfault_frame void lockfault_contend_rwlock_take(bool write)
{
	if (write)
		write_lock(&lockfault_contend_rwl);
	else
		read_lock(&lockfault_contend_rwl);
}

static lockfault_frame void lockfault_contend_rwlock_give(bool write)
{
	if (write)
		write_unlock(&lockfault_contend_rwl);
	else
		read_unlock(&lockfault_contend_rwl);
}

static lockfault_frame void lockfault_contend_rwlock_otherwise(bool write, unsigned int how,
							       unsigned long *flags)
{
	switch (how % 4) {
	case 0:
		if (write)
			write_lock_bh(&lockfault_contend_rwl);
		else
			read_lock_bh(&lockfault_contend_rwl);
		return;
	case 1:
		if (write)
			write_lock_irq(&lockfault_contend_rwl);
		else
			read_lock_irq(&lockfault_contend_rwl);
		return;
	case 2:
		if (write)
			write_lock_irqsave(&lockfault_contend_rwl, *flags);
		else
			read_lock_irqsave(&lockfault_contend_rwl, *flags);
		return;
	default:
		while (!(write ? write_trylock(&lockfault_contend_rwl) :
				 read_trylock(&lockfault_contend_rwl)))
			cpu_relax();
	}
}

static lockfault_frame void lockfault_contend_rwlock_back(bool write, unsigned int how,
							  unsigned long flags)
{
	switch (how % 4) {
	case 0:
		if (write)
			write_unlock_bh(&lockfault_contend_rwl);
		else
			read_unlock_bh(&lockfault_contend_rwl);
		return;
	case 1:
		if (write)
			write_unlock_irq(&lockfault_contend_rwl);
		else
			read_unlock_irq(&lockfault_contend_rwl);
		return;
	case 2:
		if (write)
			write_unlock_irqrestore(&lockfault_contend_rwl, flags);
		else
			read_unlock_irqrestore(&lockfault_contend_rwl, flags);
		return;
	default:
		lockfault_contend_rwlock_give(write);
	}
}

static bool lockfault_contend_rwlock_seen(const struct lockfault_spin_part *part,
					  const struct lockfault_task *t, unsigned int waiters)
{
#ifdef CONFIG_PREEMPT_RT
	return lockfault_rt_waiters(&lockfault_contend_rwl.rwbase.rtmutex) == waiters ||
	       lockfault_is_asleep(t);
#else
	struct qrwlock *lock = &lockfault_contend_rwl.raw_lock;

	/* The reader waits at the head of the queue, holding wait_lock. */
	if (!part->write)
		return atomic_read(&lock->cnts) >> _QR_SHIFT;
	/* A writer at the head says so in the lock; behind the reader it waits for wait_lock. */
	return atomic_read(&lock->cnts) & _QW_WAITING ||
	       atomic_read(&lock->wait_lock.val) & _Q_PENDING_MASK;
#endif
}

static const struct lockfault_spin_part lockfault_contend_rwlock_parts[] = {
	{ "writer-holder", "lf_crl_wholder", 1, .holder = true, .write = true },
	{ "reader-waiter", "lf_crl_rwait", 2 },
	{ "writer-waiter", "lf_crl_wwait", 3, .write = true },
	{ "reader-holder", "lf_crl_rholder", 1, .holder = true },
	{ "drain-waiter", "lf_crl_drain", 2, .write = true },
	{ }
};

static struct lockfault_spin lockfault_contend_rwlock_play = {
	.take = lockfault_contend_rwlock_take,
	.give = lockfault_contend_rwlock_give,
	.take_otherwise = lockfault_contend_rwlock_otherwise,
	.give_otherwise = lockfault_contend_rwlock_back,
	.shared = true,
	.seen = lockfault_contend_rwlock_seen,
	.parts = lockfault_contend_rwlock_parts,
	.storm_comm = "lf_crl_storm",
};

static int lockfault_contend_rwlock_run(struct lockfault_scenario *s)
{
	return lockfault_spin_run(s, &lockfault_contend_rwlock_play);
}

struct lockfault_scenario lockfault_contend_rwlock = {
	.name = "contend-rwlock",
	.run = lockfault_contend_rwlock_run,
	.locks = { { "lockfault_contend_rwl", &lockfault_contend_rwl } },
	.params = { { "ms", 1000, 0, 600000 }, { "hold", 20, 0, 5000 }, LOCKFAULT_CONTEND_WATCHED },
};
