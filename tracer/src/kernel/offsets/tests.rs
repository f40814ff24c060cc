use std::{collections::HashSet, path::Path};

use super::*;
use crate::kernel::btf::{VMLINUX, tests::blob::Blob};

fn outcome<'a>(r: &'a ResolvedOffsets, field: &str) -> &'a Outcome {
    &r.rows
        .iter()
        .find(|row| row.field == field)
        .unwrap_or_else(|| panic!("the table has no {field}"))
        .outcome
}

fn found(place: &'static str, value: &str) -> Outcome {
    Outcome::Found {
        place,
        value: value.to_owned(),
    }
}

#[test]
fn a_kernel_without_anything_disables_every_feature_but_those_of_preempt_rt() {
    let r = ResolvedOffsets::resolve(&Blob::new().parse());
    assert_eq!(r.offsets, KernelOffsets::default());
    let disabled: Vec<_> = r.disabled().into_keys().collect();
    let only_rt = [Feature::RtRwsem, Feature::RtSpinlock];
    let expected: Vec<_> = Feature::ALL.iter().copied().filter(|f| !only_rt.contains(f)).collect();
    assert_eq!(disabled, expected);
    assert_eq!(outcome(&r, "rwsem.rt_owner"), &Outcome::NotApplicable);
}

#[test]
fn a_missing_field_disables_its_feature_by_name_and_nothing_else() {
    let mut b = Blob::new();
    let long = b.int("long", 8, 64);
    b.strukt("task_struct", 64, &[("nvcsw", long, 64, 0)]);
    b.strukt(
        "semaphore",
        40,
        &[("lock", long, 0, 0), ("count", long, 32, 0), ("wait_list", long, 64, 0)],
    );
    b.strukt(
        "semaphore_waiter",
        32,
        &[("list", long, 0, 0), ("task", long, 128, 0), ("up", long, 192, 0)],
    );
    let r = ResolvedOffsets::resolve(&b.parse());
    assert_eq!(r.offsets.task.nvcsw, Some(8));
    assert!(!r.has(Feature::SwitchCounts) && r.has(Feature::Semaphore) && !r.has(Feature::SemaphoreHolder));
    assert_eq!(r.disabled()[&Feature::SwitchCounts], ["task_struct.nivcsw"]);
    let missing = r
        .missing()
        .find(|m| m.what == "semaphore.last_holder")
        .expect("it is not there");
    assert_eq!(missing.needed_for, Feature::SemaphoreHolder);
    assert_eq!(
        missing.why.to_string(),
        "this kernel's `struct semaphore` has no member `last_holder` (stopped at `last_holder`)"
    );
}

#[test]
fn older_places_are_tried_when_newer_ones_are_not_there() {
    for (member, place) in [("__state", "task_struct.__state"), ("state", "task_struct.state")] {
        let mut b = Blob::new();
        let t = if member == "state" {
            b.int("long", 8, 64)
        } else {
            b.int("unsigned int", 4, 32)
        };
        b.strukt("task_struct", 64, &[(member, t, 128, 0)]);
        let r = ResolvedOffsets::resolve(&b.parse());
        assert_eq!(outcome(&r, "task.state"), &found(place, "16"));
        assert_eq!(r.offsets.task.state_size, Some(if member == "state" { 8 } else { 4 }));
    }
}

