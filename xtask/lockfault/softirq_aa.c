// SPDX-License-Identifier: GPL-2.0
/*
 * AA across contexts: a thread takes a spinlock with plain spin_lock(), a
 * softirq on the same CPU interrupts it and spins on the same lock, which only
 * the interrupted thread can release.
 * Verdict: self-deadlock across contexts on CPU cpu: the softirq (timer or RCU
 * callback) spins, having interrupted "holder"; cure: spin_lock_bh() in the
 * thread. The lock's word does not tell the holder: "likely" from the
 * interrupted stack. A single spinner waits for the pending bit, which no
 * tracepoint shows.
 *
 * With ms=N CPU 0 unlocks on the thread's behalf after N milliseconds, so that
 * all goes on. Otherwise CPU cpu is lost.
 *
 * With PREEMPT_RT, softirqs are threads and these locks sleep: cannot happen.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

#include "rescue.h"

#ifdef CONFIG_PREEMPT_RT

/* No run(): starting them is refused. */
struct lockfault_scenario lockfault_softirq_aa_timer = { .name = "softirq-aa-timer" };
struct lockfault_scenario lockfault_softirq_aa_rcu = { .name = "softirq-aa-rcu" };

#else

/* How long the thread holds the lock: several ticks. */
#define LOCKFAULT_SECTION_MS 20

struct lockfault_flow_table {
	u8 other_members[0x50];
	spinlock_t lock;
	struct timer_list timer;
	struct rcu_head rcu;
	bool in_section;	/* the thread is between spin_lock() and spin_unlock() */
	bool callback_queued;
	bool caught;		/* the softirq has interrupted the section */
	bool released;		/* by the rescue */
	struct lockfault_rescue rescue;
};

static struct lockfault_flow_table *lockfault_timer_table;
static struct lockfault_flow_table *lockfault_rcu_table;

/* In softirq, on the thread's own CPU: reads what it interrupted without a race. */
static lockfault_frame void lockfault_softirq_touch(struct lockfault_flow_table *table)
{
	smp_store_release(&table->caught, table->in_section);
	spin_lock(&table->lock);
	spin_unlock(&table->lock);
}

/* Ends the section, unless the rescue has unlocked already. */
static void lockfault_softirq_leave(struct lockfault_flow_table *table)
{
	WRITE_ONCE(table->in_section, false);
	if (smp_load_acquire(&table->released))
		preempt_enable();	/* what is left of spin_unlock() */
	else
		spin_unlock(&table->lock);
}

static void lockfault_softirq_reset(struct lockfault_flow_table *table)
{
	table->in_section = false;
	table->callback_queued = false;
	table->caught = false;
	table->released = false;
}

static void lockfault_softirq_repair(struct lockfault_flow_table *table)
{
	if (!smp_load_acquire(&table->caught))
		return;
	smp_store_release(&table->released, true);
	arch_spin_unlock(&table->lock.rlock.raw_lock);
}

static int lockfault_softirq_play(struct lockfault_scenario *s, struct lockfault_flow_table *table,
				  int (*holder)(void *), const char *comm)
{
	lockfault_rescue_prepare(s, &table->rescue);
	if (!lockfault_spawn(s, "holder", 0, lockfault_param(s, "cpu"), holder, table, "%s", comm))
		return -ENOMEM;
	if (!lockfault_until(s, smp_load_acquire(&table->caught) && spin_is_locked(&table->lock)))
		return -ETIMEDOUT;
	lockfault_rescue_established(s, &table->rescue);
	return lockfault_rescue_outcome(s);
}

static int lockfault_softirq_new(struct lockfault_scenario *s, struct lockfault_flow_table **table,
				 void (*repair)(void))
{
	*table = kzalloc(sizeof(**table), GFP_KERNEL);
	if (!*table)
		return -ENOMEM;
	spin_lock_init(&(*table)->lock);
	lockfault_rescue_init(&(*table)->rescue, repair);
	s->locks[0].addr = &(*table)->lock;
	return 0;
}

/* softirq-aa-timer: the softirq is a timer. */
static lockfault_frame void lockfault_softirq_timer_fn(struct timer_list *timer)
{
	lockfault_softirq_touch(container_of(timer, struct lockfault_flow_table, timer));
}

static lockfault_frame void lockfault_softirq_timer_section(struct lockfault_flow_table *table)
{
	ktime_t end = ktime_add_ms(ktime_get(), LOCKFAULT_SECTION_MS);

	spin_lock(&table->lock);
	WRITE_ONCE(table->in_section, true);
	mod_timer(&table->timer, jiffies + 1);
	while (ktime_before(ktime_get(), end))
		cpu_relax();
	lockfault_softirq_leave(table);
}

