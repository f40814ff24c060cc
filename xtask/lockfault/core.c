// SPDX-License-Identifier: GPL-2.0
/*
 * The scenarios' life: start, tasks, states, and the listing of them.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "lockfault.h"

struct lockfault_scenario *const lockfault_scenarios[] = {
	&lockfault_mutex_aa,
	&lockfault_ww_mutex_aa,
	&lockfault_rwsem_aa,
	&lockfault_mutex_abba,
	&lockfault_mixed_cycle,
	&lockfault_rwsem_reader_io,
	&lockfault_mmap_lock_io,
	&lockfault_holder_asleep,
	&lockfault_holder_running,
	&lockfault_holder_starved,
	&lockfault_owner_exited,
	&lockfault_holder_in_rcu,
	&lockfault_holder_in_page,
	&lockfault_holder_in_queue,
	&lockfault_holder_stopped,
	&lockfault_holder_in_user,
	&lockfault_contend_mutex,
	&lockfault_contend_rwsem,
	&lockfault_contend_semaphore,
	&lockfault_contend_rt_mutex,
	&lockfault_contend_percpu_rwsem,
	&lockfault_contend_spinlock,
	&lockfault_contend_rwlock,
	&lockfault_softirq_aa_timer,
	&lockfault_softirq_aa_rcu,
	&lockfault_hardirq_aa,
	&lockfault_dead_lock_word,
	&lockfault_device_scenario,
	&lockfault_reinit_completion,
	&lockfault_reinit_mutex,
	&lockfault_reinit_rwsem,
	&lockfault_reinit_wait_queue,
	&lockfault_reinit_rt_mutex,
	&lockfault_reinit_percpu_rwsem,
	&lockfault_inversion_mutex,
	&lockfault_inversion_rwsem,
	&lockfault_other_waits,
	&lockfault_contend_task_locks,
	&lockfault_stack_locks,
};

const unsigned int lockfault_nr_scenarios = ARRAY_SIZE(lockfault_scenarios);

static const char *const lockfault_state_names[] = {
	[LOCKFAULT_IDLE] = "idle",
	[LOCKFAULT_STARTING] = "starting",
	[LOCKFAULT_ESTABLISHED] = "established",
	[LOCKFAULT_DONE] = "done",
	[LOCKFAULT_FAILED] = "failed",
};

/*
 * Guards the task lists. Never held across anything that can sleep
 * or wait, so that reading the listing cannot hang with what is broken.
 */
static DEFINE_SPINLOCK(lockfault_lists);

/* Serialises starts. */
static DEFINE_MUTEX(lockfault_starts);

void lockfault_gate_pass(struct lockfault_gate *gate)
{
	wait_event_idle(gate->wq, smp_load_acquire(&gate->open));
}

void lockfault_gate_open(struct lockfault_gate *gate)
{
	smp_store_release(&gate->open, true);
	wake_up_all(&gate->wq);
}

void lockfault_gate_close(struct lockfault_gate *gate)
{
	WRITE_ONCE(gate->open, false);
}

/* A director's sleep; unlike msleep() it does not show up as a blocked task. */
void lockfault_sleep_ms(unsigned int ms)
{
	schedule_timeout_idle(msecs_to_jiffies(ms));
}

static DECLARE_WAIT_QUEUE_HEAD(lockfault_ends);

/* Until @ms are over or somebody writes "end NAME". */
void lockfault_last_ms(struct lockfault_scenario *s, unsigned int ms)
{
	wait_event_idle_timeout(lockfault_ends, READ_ONCE(s->told_to_end), msecs_to_jiffies(ms));
}

void lockfault_end(struct lockfault_scenario *s)
{
	WRITE_ONCE(s->told_to_end, true);
	wake_up_all(&lockfault_ends);
}

unsigned int lockfault_param(const struct lockfault_scenario *s, const char *name)
{
	unsigned int i;

	for (i = 0; i < LOCKFAULT_MAX_PARAMS && s->params[i].name; i++)
		if (!strcmp(s->params[i].name, name))
			return s->params[i].value;
	WARN_ONCE(1, "scenario %s has no parameter %s\n", s->name, name);
	return 0;
}

static const char *lockfault_state_name(const struct lockfault_scenario *s)
{
	return lockfault_state_names[smp_load_acquire(&s->state)];
}

static void lockfault_set_state(struct lockfault_scenario *s, enum lockfault_state state)
{
	smp_store_release(&s->state, state);
}

