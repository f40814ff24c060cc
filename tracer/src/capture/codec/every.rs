//! For tests: values of every type of an event, so that every code, every field and the borders of every number occur.

use std::sync::Arc;

use crate::event::TaskRef;
use crate::ids::{CgroupId, CpuId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};

/// A type with a list of telling values.
pub trait Every: Sized {
    /// The values.
    fn every() -> Vec<Self>;
}

/// The n-th value, round and round.
pub fn pick<T: Clone>(values: &[T], n: usize) -> T {
    values[n % values.len()].clone()
}

macro_rules! values {
    ($($ty:ty: [$($value:expr),*]),* $(,)?) => {$(
        impl Every for $ty {
            fn every() -> Vec<Self> {
                vec![$($value),*]
            }
        }
    )*};
}

values! {
    u64: [0, 1, 127, 128, 0xffff_8880_1234_5601, u64::MAX],
    u32: [0, 1, 300, u32::MAX],
    i32: [0, -4, -62, i32::MIN, i32::MAX],
    bool: [false, true],
    Arc<str>: ["mutex_lock".into(), "".into(), "Grüße, \u{1f512}".into(), "mutex_lock".into()],
    Timestamp: [Timestamp(5_000_000_000), Timestamp(0), Timestamp(u64::MAX), Timestamp(5_000_000_001)],
    LockAddr: [LockAddr(0xffff_ffff_c05e_e280), LockAddr(0xffff_8886_27da_ba80), LockAddr(0xffff_ffff_c05e_e280)],
    KernelAddr: [KernelAddr(0xffff_ffff_8112_3456), KernelAddr(0), KernelAddr(u64::MAX)],
    StackId: [StackId(0), StackId(0x0123_4567_89ab_cdef), StackId(u64::MAX)],
    Arc<[KernelAddr]>: [
        [0xffff_ffff_8112_3456, 0xffff_ffff_8112_0000, 0xffff_ffff_c000_0001].map(KernelAddr).into(),
        [].into()
    ],
}

macro_rules! wrapped {
    ($($name:ident),*) => {$(
        impl Every for $name {
            fn every() -> Vec<Self> {
                Every::every().into_iter().map(Self).collect()
            }
        }
    )*};
}
wrapped!(Tid, Tgid, CpuId, CgroupId, Nanos);

impl<T: Every> Every for Option<T> {
    fn every() -> Vec<Self> {
        T::every().into_iter().map(Some).chain([None]).collect()
    }
}

impl<T: Every + Clone> Every for Vec<T> {
    fn every() -> Vec<Self> {
        vec![T::every(), Vec::new(), T::every().into_iter().take(1).collect()]
    }
}

impl<A: Every + Clone, B: Every + Clone> Every for (A, B) {
    fn every() -> Vec<Self> {
        let (a, b) = (A::every(), B::every());
        (0..a.len().max(b.len())).map(|n| (pick(&a, n), pick(&b, n))).collect()
    }
}

impl Every for TaskKey {
    fn every() -> Vec<Self> {
        let keys = [(1, 0), (4242, 77_000_000), (u32::MAX, u64::MAX), (4242, 77_000_000)];
        keys.map(|(tid, start)| Self {
            tid: Tid(tid),
            start: Timestamp(start),
        })
        .into()
    }
}

impl Every for TaskRef {
    fn every() -> Vec<Self> {
        let comms = ["kworker/1:2", "", "kworker/1:2", "Grüße"];
        let task = |(key, comm): (TaskKey, &str)| Self {
            key,
            tgid: Tgid(key.tid.0 / 2),
            comm: comm.into(),
        };
        TaskKey::every().into_iter().zip(comms).map(task).collect()
    }
}
