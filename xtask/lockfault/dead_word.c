// SPDX-License-Identifier: GPL-2.0
/*
 * dead-lock-word: the lock that nobody held. The word of a completion's
 * internal raw spinlock is garbage, as after an init_completion() in the middle
 * of a complete(). CPU cpu spins on it with interrupts off; CPU cpu+1 holds
 * lockfault_tlb_lock and waits for the first one to answer an IPI; all further
 * CPUs spin on lockfault_tlb_lock. (The threads are SCHED_FIFO.)
 * Verdict: root is CPU cpu, interrupts off, spinning in "stuck"'s
 * wait_for_completion_timeout() on a lock whose word is impossible: nobody
 * holds it (corrupted, or initialised again while in use). Chain of CPUs: each
 * "spinner" -> "ipi" (lock) -> "stuck" (IPI). There is no deadlock.
 *
 * The default word, 0x100, has the pending bit set and the locked byte clear: a
 * pending waiter would take such a lock at once, so it does not last in a sane
 * lock. The stuck CPU then waits in the queue, where contention_begin shows it.
 * Without the pending bit (0x1, or the impossible 0x2), it waits for the
 * pending bit's turn, which no tracepoint shows. The tail of the queue cannot be
 * set: it would make the kernel follow a wild pointer. The first spinner on
 * lockfault_tlb_lock uses the pending bit, too: with 4 CPUs it is the only one.
 *
 * With ms=N CPU 0 repairs the word after N milliseconds, and all go on. Otherwise
 * all CPUs but CPU 0 are lost.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>

#include "rescue.h"

struct lockfault_command {
	u8 other_members[0x28];
	struct completion done;
};

static struct lockfault_command *lockfault_command;
static struct lockfault_rescue lockfault_dead_word_rescue;
static DEFINE_RAW_SPINLOCK(lockfault_tlb_lock);

/* Whose turn it is: the stages are reached in this order. */
enum {
	LOCKFAULT_DEAD_WORD_WAIT,
	LOCKFAULT_DEAD_WORD_STUCK,
	LOCKFAULT_DEAD_WORD_IPI,
	LOCKFAULT_DEAD_WORD_SPIN,
	LOCKFAULT_DEAD_WORD_ABORT,
};

static int lockfault_dead_word_stage;
static atomic_t lockfault_dead_word_ready;	/* threads that occupy their CPU */
static LOCKFAULT_GATE(lockfault_dead_word_gate);

static atomic_t *lockfault_dead_word(void)
{
	return &lockfault_command->done.wait.lock.raw_lock.val;
}

/*
 * Occupy this CPU until it is our turn. From the moment the first CPU is stuck,
 * any other task might send it an IPI, and wait for ever with preemption off
 * where one of ours has to run.
 */
static bool lockfault_dead_word_turn(struct lockfault_task *self, int turn)
{
	int stage;

	lockfault_gate_pass(&lockfault_dead_word_gate);
	sched_set_fifo(current);
	atomic_inc(&lockfault_dead_word_ready);
	while ((stage = smp_load_acquire(&lockfault_dead_word_stage)) < turn)
		cpu_relax();
	return stage != LOCKFAULT_DEAD_WORD_ABORT;
}

static lockfault_frame int lockfault_dead_word_stuck(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_command *cmd = self->arg;

	if (!lockfault_dead_word_turn(self, LOCKFAULT_DEAD_WORD_STUCK))
		return 0;
	lockfault_wants(self);
	wait_for_completion_timeout(&cmd->done, 10 * HZ);
	return 0;
}

static void lockfault_dead_word_answer(void *info)
{
}

static lockfault_frame void lockfault_dead_word_flush_tlb(struct lockfault_task *self,
							  unsigned int cpu)
{
	raw_spin_lock(&lockfault_tlb_lock);
	lockfault_wants(self);
	smp_call_function_single(cpu, lockfault_dead_word_answer, NULL, 1);
	raw_spin_unlock(&lockfault_tlb_lock);
}

static lockfault_frame int lockfault_dead_word_ipi(void *data)
{
	struct lockfault_task *self = data;

	if (lockfault_dead_word_turn(self, LOCKFAULT_DEAD_WORD_IPI))
		lockfault_dead_word_flush_tlb(self, (unsigned long)self->arg);
	return 0;
}

static lockfault_frame int lockfault_dead_word_spinner(void *data)
{
	if (!lockfault_dead_word_turn(data, LOCKFAULT_DEAD_WORD_SPIN))
		return 0;
	lockfault_wants(data);
	raw_spin_lock(&lockfault_tlb_lock);
	raw_spin_unlock(&lockfault_tlb_lock);
	return 0;
}

/* The task is on its CPU and past the last thing it does before it spins. */
static bool lockfault_is_spinning(const struct lockfault_task *t)
{
	return smp_load_acquire(&t->wants) && READ_ONCE(t->task->on_cpu);
}

static void lockfault_dead_word_repair(void)
{
	/* Leaves the queue alone: its head now takes the lock. */
	atomic_andnot(_Q_LOCKED_MASK | _Q_PENDING_MASK, lockfault_dead_word());
	complete(&lockfault_command->done);
}

static void lockfault_dead_word_next(int stage)
{
	smp_store_release(&lockfault_dead_word_stage, stage);
}

/* The tasks of the play; spinners only where there are CPUs for them. */
struct lockfault_dead_word_cast {
	struct lockfault_task *stuck;
	struct lockfault_task *ipi;
	struct lockfault_task *last_spinner;
	int threads;
};