/* Again if the softirq was left to ksoftirqd, which cannot interrupt the section. */
static lockfault_frame int lockfault_softirq_timer_holder(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_flow_table *table = self->arg;

	while (!smp_load_acquire(&table->caught)) {
		lockfault_softirq_timer_section(table);
		schedule_timeout_idle(1);
	}
	return 0;
}

static int lockfault_softirq_timer_run(struct lockfault_scenario *s)
{
	lockfault_softirq_reset(lockfault_timer_table);
	return lockfault_softirq_play(s, lockfault_timer_table, lockfault_softirq_timer_holder,
				      "lf_tmr_holder");
}

static void lockfault_softirq_timer_repair(void)
{
	lockfault_softirq_repair(lockfault_timer_table);
}

static int lockfault_softirq_timer_init(struct lockfault_scenario *s)
{
	int ret = lockfault_softirq_new(s, &lockfault_timer_table,
					lockfault_softirq_timer_repair);

	if (!ret)
		timer_setup(&lockfault_timer_table->timer, lockfault_softirq_timer_fn,
			    TIMER_PINNED);
	return ret;
}

static void lockfault_softirq_timer_exit(struct lockfault_scenario *s)
{
	lockfault_rescue_exit(&lockfault_timer_table->rescue);
	kfree(lockfault_timer_table);
}

struct lockfault_scenario lockfault_softirq_aa_timer = {
	.name = "softirq-aa-timer",
	.init = lockfault_softirq_timer_init,
	.exit = lockfault_softirq_timer_exit,
	.run = lockfault_softirq_timer_run,
	.locks = { { "heap.softirq_timer.lock" } },
	.params = { { "ms", 0, 0, 3600000 }, { "cpu", 1, 1, NR_CPUS - 1 } },
};

/*
 * softirq-aa-rcu: the softirq is an RCU callback, as in the field: the thread
 * prunes a table under the lock again and again, and frees through call_rcu().
 * An unlucky callback runs while the thread is inside, where it is most of the
 * time. (The thread must leave the section now and then: with preemption off
 * for ever there would be no end of the grace period.)
 */
static lockfault_frame void lockfault_softirq_rcu_free(struct rcu_head *head)
{
	struct lockfault_flow_table *table = container_of(head, struct lockfault_flow_table, rcu);

	lockfault_softirq_touch(table);
	smp_store_release(&table->callback_queued, false);
}

static lockfault_frame void lockfault_softirq_rcu_prune(struct lockfault_flow_table *table)
{
	ktime_t end = ktime_add_ms(ktime_get(), LOCKFAULT_SECTION_MS);

	spin_lock(&table->lock);
	WRITE_ONCE(table->in_section, true);
	while (ktime_before(ktime_get(), end))
		cpu_relax();
	lockfault_softirq_leave(table);
}

static lockfault_frame int lockfault_softirq_rcu_holder(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_flow_table *table = self->arg;

	while (!smp_load_acquire(&table->caught)) {
		if (!smp_load_acquire(&table->callback_queued)) {
			table->callback_queued = true;
			call_rcu(&table->rcu, lockfault_softirq_rcu_free);
		}
		lockfault_softirq_rcu_prune(table);
		schedule_timeout_idle(1);
	}
	return 0;
}

static int lockfault_softirq_rcu_run(struct lockfault_scenario *s)
{
	lockfault_softirq_reset(lockfault_rcu_table);
	return lockfault_softirq_play(s, lockfault_rcu_table, lockfault_softirq_rcu_holder,
				      "lf_rcu_holder");
}

static void lockfault_softirq_rcu_repair(void)
{
	lockfault_softirq_repair(lockfault_rcu_table);
}

static int lockfault_softirq_rcu_init(struct lockfault_scenario *s)
{
	return lockfault_softirq_new(s, &lockfault_rcu_table, lockfault_softirq_rcu_repair);
}

static void lockfault_softirq_rcu_exit(struct lockfault_scenario *s)
{
	rcu_barrier();
	lockfault_rescue_exit(&lockfault_rcu_table->rescue);
	kfree(lockfault_rcu_table);
}

struct lockfault_scenario lockfault_softirq_aa_rcu = {
	.name = "softirq-aa-rcu",
	.init = lockfault_softirq_rcu_init,
	.exit = lockfault_softirq_rcu_exit,
	.run = lockfault_softirq_rcu_run,
	.locks = { { "heap.softirq_rcu.lock" } },
	.params = { { "ms", 0, 0, 3600000 }, { "cpu", 1, 1, NR_CPUS - 1 } },
};

#endif