/* May be called with preemption off. */
void lockfault_established(struct lockfault_scenario *s)
{
	lockfault_set_state(s, LOCKFAULT_ESTABLISHED);
}

static struct lockfault_task *lockfault_enlist(struct lockfault_scenario *s,
					       struct lockfault_task *t,
					       struct task_struct *task)
{
	/* The reference keeps the pid and the state readable after the exit. */
	t->task = get_task_struct(task);
	t->pid = task->pid;
	spin_lock(&lockfault_lists);
	list_add_tail(&t->node, &s->tasks);
	spin_unlock(&lockfault_lists);
	return t;
}

/* Enlist the current task, which the scenario did not create: a kworker. */
struct lockfault_task *lockfault_join(struct lockfault_scenario *s, const char *role)
{
	struct lockfault_task *t = kzalloc(sizeof(*t), GFP_KERNEL);

	if (!t)
		return NULL;
	t->role = role;
	return lockfault_enlist(s, t, current);
}

/* Create and start a kthread whose argument is its own lockfault_task. */
struct lockfault_task *lockfault_spawn(struct lockfault_scenario *s, const char *role,
				       unsigned int index, int cpu, int (*fn)(void *),
				       void *arg, const char *comm, ...)
{
	struct lockfault_task *t = kzalloc(sizeof(*t), GFP_KERNEL);
	struct task_struct *task;
	char name[TASK_COMM_LEN];
	va_list args;

	if (!t)
		return NULL;
	t->role = role;
	t->index = index;
	t->arg = arg;
	va_start(args, comm);
	vsnprintf(name, sizeof(name), comm, args);
	va_end(args);
	task = kthread_create(fn, t, "%s", name);
	if (IS_ERR(task)) {
		pr_err("%s: cannot create %s: %ld\n", s->name, name, PTR_ERR(task));
		kfree(t);
		return NULL;
	}
	if (cpu != LOCKFAULT_ANY_CPU)
		kthread_bind(task, cpu);
	lockfault_enlist(s, t, task);
	wake_up_process(task);
	return t;
}

bool lockfault_all_exited(struct lockfault_scenario *s)
{
	struct lockfault_task *t;
	bool all = true;

	spin_lock(&lockfault_lists);
	list_for_each_entry(t, &s->tasks, node)
		all = all && lockfault_has_exited(t);
	spin_unlock(&lockfault_lists);
	return all;
}

/* All tasks of @role (of any role if NULL) wait for the lock they want. */
bool lockfault_all_asleep(struct lockfault_scenario *s, const char *role)
{
	struct lockfault_task *t;
	bool all = true;

	spin_lock(&lockfault_lists);
	list_for_each_entry(t, &s->tasks, node)
		if (!role || !strcmp(role, t->role))
			all = all && lockfault_is_asleep(t);
	spin_unlock(&lockfault_lists);
	return all;
}

/* Lets the memory of an exited task go, as it would without this module's reference. */
void lockfault_forget_task(struct lockfault_task *t)
{
	struct task_struct *task = t->task;

	spin_lock(&lockfault_lists);
	t->task = NULL;
	spin_unlock(&lockfault_lists);
	put_task_struct(task);
}

static void lockfault_drop_tasks(struct lockfault_scenario *s)
{
	struct lockfault_task *t, *next;
	LIST_HEAD(gone);

	spin_lock(&lockfault_lists);
	list_splice_init(&s->tasks, &gone);
	spin_unlock(&lockfault_lists);
	list_for_each_entry_safe(t, next, &gone, node) {
		if (t->task)
			put_task_struct(t->task);
		kfree(t);
	}
}

/* The director's thread: plays one scenario from start to end. */
static int lockfault_director(void *data)
{
	struct lockfault_scenario *s = data;
	int ret = s->run(s);

	if (ret == LOCKFAULT_ENDS && !lockfault_until(s, lockfault_all_exited(s)))
		ret = -ETIMEDOUT;
	if (ret < 0) {
		pr_err("%s: failed: %d\n", s->name, ret);
		lockfault_set_state(s, LOCKFAULT_FAILED);
	}
	if (ret == LOCKFAULT_STAYS || !lockfault_all_exited(s))
		return 0;	/* stays pinned: keeps the module's reference */
	if (ret == LOCKFAULT_ENDS)
		lockfault_set_state(s, LOCKFAULT_DONE);
	smp_store_release(&s->pinned, false);
	module_put_and_kthread_exit(0);
	return 0;
}

/*
 * What the scheduler says of a task, to compare with what a tracer says. Called
 * by the task itself.
 */
