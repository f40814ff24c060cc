// SPDX-License-Identifier: GPL-2.0
/*
 * dead-lock-word: the lock that nobody held. The word of a completion's
 * internal raw spinlock is garbage, as after an init_completion() in the middle
 * of a complete(). CPU cpu spins on it with interrupts off; CPU cpu+1 holds
 * lockfault_tlb_lock and waits for the first one to answer an IPI; all further
 * CPUs spin on lockfault_tlb_lock.
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
static LOCKFAULT_GATE(lockfault_stuck_gate);
static LOCKFAULT_GATE(lockfault_ipi_gate);
static LOCKFAULT_GATE(lockfault_spinner_gate);

static atomic_t *lockfault_dead_word(void)
{
	return &lockfault_command->done.wait.lock.raw_lock.val;
}

static lockfault_frame int lockfault_dead_word_stuck(void *data)
{
	struct lockfault_task *self = data;
	struct lockfault_command *cmd = self->arg;

	lockfault_gate_pass(&lockfault_stuck_gate);
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

	lockfault_gate_pass(&lockfault_ipi_gate);
	lockfault_dead_word_flush_tlb(self, (unsigned long)self->arg);
	return 0;
}

static lockfault_frame int lockfault_dead_word_spinner(void *data)
{
	lockfault_gate_pass(&lockfault_spinner_gate);
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

static int lockfault_dead_word_run(struct lockfault_scenario *s)
{
	unsigned int stuck_cpu = lockfault_param(s, "cpu");
	unsigned int ipi_cpu = stuck_cpu + 1;
	unsigned int word = lockfault_param(s, "word");
	struct lockfault_task *stuck, *ipi, *spinner, *last = NULL;
	unsigned int cpu;

	if (ipi_cpu >= nr_cpu_ids || !cpu_online(ipi_cpu)) {
		pr_err("%s: CPU %u is not online\n", s->name, ipi_cpu);
		return -ENODEV;
	}
	lockfault_gate_close(&lockfault_stuck_gate);
	lockfault_gate_close(&lockfault_ipi_gate);
	lockfault_gate_close(&lockfault_spinner_gate);
	/* All threads exist before the first CPU is lost. */
	stuck = lockfault_spawn(s, "stuck", 0, stuck_cpu, lockfault_dead_word_stuck,
				lockfault_command, "lf_dlw_stuck");
	ipi = lockfault_spawn(s, "ipi", 0, ipi_cpu, lockfault_dead_word_ipi,
			      (void *)(unsigned long)stuck_cpu, "lf_dlw_ipi");
	if (!stuck || !ipi)
		return -ENOMEM;
	for_each_online_cpu(cpu) {
		if (cpu == 0 || cpu == stuck_cpu || cpu == ipi_cpu)
			continue;
		spinner = lockfault_spawn(s, "spinner", cpu, cpu, lockfault_dead_word_spinner,
					  NULL, "lf_dlw_spin%u", cpu);
		if (!spinner)
			return -ENOMEM;
		last = spinner;
	}
	init_completion(&lockfault_command->done);
	atomic_set(lockfault_dead_word(), word);
	lockfault_rescue_prepare(s, &lockfault_dead_word_rescue);
	lockfault_gate_open(&lockfault_stuck_gate);
	/* It adds itself to the word, as pending or as the queue's tail. */
	if (!lockfault_until(s, lockfault_is_spinning(stuck) &&
				atomic_read(lockfault_dead_word()) != word))
		return -ETIMEDOUT;
	lockfault_gate_open(&lockfault_ipi_gate);
	if (!lockfault_until(s, lockfault_is_spinning(ipi) &&
				raw_spin_is_locked(&lockfault_tlb_lock)))
		return -ETIMEDOUT;
	lockfault_gate_open(&lockfault_spinner_gate);
	if (last && !lockfault_until(s, lockfault_is_spinning(last) &&
					raw_spin_is_contended(&lockfault_tlb_lock)))
		return -ETIMEDOUT;
	return lockfault_rescue_established(s, &lockfault_dead_word_rescue);
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
