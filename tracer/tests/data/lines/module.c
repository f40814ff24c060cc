/*
 * A module in small, for the tests of kernel::lines. Built once, with
 *
 *   cc -g -O1 -c -fno-pie -fcf-protection=none -fno-asynchronous-unwind-tables -ffile-prefix-map=$PWD=. -o module.o module.c
 *   ld -r --build-id=0xfedcba9876543210fedcba9876543210fedcba98 -o module.ko module.o
 *
 * Both sections of code begin at 0 in the file: only where they are loaded tells one from the other.
 */
extern void kernel_function(int n);
int sink;

static inline __attribute__((always_inline)) void inner(int n)
{
	kernel_function(n + 1);
	sink++;
}

__attribute__((noinline)) void in_text(int n)
{
	inner(n);
	sink++;
}

__attribute__((noinline, section(".init.text"))) void in_init(int n)
{
	sink++;
	kernel_function(n);
	sink++;
}
