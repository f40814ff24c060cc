//! The machine's own kernel, where it shows its types.

use std::path::Path;

use super::super::{Btf, BtfError, VMLINUX};

fn host() -> Option<Btf> {
    Path::new(VMLINUX)
        .exists()
        .then(|| Btf::load(Path::new(VMLINUX)).expect("the kernel's own BTF is well-formed"))
}

#[test]
fn the_running_kernels_types_are_understood() {
    let Some(btf) = host() else {
        return eprintln!("not checked: this kernel has no {VMLINUX}");
    };
    assert!(btf.type_count() > 10_000, "{}", btf.type_count());
    let pid = btf.member_offset("task_struct", "pid").expect("every kernel has it");
    let tgid = btf.member_offset("task_struct", "tgid").expect("every kernel has it");
    assert_eq!((pid.size, tgid.size, tgid.bytes - pid.bytes), (4, 4, 4));
    assert_eq!(btf.member_offset("task_struct", "comm").map(|m| m.size), Ok(16));
    assert_eq!(
        btf.member_offset("list_head", "prev").map(|m| (m.bytes, m.size)),
        Ok((8, 8))
    );
    let iowait = btf
        .member_offset("task_struct", "in_iowait")
        .expect("every kernel has it");
    assert_eq!(iowait.bits.map(|b| b.width), Some(1));
    assert!(btf.has_func("schedule") && !btf.has_func("no_such_function"));
    assert!(btf.funcs().count() > 1_000);
    let size = btf.struct_size("task_struct").expect("every kernel has it");
    assert!(pid.bytes + 4 <= size);
    assert!(matches!(
        btf.member_offset("task_struct", "no_such"),
        Err(BtfError::NoSuchMember { .. })
    ));
}
