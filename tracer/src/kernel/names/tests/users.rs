//! Whose an object or a stack is, by what the threads say.

use super::*;

#[test]
fn what_threads_use_tells_the_process() {
    let mut k = Kernel::new();
    k.slab("sighand_cache", 48, false);
    k.user(8, 7, "thread", 0, SLAB);
    k.user(7, 7, "server", 0, SLAB);
    let lock = |k: &mut Kernel| name(k, SLAB, LockKind::Mutex);
    assert_eq!(
        lock(&mut k),
        firm("sighand_struct.siglock of server (7)", "sighand_struct.siglock")
    );
    k.user(9, 9, "other", 0, SLAB);
    let class = "sighand_struct.siglock";
    assert_eq!(
        lock(&mut k),
        firm("sighand_struct.siglock of server (7) and 1 others", class)
    );
    // Whoever used it is gone.
    k.users.clear();
    assert_eq!(lock(&mut k), firm(class, class));
}

#[test]
fn a_lock_on_a_stack_tells_whose() {
    let mut k = Kernel::new();
    let stack = 0xffff_c900_0001_0000;
    k.user(7, 7, "worker", stack, 0);
    let expected = weak("on the stack of worker (7)", "on a kernel stack");
    assert_eq!(name(&mut k, stack + 0x3ff8, LockKind::Spinlock), expected);
    assert_eq!(name(&mut k, stack + 0x4000, LockKind::Spinlock), None, "behind it");
    assert_eq!(name(&mut k, stack - 8, LockKind::Spinlock), None, "before it");
}

#[test]
fn who_used_it_a_moment_ago_is_believed_only_if_that_is_still_so() {
    let mut k = Kernel::new();
    k.slab("sighand_cache", 48, false);
    let stack = 0xffff_c900_0001_0000;
    k.user(7, 7, "init", stack, SLAB);
    let mut namer = namer(Aliases::default());
    let mut lock = |k: &mut Kernel, lock| name_with(&mut namer, k, lock, LockKind::Mutex);
    let class = "sighand_struct.siglock";
    assert_eq!(
        lock(&mut k, SLAB),
        firm("sighand_struct.siglock of init (7)", "sighand_struct.siglock")
    );
    // A process gets its name after its start. The threads are not asked for again within a second.
    k.text(TASKS + 7 * 0x100 + 8, "server");
    k.put(TASKS + 7 * 0x100 + 32, &[TASKS + 7 * 0x100, stack, SLAB]);
    assert_eq!(lock(&mut k, SLAB), firm("sighand_struct.siglock of server (7)", class));
    assert_eq!(
        lock(&mut k, stack + 8),
        weak("on the stack of server (7)", "on a kernel stack")
    );
    // It is gone, and what it used is another one's.
    k.put(TASKS + 7 * 0x100 + 40, &[0, 0]);
    k.user(9, 9, "other", stack, SLAB);
    assert_eq!(lock(&mut k, SLAB), firm(class, class));
    assert_eq!(lock(&mut k, stack + 8), None);
}