void lockfault_spends(struct lockfault_task *self)
{
	self->ran = READ_ONCE(current->se.sum_exec_runtime);
	self->starved = READ_ONCE(current->sched_info.run_delay);
	self->began = ktime_get_ns();
}

void lockfault_spent(struct lockfault_task *self)
{
	self->ran = READ_ONCE(current->se.sum_exec_runtime) - self->ran;
	self->starved = READ_ONCE(current->sched_info.run_delay) - self->starved;
	smp_store_release(&self->lasted, ktime_get_ns() - self->began);
}

/* @values runs parallel to s->params. */
int lockfault_start(struct lockfault_scenario *s, const unsigned int *values)
{
	struct task_struct *director;
	unsigned int i;
	int ret = 0;

	mutex_lock(&lockfault_starts);
	if (smp_load_acquire(&s->pinned)) {
		pr_err("%s: already %s\n", s->name, lockfault_state_name(s));
		ret = -EBUSY;
		goto out;
	}
	if (!try_module_get(THIS_MODULE)) {
		ret = -ENODEV;
		goto out;
	}
	lockfault_drop_tasks(s);
	director = kthread_create(lockfault_director, s, "lf_director");
	if (IS_ERR(director)) {
		ret = PTR_ERR(director);
		module_put(THIS_MODULE);
		goto out;
	}
	for (i = 0; i < LOCKFAULT_MAX_PARAMS; i++)
		s->params[i].value = values[i];
	ret = s->here ? s->here(s) : 0;
	if (ret) {
		kthread_stop(director);
		module_put(THIS_MODULE);
		goto out;
	}
	s->pinned = true;
	s->told_to_end = false;
	lockfault_set_state(s, LOCKFAULT_STARTING);
	/* Scenarios that wedge CPUs leave CPU 0 alone. */
	kthread_bind(director, 0);
	wake_up_process(director);
out:
	mutex_unlock(&lockfault_starts);
	return ret;
}

int lockfault_show(struct seq_file *m, void *unused)
{
	struct lockfault_scenario *s;
	struct lockfault_task *t;
	unsigned int i, l;

	spin_lock(&lockfault_lists);
	for (i = 0; i < lockfault_nr_scenarios; i++) {
		s = lockfault_scenarios[i];
		for (l = 0; l < LOCKFAULT_MAX_LOCKS && s->locks[l].name; l++)
			seq_printf(m, "lock %s 0x%px\n", s->locks[l].name, s->locks[l].addr);
		seq_printf(m, "state %s %s\n", s->name, lockfault_state_name(s));
		list_for_each_entry(t, &s->tasks, node)
			seq_printf(m, "task %s %s %d\n", s->name, t->role, t->pid);
		list_for_each_entry(t, &s->tasks, node)
			if (smp_load_acquire(&t->lasted))
				seq_printf(m, "spent %s %s %d %llu %llu %llu\n", s->name,
					   t->role, t->pid, t->ran, t->starved, t->lasted);
		list_for_each_entry(t, &s->tasks, node)
			if (READ_ONCE(t->took_shared) || READ_ONCE(t->took_exclusive))
				seq_printf(m, "took %s %s %d %llu %llu\n", s->name, t->role, t->pid,
					   READ_ONCE(t->took_shared), READ_ONCE(t->took_exclusive));
	}
	spin_unlock(&lockfault_lists);
	return 0;
}

static void lockfault_exit_first(unsigned int n)
{
	while (n--) {
		lockfault_drop_tasks(lockfault_scenarios[n]);
		if (lockfault_scenarios[n]->exit)
			lockfault_scenarios[n]->exit(lockfault_scenarios[n]);
	}
}

static int __init lockfault_init(void)
{
	struct lockfault_scenario *s;
	unsigned int i;
	int ret;

	for (i = 0; i < lockfault_nr_scenarios; i++) {
		s = lockfault_scenarios[i];
		INIT_LIST_HEAD(&s->tasks);
		ret = s->init ? s->init(s) : 0;
		if (ret)
			goto undo;
	}
	ret = lockfault_control_init();
	if (!ret)
		return 0;
undo:
	lockfault_exit_first(i);
	return ret;
}

/* Runs only when every scenario that was ever started has ended. */
static void __exit lockfault_exit(void)
{
	lockfault_control_exit();
	lockfault_exit_first(lockfault_nr_scenarios);
}

module_init(lockfault_init);
module_exit(lockfault_exit);
MODULE_DESCRIPTION("Breaks kernel locking on purpose, for tests of lock tracers");
MODULE_LICENSE("GPL");
