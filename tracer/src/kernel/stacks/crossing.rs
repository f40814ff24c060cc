//! Stacks that cross contexts: an interrupt on top of the thread that it interrupted.

/// Position of the frame through which the interrupt came in: what lies before it is the interrupt, what lies behind it the
/// interrupted thread. `None` in a stack that does not cross. `None` names are frames without a symbol.
///
/// KERNEL: arch/x86/include/asm/idtentry.h (`asm_sysvec_*`, `asm_common_interrupt`, since 5.8), arch/arm64/kernel/entry.S
/// (`el1h_64_irq`, `el1_irq` up to 5.14).
#[must_use]
pub fn interrupt_entry<'a>(names: impl IntoIterator<Item = Option<&'a str>>) -> Option<usize> {
    names.into_iter().position(|name| {
        name.is_some_and(|name| {
            name.starts_with("asm_sysvec_") || matches!(name, "asm_common_interrupt" | "el1h_64_irq" | "el1_irq")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_divides_a_stack() {
        let names = |names: &'static [&'static str]| interrupt_entry(names.iter().map(|&name| Some(name)));
        assert_eq!(
            names(&[
                "_raw_spin_lock",
                "tick",
                "sysvec_x",
                "asm_sysvec_apic_timer_interrupt",
                "kthread"
            ]),
            Some(3)
        );
        assert_eq!(names(&["handle_irq", "el1h_64_irq", "worker_thread"]), Some(1));
        assert_eq!(names(&["_raw_spin_lock", "kthread"]), None);
        assert_eq!(interrupt_entry([None, None]), None);
    }
}
