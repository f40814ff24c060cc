//! Which kernel this is.
//!
//! Distributions backport: what a kernel can do is asked of its BTF and symbols. The release only decides where those
//! say nothing, and names the kernel in output.

use std::{fmt, io, str::FromStr};

use serde::Serialize;

use super::sysroot::Sysroot;

/// A kernel release: `6.12.117+deb12-rt-amd64`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Release {
    /// The numbers.
    pub version: Version,
    text: String,
}

/// The numbers of a release; they order kernels, vendors' suffixes do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Version {
    /// 6 in 6.12.117.
    pub major: u32,
    /// 12 in 6.12.117.
    pub minor: u32,
    /// 117 in 6.12.117; 0 where the release has only two numbers.
    pub patch: u32,
}

impl Version {
    /// `major.minor`, before any stable update.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Text that is no kernel release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no kernel release (expected something like 6.12.117-amd64)")]
pub struct BadRelease {
    text: String,
}

impl FromStr for Release {
    type Err = BadRelease;

    fn from_str(text: &str) -> Result<Self, BadRelease> {
        let version = parse_version(text).ok_or_else(|| BadRelease { text: text.to_owned() })?;
        Ok(Self {
            version,
            text: text.to_owned(),
        })
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let (major, rest) = number(text)?;
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    let patch = match rest.strip_prefix('.') {
        Some(rest) => number(rest)?.0,
        None => 0,
    };
    Some(Version { major, minor, patch })
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Release> for String {
    fn from(release: Release) -> Self {
        release.text
    }
}

/// Why the release of a system is not known.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It cannot be read.
    #[error("cannot read the kernel release from /proc/sys/kernel/osrelease: {0}; is /proc mounted?")]
    Read(#[from] io::Error),
    /// It is not understood.
    #[error(transparent)]
    Parse(#[from] BadRelease),
}

/// The release of a system.
///
/// # Errors
/// It cannot be read or is not understood.
pub fn of(root: &Sysroot) -> Result<Release, ReleaseError> {
    Ok(root.text("/proc/sys/kernel/osrelease")?.parse()?)
}

/// Whether the kernel is PREEMPT_RT: it says so in /sys/kernel/realtime (RT patch set, Debian) or in its version line
/// (`#1 SMP PREEMPT_RT`, mainline 6.12+). There mutexes, rw_semaphores and spinlocks are rt_mutexes.
pub fn is_preempt_rt(root: &Sysroot) -> bool {
    let flag = root.text("/sys/kernel/realtime").is_ok_and(|t| t == "1");
    flag || root
        .text("/proc/sys/kernel/version")
        .is_ok_and(|t| t.split_ascii_whitespace().any(|word| word == "PREEMPT_RT"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::testing::Tree;

    #[test]
    fn releases_are_read() {
        for (text, expected) in [
            ("6.1.192", (6, 1, 192)),
            ("6.12.117+deb12-rt-amd64", (6, 12, 117)),
            ("6.18.44-fc-v669", (6, 18, 44)),
            ("5.10.0-1160.el7.x86_64", (5, 10, 0)),
            ("6.19-rc3", (6, 19, 0)),
            ("7.0", (7, 0, 0)),
            ("6.1.0-56-cloud-amd64", (6, 1, 0)),
        ] {
            let release: Release = text.parse().expect(text);
            let Version { major, minor, patch } = release.version;
            assert_eq!((major, minor, patch), expected, "{text}");
            assert_eq!(release.to_string(), text);
        }
        for text in [
            "",
            "6",
            "6.",
            ".1",
            "six.one",
            "6.x",
            "-6.1",
            "6.1.",
            "6.1.x",
            "99999999999.1",
            " 6.1",
        ] {
            let error = text.parse::<Release>().expect_err(text);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn versions_order_by_number_and_not_by_text() {
        let version = |t: &str| t.parse::<Release>().expect(t).version;
        assert!(version("6.9.1") < version("6.12.0") && version("5.19") < version("6.0-rc1"));
        assert!(version("6.1.9") < version("6.1.10") && version("6.1.0-z") == version("6.1.0-a"));
        assert!(version("5.19") >= Version::new(5, 19) && version("5.18.99") < Version::new(5, 19));
    }

    #[test]
    fn preempt_rt_is_told_by_the_flag_or_the_version_line() {
        for (flag, version, expected) in [
            (Some("1\n"), None, true),
            (Some("0\n"), Some("#1 SMP PREEMPT_DYNAMIC Debian"), false),
            (None, Some("#1 SMP PREEMPT_RT Debian 6.12.117-1 (2026-11-14)\n"), true),
            (None, Some("#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2\n"), false),
            (None, Some("#1 SMP PREEMPT_RTX"), false),
            (None, None, false),
        ] {
            let tree = Tree::new();
            if let Some(flag) = flag {
                tree.file("/sys/kernel/realtime", flag);
            }
            if let Some(version) = version {
                tree.file("/proc/sys/kernel/version", version);
            }
            assert_eq!(is_preempt_rt(&tree.root()), expected, "{flag:?} {version:?}");
        }
    }

    #[test]
    fn the_release_is_read_from_proc_or_its_absence_explained() {
        let tree = Tree::new();
        assert!(
            of(&tree.root())
                .expect_err("there is none")
                .to_string()
                .contains("is /proc mounted?")
        );
        tree.file("/proc/sys/kernel/osrelease", "6.1.192-cloud\n");
        assert_eq!(of(&tree.root()).expect("there is one").to_string(), "6.1.192-cloud");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_shown_unchanged(text in "\\PC{0,20}") {
            if let Ok(release) = text.parse::<Release>() { prop_assert_eq!(release.to_string(), text); }
        }
    }
}
