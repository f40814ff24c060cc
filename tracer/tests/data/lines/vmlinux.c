/*
 * A kernel image in small, for the tests of kernel::lines. Built once, with
 *
 *   cc -g -O1 -nostdlib -static -fno-pie -no-pie -fcf-protection=none -fno-asynchronous-unwind-tables \
 *      -mcmodel=kernel -Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567 \
 *      -Wl,-Ttext=0xffffffff81000000 -Wl,-e,_stext -ffile-prefix-map=$PWD=. -o vmlinux vmlinux.c
 */
volatile int sink;

__attribute__((noinline)) void leaf(int n)
{
	sink = n;
}

static inline __attribute__((always_inline)) void inner(int n)
{
	leaf(n + 1);
	sink++;
}

static inline __attribute__((always_inline)) void middle(int n)
{
	inner(n + 2);
	sink++;
}

__attribute__((noinline)) void outer(int n)
{
	middle(n);
	sink++;
	leaf(n);
	sink++;
}

void _stext(void)
{
	outer(1);
	sink++;
}
