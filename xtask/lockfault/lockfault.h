/* SPDX-License-Identifier: GPL-2.0 */
/*
 * lockfault: breaks the kernel's locking on purpose, one named scenario at a time.
 *
 * A scenario is a table entry with a run() function. run() executes in a
 * kthread of its own (the director), creates the tasks which play the
 * scenario, and looks at the locks themselves to tell when the break is in
 * place. Nothing here is decided by a fixed sleep.
 */
#ifndef LOCKFAULT_H
#define LOCKFAULT_H

#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

struct seq_file;
struct ww_mutex;

#ifndef CONFIG_SMP
#error "lockfault needs an SMP kernel"
#endif

/* A function that must be visible under exactly this name in a stack. */
#define lockfault_frame noinline __noclone

#define LOCKFAULT_MAX_LOCKS	4
#define LOCKFAULT_MAX_PARAMS	5
#define LOCKFAULT_ANY_CPU	(-1)

/* How long a director waits for one condition before it gives up. */
#define LOCKFAULT_PATIENCE	(60 * HZ)
/* The same for a wait that keeps its CPU. */
#define LOCKFAULT_BUSY_PATIENCE_MS 5000

enum lockfault_state {
	LOCKFAULT_IDLE,		/* never started */
	LOCKFAULT_STARTING,	/* started, not yet in place */
	LOCKFAULT_ESTABLISHED,	/* the break is really there */
	LOCKFAULT_DONE,		/* over, all its tasks are gone; may be started again */
	LOCKFAULT_FAILED,	/* could not be brought about; the log says why */
};

/* What run() returns when nothing went wrong. */
enum lockfault_outcome {
	LOCKFAULT_ENDS,		/* its tasks exit by themselves */
	LOCKFAULT_STAYS,	/* broken for ever: the module cannot be unloaded */
};

struct lockfault_lock {
	const char *name;	/* of a static lock: its symbol */
	void *addr;
};

struct lockfault_param {
	const char *name;
	unsigned int fallback;
	unsigned int min;
	unsigned int max;
	unsigned int value;
};

struct lockfault_scenario {
	const char *name;
	int (*init)(struct lockfault_scenario *s);	/* at module load: heap locks */
	void (*exit)(struct lockfault_scenario *s);
	/* In the process that writes the command, before run(); may be NULL. Returns 0 or -errno. */
	int (*here)(struct lockfault_scenario *s);
	/* Returns the outcome or -errno. NULL: cannot happen on this kernel. */
	int (*run)(struct lockfault_scenario *s);
	struct lockfault_lock locks[LOCKFAULT_MAX_LOCKS];
	struct lockfault_param params[LOCKFAULT_MAX_PARAMS];

	enum lockfault_state state;
	bool pinned;		/* running, or stuck: cannot be started, module cannot go */
	bool told_to_end;
	struct list_head tasks;	/* of lockfault_task */
};

struct lockfault_task {
	struct list_head node;
	struct task_struct *task;	/* NULL after lockfault_forget_task() */
	pid_t pid;
	const char *role;
	void *arg;
	unsigned int index;	/* among the tasks of one role */
	bool holds;		/* has the lock it is meant to hold */
	bool wants;		/* is about to ask for the lock it will block on */
	/* By the scheduler's own account, between lockfault_spends() and lockfault_spent(): ns. */
	u64 ran;
	u64 starved;		/* runnable, without a CPU */
	u64 began;
	u64 lasted;		/* 0 while it is not over */
	/* How often it had the lock of its scenario, where the scenario counts that. */
	u64 took_shared;
	u64 took_exclusive;
};

/* A place where a holder sleeps (TASK_IDLE) until the director lets it go on. */
struct lockfault_gate {
	wait_queue_head_t wq;
	bool open;
};

#define LOCKFAULT_GATE(name) \
	struct lockfault_gate name = { \
		.wq = __WAIT_QUEUE_HEAD_INITIALIZER(name.wq), \
	}

