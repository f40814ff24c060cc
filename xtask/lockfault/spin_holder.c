// SPDX-License-Identifier: GPL-2.0
/*
 * spin-holder: a thread polls a device with a spinlock held, and the device
 * never answers. CPU cpu is in the poll, with interrupts on; CPU cpu+1 spins on
 * the lock's pending bit, which no tracepoint shows; CPU cpu+2 stands in the
 * lock's queue behind it.
 * Verdict: root blocker is "holder", running on CPU cpu in
 * lockfault_device_poll; a spinlock has no owner, so that is likely at
 * most. Queue: "pending", then "waiter". There is no deadlock.
 *
 * With rwlock=1 the same with a rwlock: "holder" writes; "pending" wants to read,
 * is the first one in line, and holds the rwlock's inner spinlock; "waiter" wants
 * to write and spins on that. With rwlock=2 "holder" reads, and the other two
 * have changed their wishes. Not on PREEMPT_RT, where a rwlock sleeps.
 *
 * With ms=N CPU 0 lets the device answer after N milliseconds, and all go on; so
 * they do when the module's parameter spin_holder_answers is set before.
 * Otherwise these CPUs are lost.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "rescue.h"

#define LOCKFAULT_DEVICE_CPUS 3

struct lockfault_device {
	u8 other_members[0x38];
	raw_spinlock_t lock;
	rwlock_t rwlock;
	unsigned int rw;	/* which lock, and how it is held: the parameter rwlock */
	bool answered;
	int turn;	/* parts up to this one may go on */
};

static struct lockfault_device *lockfault_dev;
static struct lockfault_rescue lockfault_device_rescue;

static bool lockfault_device_answers;
module_param_named(spin_holder_answers, lockfault_device_answers, bool, 0600);

static void lockfault_device_turn(struct lockfault_device *dev, int turn)
{
	while (smp_load_acquire(&dev->turn) < turn)
		usleep_range(100, 200);
}

static void lockfault_device_lock(struct lockfault_device *dev, bool write)
{
	if (!dev->rw)
		raw_spin_lock(&dev->lock);
	else if (write)
		write_lock(&dev->rwlock);
	else
		read_lock(&dev->rwlock);
}

static void lockfault_device_unlock(struct lockfault_device *dev, bool write)
{
	if (!dev->rw)
		raw_spin_unlock(&dev->lock);
	else if (write)
		write_unlock(&dev->rwlock);
	else
		read_unlock(&dev->rwlock);
}

static lockfault_frame void lockfault_device_poll(struct lockfault_task *self,
						       struct lockfault_device *dev)
{
	bool write = dev->rw != 2;

	lockfault_device_lock(dev, write);
	lockfault_holds(self);
	while (!smp_load_acquire(&dev->answered) && !READ_ONCE(lockfault_device_answers))
		cpu_relax();
	lockfault_device_unlock(dev, write);
}

static lockfault_frame int lockfault_device_thread(void *data)
{
	struct lockfault_task *self = data;

	lockfault_device_turn(self->arg, 0);
	lockfault_device_poll(self, self->arg);
	return 0;
}

static lockfault_frame void lockfault_device_update(struct lockfault_device *dev, bool write)
{
	lockfault_device_lock(dev, write);
	lockfault_device_unlock(dev, write);
}

static lockfault_frame int lockfault_device_pending(void *data)
{
	struct lockfault_task *self = data;

	lockfault_device_turn(self->arg, 1);
	lockfault_device_update(self->arg, lockfault_dev->rw != 1);
	return 0;
}

static lockfault_frame int lockfault_device_waiter(void *data)
{
	struct lockfault_task *self = data;

	lockfault_device_turn(self->arg, 2);
	lockfault_device_update(self->arg, lockfault_dev->rw != 2);
	return 0;
}

/* Does the lock itself show "pending"? */
static bool lockfault_device_first(void)
{
#ifndef CONFIG_PREEMPT_RT
	u32 counts = atomic_read(&lockfault_dev->rwlock.raw_lock.cnts);

	if (lockfault_dev->rw)
		return lockfault_dev->rw == 1 ? counts >> _QR_SHIFT : counts & _QW_WAITING;
#endif
	return atomic_read(&lockfault_dev->lock.raw_lock.val) & _Q_PENDING_MASK;
}

