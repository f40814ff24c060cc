//! Capabilities of this process.

/// Capability numbers of include/uapi/linux/capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cap {
    SysAdmin = 21,
    SysResource = 24,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caps(u64);

impl Caps {
    /// The effective set in the text of `/proc/self/status`.
    pub(super) fn effective(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// CAP_SYS_ADMIN stands in for the younger ones that were split off from it (5.8).
    pub(super) fn has(self, cap: Cap) -> bool {
        let split_off = matches!(cap, Cap::Bpf | Cap::Perfmon);
        self.bit(cap) || (split_off && self.bit(Cap::SysAdmin))
    }

    fn bit(self, cap: Cap) -> bool {
        self.0 >> (cap as u32) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_and_sys_admin_implies_its_younger_parts() {
        let caps = |mask: u64| Caps::effective(&format!("Name:\tx\nCapPrm:\tffff\nCapEff:\t{mask:016x}\nCapBnd:\t0"));
        let all = caps(0x1ff_ffff_ffff).expect("a mask");
        assert!(all.has(Cap::Bpf) && all.has(Cap::SysResource));
        let none = caps(0).expect("a mask");
        assert!(!none.has(Cap::Bpf) && !none.has(Cap::SysAdmin) && !none.has(Cap::Syslog));
        let admin = caps(1 << 21).expect("a mask");
        assert!(
            admin.has(Cap::Bpf) && admin.has(Cap::Perfmon) && !admin.has(Cap::Syslog) && !admin.has(Cap::SysResource)
        );
        let only_bpf = caps(1 << 39).expect("a mask");
        assert!(only_bpf.has(Cap::Bpf) && !only_bpf.has(Cap::Perfmon) && !only_bpf.has(Cap::SysAdmin));
        for text in ["", "CapEff:", "CapEff:\tnothing", "capeff: 1"] {
            assert_eq!(Caps::effective(text), None, "{text:?}");
        }
    }
}
