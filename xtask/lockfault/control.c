// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/lockfault: write "NAME [key=value ...]" to start a scenario, "end NAME"
 * to end one that lasts until then, read for the locks' addresses, the scenarios' states and their tasks' pids.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "lockfault.h"

#define LOCKFAULT_LINE_MAX 128

static struct lockfault_scenario *lockfault_find(const char *name)
{
	unsigned int i;

	for (i = 0; i < lockfault_nr_scenarios; i++)
		if (!strcmp(lockfault_scenarios[i]->name, name))
			return lockfault_scenarios[i];
	return NULL;
}

static struct lockfault_param *lockfault_find_param(struct lockfault_scenario *s, const char *name)
{
	unsigned int i;

	for (i = 0; i < LOCKFAULT_MAX_PARAMS && s->params[i].name; i++)
		if (!strcmp(s->params[i].name, name))
			return &s->params[i];
	return NULL;
}

/* Parse one "key=value" into @values, which runs parallel to s->params. */
static int lockfault_parse_param(struct lockfault_scenario *s, char *word, unsigned int *values)
{
	char *key = strsep(&word, "=");
	struct lockfault_param *p = lockfault_find_param(s, key);
	unsigned int value;

	if (!p) {
		pr_err("%s: no parameter '%s'\n", s->name, key);
		return -EINVAL;
	}
	if (!word || kstrtouint(word, 0, &value)) {
		pr_err("%s: %s: '%s' is not a number\n", s->name, key, word ?: "");
		return -EINVAL;
	}
	if (value < p->min || value > p->max) {
		pr_err("%s: %s=%u is out of range %u..%u\n", s->name, key, value, p->min, p->max);
		return -EINVAL;
	}
	if (!strcmp(key, "cpu") && !cpu_online(value)) {
		pr_err("%s: cpu %u is not online\n", s->name, value);
		return -EINVAL;
	}
	values[p - s->params] = value;
	return 0;
}

static int lockfault_command(char *line)
{
	unsigned int values[LOCKFAULT_MAX_PARAMS];
	char *rest = strim(line);
	char *name = strsep(&rest, " \t");
	bool ends = !strcmp(name, "end") && rest;
	struct lockfault_scenario *s = lockfault_find(ends ? strim(rest) : name);
	unsigned int i;
	char *word;
	int ret;

	if (!s) {
		pr_err("no scenario '%s'\n", ends ? rest : name);
		return -EINVAL;
	}
	if (ends) {
		lockfault_end(s);
		return 0;
	}
	if (!s->run) {
		pr_err("%s: cannot happen on PREEMPT_RT\n", s->name);
		return -EOPNOTSUPP;
	}
	for (i = 0; i < LOCKFAULT_MAX_PARAMS; i++)
		values[i] = s->params[i].fallback;
	while ((word = strsep(&rest, " \t"))) {
		if (!*word)
			continue;
		ret = lockfault_parse_param(s, word, values);
		if (ret)
			return ret;
	}
	return lockfault_start(s, values);
}

static ssize_t lockfault_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	char *line;
	int ret;

	if (len > LOCKFAULT_LINE_MAX) {
		pr_err("a command has at most %d bytes\n", LOCKFAULT_LINE_MAX);
		return -EINVAL;
	}
	line = memdup_user_nul(buf, len);
	if (IS_ERR(line))
		return PTR_ERR(line);
	ret = lockfault_command(line);
	kfree(line);
	return ret ?: len;
}

static int lockfault_open(struct inode *inode, struct file *file)
{
	return single_open(file, lockfault_show, NULL);
}

static const struct proc_ops lockfault_proc_ops = {
	.proc_open = lockfault_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = lockfault_write,
};

int lockfault_control_init(void)
{
	return proc_create("lockfault", 0600, NULL, &lockfault_proc_ops) ? 0 : -ENOMEM;
}

void lockfault_control_exit(void)
{
	remove_proc_entry("lockfault", NULL);
}