void lockfault_gate_pass(struct lockfault_gate *gate);
void lockfault_gate_open(struct lockfault_gate *gate);
void lockfault_gate_close(struct lockfault_gate *gate);

/* core.c: tasks and states of a scenario */
extern struct lockfault_scenario *const lockfault_scenarios[];
extern const unsigned int lockfault_nr_scenarios;

int lockfault_start(struct lockfault_scenario *s, const unsigned int *values);
void lockfault_established(struct lockfault_scenario *s);
unsigned int lockfault_param(const struct lockfault_scenario *s, const char *name);
struct lockfault_task *lockfault_join(struct lockfault_scenario *s, const char *role);
__printf(7, 8)
struct lockfault_task *lockfault_spawn(struct lockfault_scenario *s, const char *role,
				       unsigned int index, int cpu, int (*fn)(void *),
				       void *arg, const char *comm, ...);
void lockfault_spends(struct lockfault_task *self);
void lockfault_spent(struct lockfault_task *self);
void lockfault_forget_task(struct lockfault_task *t);
bool lockfault_all_exited(struct lockfault_scenario *s);
bool lockfault_all_asleep(struct lockfault_scenario *s, const char *role);
int lockfault_show(struct seq_file *m, void *unused);
void lockfault_sleep_ms(unsigned int ms);
void lockfault_last_ms(struct lockfault_scenario *s, unsigned int ms);
void lockfault_end(struct lockfault_scenario *s);

/* control.c: /proc/lockfault */
int lockfault_control_init(void);
void lockfault_control_exit(void);

static inline void lockfault_holds(struct lockfault_task *self)
{
	smp_store_release(&self->holds, true);
}

static inline bool lockfault_is_holding(const struct lockfault_task *t)
{
	return t && smp_load_acquire(&t->holds);
}

static inline void lockfault_took(struct lockfault_task *self, bool exclusive)
{
	u64 *count = exclusive ? &self->took_exclusive : &self->took_shared;

	WRITE_ONCE(*count, *count + 1);
}

static inline bool lockfault_has_exited(const struct lockfault_task *t)
{
	return t && (!t->task || READ_ONCE(t->task->exit_state));
}

static inline void lockfault_wants(struct lockfault_task *self)
{
	smp_store_release(&self->wants, true);
}

/*
 * The task announced that it asks for a lock and has been switched out since.
 * Its only sleep after the announcement is the one inside the lock. Not only
 * TASK_UNINTERRUPTIBLE counts: a PREEMPT_RT kernel that notices an AA deadlock
 * parks the task for ever in TASK_INTERRUPTIBLE.
 */
static inline bool lockfault_is_asleep(const struct lockfault_task *t)
{
	return t && smp_load_acquire(&t->wants) &&
	       READ_ONCE(t->task->__state) != TASK_RUNNING &&
	       !READ_ONCE(t->task->on_cpu);
}

/*
 * Wait in a director until @cond holds. False, with a line in the log, if it
 * does not come true within LOCKFAULT_PATIENCE.
 */
#define lockfault_until(s, cond) ({ \
	unsigned long __end = jiffies + LOCKFAULT_PATIENCE; \
	bool __ok; \
\
	while (!(__ok = (cond)) && time_before(jiffies, __end)) \
		schedule_timeout_idle(1); \
	if (!__ok) \
		pr_err("%s: never became true: %s\n", (s)->name, #cond); \
	__ok; \
})

/*
 * The same for a few milliseconds, without giving up the CPU: for what must not
 * be disturbed by any other task on it.
 */
#define lockfault_busy_until(cond) ({ \
	ktime_t __end = ktime_add_ms(ktime_get(), LOCKFAULT_BUSY_PATIENCE_MS); \
	bool __ok; \
\
	while (!(__ok = (cond)) && ktime_before(ktime_get(), __end)) \
		cpu_relax(); \
	__ok; \
})