static int lockfault_dead_word_spawn(struct lockfault_scenario *s,
				     struct lockfault_dead_word_cast *cast)
{
	unsigned int stuck_cpu = lockfault_param(s, "cpu");
	unsigned int ipi_cpu = stuck_cpu + 1;
	unsigned int cpu;

	cast->stuck = lockfault_spawn(s, "stuck", 0, stuck_cpu, lockfault_dead_word_stuck,
				      lockfault_command, "lf_dlw_stuck");
	cast->ipi = lockfault_spawn(s, "ipi", 0, ipi_cpu, lockfault_dead_word_ipi,
				    (void *)(unsigned long)stuck_cpu, "lf_dlw_ipi");
	if (!cast->stuck || !cast->ipi)
		return -ENOMEM;
	cast->threads = 2;
	for_each_online_cpu(cpu) {
		if (cpu == 0 || cpu == stuck_cpu || cpu == ipi_cpu)
			continue;
		cast->last_spinner = lockfault_spawn(s, "spinner", cpu, cpu,
						     lockfault_dead_word_spinner, NULL,
						     "lf_dlw_spin%u", cpu);
		if (!cast->last_spinner)
			return -ENOMEM;
		cast->threads++;
	}
	return 0;
}

/* With preemption off: until the end no other task runs on any of the CPUs. */
static bool lockfault_dead_word_wedge(struct lockfault_scenario *s,
				      const struct lockfault_dead_word_cast *cast)
{
	unsigned int word = lockfault_param(s, "word");

	if (!lockfault_busy_until(atomic_read(&lockfault_dead_word_ready) == cast->threads))
		return false;
	lockfault_dead_word_next(LOCKFAULT_DEAD_WORD_STUCK);
	/* It adds itself to the word, as pending or as the queue's tail. */
	if (!lockfault_busy_until(lockfault_is_spinning(cast->stuck) &&
				  atomic_read(lockfault_dead_word()) != word))
		return false;
	lockfault_dead_word_next(LOCKFAULT_DEAD_WORD_IPI);
	if (!lockfault_busy_until(lockfault_is_spinning(cast->ipi) &&
				  raw_spin_is_locked(&lockfault_tlb_lock)))
		return false;
	lockfault_dead_word_next(LOCKFAULT_DEAD_WORD_SPIN);
	return !cast->last_spinner ||
	       lockfault_busy_until(lockfault_is_spinning(cast->last_spinner) &&
				    raw_spin_is_contended(&lockfault_tlb_lock));
}

static int lockfault_dead_word_run(struct lockfault_scenario *s)
{
	unsigned int ipi_cpu = lockfault_param(s, "cpu") + 1;
	struct lockfault_dead_word_cast cast = { };
	int ret, stage;
	bool wedged;

	if (ipi_cpu >= nr_cpu_ids || !cpu_online(ipi_cpu)) {
		pr_err("%s: CPU %u is not online\n", s->name, ipi_cpu);
		return -ENODEV;
	}
	lockfault_gate_close(&lockfault_dead_word_gate);
	lockfault_dead_word_next(LOCKFAULT_DEAD_WORD_WAIT);
	atomic_set(&lockfault_dead_word_ready, 0);
	ret = lockfault_dead_word_spawn(s, &cast);
	if (ret)
		return ret;
	init_completion(&lockfault_command->done);
	atomic_set(lockfault_dead_word(), lockfault_param(s, "word"));
	lockfault_rescue_prepare(s, &lockfault_dead_word_rescue);
	lockfault_gate_open(&lockfault_dead_word_gate);
	preempt_disable();
	wedged = lockfault_dead_word_wedge(s, &cast);
	stage = lockfault_dead_word_stage;
	if (wedged)
		lockfault_rescue_established(s, &lockfault_dead_word_rescue);
	else
		lockfault_dead_word_next(LOCKFAULT_DEAD_WORD_ABORT);
	preempt_enable();
	if (wedged)
		return lockfault_rescue_outcome(s);
	pr_err("%s: not reached: the end of stage %d\n", s->name, stage);
	return -ETIMEDOUT;
}

static int lockfault_dead_word_init(struct lockfault_scenario *s)
{
	lockfault_command = kzalloc(sizeof(*lockfault_command), GFP_KERNEL);
	if (!lockfault_command)
		return -ENOMEM;
	init_completion(&lockfault_command->done);
	lockfault_rescue_init(&lockfault_dead_word_rescue, lockfault_dead_word_repair);
	s->locks[0].addr = &lockfault_command->done;
	s->locks[1].addr = &lockfault_command->done.wait.lock;
	return 0;
}

static void lockfault_dead_word_exit(struct lockfault_scenario *s)
{
	lockfault_rescue_exit(&lockfault_dead_word_rescue);
	kfree(lockfault_command);
}

struct lockfault_scenario lockfault_dead_lock_word = {
	.name = "dead-lock-word",
	.init = lockfault_dead_word_init,
	.exit = lockfault_dead_word_exit,
	.run = lockfault_dead_word_run,
	.locks = {
		{ "heap.dead_word.done" },
		{ "heap.dead_word.done.wait.lock" },
		{ "lockfault_tlb_lock", &lockfault_tlb_lock },
	},
	.params = {
		{ "ms", 0, 0, 3600000 },
		{ "cpu", 1, 1, NR_CPUS - 1 },
		{ "word", 0x100, 1, 0x1ff },
	},
};