/* And "waiter", on this CPU, behind it? */
static bool lockfault_device_second(unsigned int cpu)
{
#ifndef CONFIG_PREEMPT_RT
	if (lockfault_dev->rw)
		return atomic_read(&lockfault_dev->rwlock.raw_lock.wait_lock.val) & _Q_PENDING_MASK;
#endif
	return atomic_read(&lockfault_dev->lock.raw_lock.val) >> _Q_TAIL_CPU_OFFSET == cpu + 1;
}

static void lockfault_device_repair(void)
{
	smp_store_release(&lockfault_dev->answered, true);
}

static int lockfault_device_run(struct lockfault_scenario *s)
{
	unsigned int cpu = lockfault_param(s, "cpu");
	struct lockfault_task *holder;
	unsigned int i;

	for (i = 0; i < LOCKFAULT_DEVICE_CPUS; i++) {
		if (cpu + i >= nr_cpu_ids || !cpu_online(cpu + i)) {
			pr_err("%s: CPU %u is not online\n", s->name, cpu + i);
			return -ENODEV;
		}
	}
	lockfault_dev->rw = lockfault_param(s, "rwlock");
	if (lockfault_dev->rw && IS_ENABLED(CONFIG_PREEMPT_RT)) {
		pr_err("%s: a rwlock sleeps on PREEMPT_RT\n", s->name);
		return -EOPNOTSUPP;
	}
	lockfault_dev->answered = false;
	smp_store_release(&lockfault_dev->turn, -1);
	holder = lockfault_spawn(s, "holder", 0, cpu, lockfault_device_thread,
				 lockfault_dev, "lf_shd_holder");
	if (!holder ||
	    !lockfault_spawn(s, "pending", 0, cpu + 1, lockfault_device_pending,
			     lockfault_dev, "lf_shd_pending") ||
	    !lockfault_spawn(s, "waiter", 0, cpu + 2, lockfault_device_waiter,
			     lockfault_dev, "lf_shd_waiter")) {
		/* Whoever was created goes through. */
		lockfault_device_repair();
		smp_store_release(&lockfault_dev->turn, 2);
		return -ENOMEM;
	}
	lockfault_rescue_prepare(s, &lockfault_device_rescue);
	smp_store_release(&lockfault_dev->turn, 0);
	if (!lockfault_until(s, lockfault_is_holding(holder)))
		goto failed;
	smp_store_release(&lockfault_dev->turn, 1);
	if (!lockfault_until(s, lockfault_device_first()))
		goto failed;
	smp_store_release(&lockfault_dev->turn, 2);
	if (!lockfault_until(s, lockfault_device_second(cpu + 2)))
		goto failed;
	lockfault_rescue_established(s, &lockfault_device_rescue);
	if (!lockfault_param(s, "ms"))
		return LOCKFAULT_STAYS;
	while (!lockfault_has_exited(holder))
		lockfault_sleep_ms(10);
	lockfault_rescue_exit(&lockfault_device_rescue);
	return LOCKFAULT_ENDS;
failed:
	lockfault_device_repair();
	smp_store_release(&lockfault_dev->turn, 2);
	return -ETIMEDOUT;
}

static int lockfault_device_init(struct lockfault_scenario *s)
{
	lockfault_dev = kzalloc(sizeof(*lockfault_dev), GFP_KERNEL);
	if (!lockfault_dev)
		return -ENOMEM;
	raw_spin_lock_init(&lockfault_dev->lock);
	lockfault_rescue_init(&lockfault_device_rescue, lockfault_device_repair);
	rwlock_init(&lockfault_dev->rwlock);
	s->locks[0].addr = &lockfault_dev->lock;
	s->locks[1].addr = &lockfault_dev->rwlock;
	return 0;
}

static void lockfault_device_exit(struct lockfault_scenario *s)
{
	lockfault_rescue_exit(&lockfault_device_rescue);
	kfree(lockfault_dev);
}

struct lockfault_scenario lockfault_device_scenario = {
	.name = "spin-holder",
	.init = lockfault_device_init,
	.exit = lockfault_device_exit,
	.run = lockfault_device_run,
	.locks = { { "heap.spin_holder.lock" }, { "heap.spin_holder.rwlock" } },
	.params = { { "ms", 0, 0, 3600000 }, { "cpu", 1, 1, NR_CPUS - 1 }, { "rwlock", 0, 0, 2 } },
};