#[test]
fn preempt_rt_has_its_own_mutex_and_rwsem() {
    let mut b = Blob::new();
    let long = b.int("long", 8, 64);
    let base = b.strukt(
        "rt_mutex_base",
        32,
        &[
            ("wait_lock", long, 0, 0),
            ("waiters", long, 64, 0),
            ("owner", long, 192, 0),
        ],
    );
    b.strukt("mutex", 32, &[("rtmutex", base, 0, 0)]);
    let rwbase = b.strukt("rwbase_rt", 40, &[("readers", long, 0, 0), ("rtmutex", base, 64, 0)]);
    b.strukt("rw_semaphore", 40, &[("rwbase", rwbase, 0, 0)]);
    let r = ResolvedOffsets::resolve(&b.parse());
    assert_eq!(outcome(&r, "mutex.owner"), &found("mutex.rtmutex.owner", "24"));
    assert_eq!(outcome(&r, "mutex.wait_list"), &Outcome::NotApplicable);
    assert_eq!(r.offsets.rwsem.rt_owner, Some(32));
    assert_eq!(outcome(&r, "rwsem.owner"), &Outcome::NotApplicable);
    assert!(r.has(Feature::MutexOwner) && r.has(Feature::MutexWaiters) && r.has(Feature::RwsemOwner));
    assert!(r.has(Feature::RtRwsem) && !r.has(Feature::RtSpinlock));
}

#[test]
fn a_field_that_became_a_bit_field_is_not_read_as_a_word() {
    let mut b = Blob::new();
    let int = b.int("unsigned int", 4, 32);
    b.composite(
        4,
        "task_struct",
        64,
        true,
        &[("pid", int, 32, 5), ("in_iowait", int, 67, 1), ("on_cpu", int, 96, 0)],
    );
    let r = ResolvedOffsets::resolve(&b.parse());
    assert_eq!((r.offsets.task.pid, r.offsets.task.on_cpu), (None, Some(12)));
    assert_eq!(
        r.offsets.task.in_iowait,
        Some(BitOffset {
            byte: 8,
            shift: 3,
            width: 1
        })
    );
    assert_eq!(
        outcome(&r, "task.in_iowait"),
        &found("task_struct.in_iowait", "8 bit 3")
    );
}

#[test]
fn what_blocked_on_points_to_is_told_by_its_type() {
    for (target, expected) in [
        ("mutex_waiter", Some(BlockedOnTarget::MutexWaiter)),
        ("mutex", Some(BlockedOnTarget::Mutex)),
        ("something_else", None),
    ] {
        let mut b = Blob::new();
        // Known by name only: a forward declaration.
        let fwd = b.add(target, 7, false, 0, 0, &[]);
        let ptr = b.ptr(fwd);
        b.strukt("task_struct", 8, &[("blocked_on", ptr, 0, 0)]);
        assert_eq!(blocked_on_target(&b.parse()), expected);
    }
    assert_eq!(blocked_on_target(&Blob::new().parse()), None);
}

#[test]
fn the_table_is_consistent() {
    let rows = ResolvedOffsets::resolve(&Blob::new().parse()).rows;
    let fields: HashSet<_> = rows.iter().map(|r| r.field).collect();
    assert_eq!(fields.len(), rows.len(), "a field stands twice");
    let used: HashSet<_> = rows.iter().map(|r| r.needed_for).collect();
    assert_eq!(
        used,
        Feature::ALL.iter().copied().collect(),
        "a feature that no field needs"
    );
    for feature in Feature::ALL {
        assert!(
            !feature.loses().is_empty() && !feature.loses().ends_with('.'),
            "{feature:?}"
        );
    }
}

#[test]
fn the_running_kernel_has_all_that_is_essential() {
    if !Path::new(VMLINUX).exists() {
        return eprintln!("not checked: this kernel has no {VMLINUX}");
    }
    let r = ResolvedOffsets::resolve(&Btf::load(Path::new(VMLINUX)).expect("the kernel's own BTF is well-formed"));
    let lost: Vec<_> = r
        .disabled()
        .into_iter()
        .filter(|(feature, _)| feature.weight() == Weight::Essential)
        .collect();
    assert_eq!(lost, []);
    assert_eq!(r.offsets.task.comm_size, Some(16));
    // 6.0 and later all have these.
    for feature in [
        Feature::Cgroup,
        Feature::Workqueue,
        Feature::KernelStack,
        Feature::SwitchCounts,
        Feature::Completion,
    ] {
        assert!(r.has(feature), "{feature:?}: {:?}", r.disabled()[&feature]);
    }
}