/* lockstate.c: what the locks themselves say */
struct task_struct *lockfault_mutex_owner(struct mutex *lock);
unsigned int lockfault_mutex_waiters(struct mutex *lock);
struct task_struct *lockfault_rt_owner(struct rt_mutex_base *lock);
unsigned int lockfault_rt_waiters(struct rt_mutex_base *lock);
struct task_struct *lockfault_ww_owner(struct ww_mutex *lock);
unsigned int lockfault_ww_waiters(struct ww_mutex *lock);
unsigned int lockfault_rwsem_waiters(struct rw_semaphore *sem);
unsigned int lockfault_list_len(raw_spinlock_t *lock, struct list_head *head);

/* aa.c */
extern struct lockfault_scenario lockfault_mutex_aa;
extern struct lockfault_scenario lockfault_ww_mutex_aa;
extern struct lockfault_scenario lockfault_rwsem_aa;
/* cycle.c */
extern struct lockfault_scenario lockfault_mutex_abba;
extern struct lockfault_scenario lockfault_mixed_cycle;
/* reader_io.c */
extern struct lockfault_scenario lockfault_rwsem_reader_io;
/* mmap_lock.c */
extern struct lockfault_scenario lockfault_mmap_lock_io;
/* hold.c */
extern struct lockfault_scenario lockfault_holder_asleep;
extern struct lockfault_scenario lockfault_holder_running;
extern struct lockfault_scenario lockfault_holder_starved;
extern struct lockfault_scenario lockfault_owner_exited;
/* hold_waits.c */
extern struct lockfault_scenario lockfault_holder_in_rcu;
extern struct lockfault_scenario lockfault_holder_in_page;
extern struct lockfault_scenario lockfault_holder_in_queue;
extern struct lockfault_scenario lockfault_holder_stopped;
/* hold_user.c */
extern struct lockfault_scenario lockfault_holder_in_user;
/* contend_sleep.c */
extern struct lockfault_scenario lockfault_contend_mutex;
extern struct lockfault_scenario lockfault_contend_rwsem;
extern struct lockfault_scenario lockfault_contend_semaphore;
extern struct lockfault_scenario lockfault_contend_rt_mutex;
extern struct lockfault_scenario lockfault_contend_percpu_rwsem;
/* contend_spin.c */
extern struct lockfault_scenario lockfault_contend_spinlock;
extern struct lockfault_scenario lockfault_contend_rwlock;
/* softirq_aa.c, hardirq_aa.c, dead_word.c */
extern struct lockfault_scenario lockfault_softirq_aa_timer;
extern struct lockfault_scenario lockfault_softirq_aa_rcu;
extern struct lockfault_scenario lockfault_hardirq_aa;
extern struct lockfault_scenario lockfault_dead_lock_word;
/* spin_holder.c */
extern struct lockfault_scenario lockfault_device_scenario;
/* reinit.c */
extern struct lockfault_scenario lockfault_reinit_completion;
extern struct lockfault_scenario lockfault_reinit_mutex;
extern struct lockfault_scenario lockfault_reinit_rwsem;
int lockfault_reinit_again(struct lockfault_scenario *s, int (*fn)(void *), const char *comm);
/* reinit_queues.c */
extern struct lockfault_scenario lockfault_reinit_wait_queue;
extern struct lockfault_scenario lockfault_reinit_rt_mutex;
extern struct lockfault_scenario lockfault_reinit_percpu_rwsem;
/* inversion.c */
extern struct lockfault_scenario lockfault_inversion_mutex;
extern struct lockfault_scenario lockfault_inversion_rwsem;
/* other_waits.c */
extern struct lockfault_scenario lockfault_other_waits;
/* task_locks.c, stack_locks.c */
extern struct lockfault_scenario lockfault_contend_task_locks;
extern struct lockfault_scenario lockfault_stack_locks;

#endif
