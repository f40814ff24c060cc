// SPDX-License-Identifier: GPL-2.0
/*
 * What the locks themselves say about owners and waiters. The directors decide
 * by this, not by time, whether a scenario is in place.
 */
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/ww_mutex.h>

#include "lockfault.h"

/* kernel/locking/mutex.c: MUTEX_FLAGS */
#define LOCKFAULT_MUTEX_FLAGS	7UL
/* kernel/locking/rtmutex_common.h: RT_MUTEX_HAS_WAITERS */
#define LOCKFAULT_RT_FLAGS	1UL

struct task_struct *lockfault_rt_owner(struct rt_mutex_base *lock)
{
	return (void *)((unsigned long)READ_ONCE(lock->owner) & ~LOCKFAULT_RT_FLAGS);
}

unsigned int lockfault_rt_waiters(struct rt_mutex_base *lock)
{
	unsigned int n = 0;
	unsigned long flags;
	struct rb_node *node;

	raw_spin_lock_irqsave(&lock->wait_lock, flags);
	for (node = rb_first_cached(&lock->waiters); node; node = rb_next(node))
		n++;
	raw_spin_unlock_irqrestore(&lock->wait_lock, flags);
	return n;
}

unsigned int lockfault_list_len(raw_spinlock_t *lock, struct list_head *head)
{
	unsigned int n = 0;
	unsigned long flags;
	struct list_head *node;

	raw_spin_lock_irqsave(lock, flags);
	list_for_each(node, head)
		n++;
	raw_spin_unlock_irqrestore(lock, flags);
	return n;
}

#ifdef CONFIG_PREEMPT_RT

struct task_struct *lockfault_mutex_owner(struct mutex *lock)
{
	return lockfault_rt_owner(&lock->rtmutex);
}

unsigned int lockfault_mutex_waiters(struct mutex *lock)
{
	return lockfault_rt_waiters(&lock->rtmutex);
}

struct task_struct *lockfault_ww_owner(struct ww_mutex *lock)
{
	return lockfault_rt_owner(&lock->base.rtmutex);
}

unsigned int lockfault_ww_waiters(struct ww_mutex *lock)
{
	return lockfault_rt_waiters(&lock->base.rtmutex);
}

/* A writer that drains the readers owns the rtmutex and is not among these. */
unsigned int lockfault_rwsem_waiters(struct rw_semaphore *sem)
{
	return lockfault_rt_waiters(&sem->rwbase.rtmutex);
}

#else

struct task_struct *lockfault_mutex_owner(struct mutex *lock)
{
	return (void *)(atomic_long_read(&lock->owner) & ~LOCKFAULT_MUTEX_FLAGS);
}

unsigned int lockfault_mutex_waiters(struct mutex *lock)
{
	return lockfault_list_len(&lock->wait_lock, &lock->wait_list);
}

struct task_struct *lockfault_ww_owner(struct ww_mutex *lock)
{
	return lockfault_mutex_owner(&lock->base);
}

unsigned int lockfault_ww_waiters(struct ww_mutex *lock)
{
	return lockfault_mutex_waiters(&lock->base);
}

unsigned int lockfault_rwsem_waiters(struct rw_semaphore *sem)
{
	return lockfault_list_len(&sem->wait_lock, &sem->wait_list);
}

#endif
