//! How many CPUs there may be, and how many there are.

use std::{io, ops::RangeInclusive, str::FromStr};

use super::sysroot::Sysroot;

/// More than any kernel supports (NR_CPUS is at most 8192): a list beyond it is not believed.
const MAX_CPU: u32 = 65_535;

/// A list of CPU numbers as the kernel writes it: `0-3,8,10-11`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList {
    ranges: Vec<RangeInclusive<u32>>,
}

/// Why a CPU list is not known.
#[derive(Debug, thiserror::Error)]
pub enum CpuListError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; is /sys mounted?")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The text is no list.
    #[error("`{text}` is no list of CPUs (expected something like 0-3,8)")]
    Parse {
        /// The text.
        text: String,
    },
}

impl CpuList {
    /// CPUs that may ever come online: per-CPU maps have a slot for each.
    ///
    /// # Errors
    /// The list cannot be read or is not understood.
    pub fn possible(root: &Sysroot) -> Result<Self, CpuListError> {
        Self::read(root, "/sys/devices/system/cpu/possible")
    }

    /// CPUs that run now.
    ///
    /// # Errors
    /// The list cannot be read or is not understood.
    pub fn online(root: &Sysroot) -> Result<Self, CpuListError> {
        Self::read(root, "/sys/devices/system/cpu/online")
    }

    /// Number of CPUs in the list.
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|r| r.end() - r.start() + 1).sum()
    }

    /// One more than the highest number: the length of an array with a place for each CPU.
    pub fn slots(&self) -> u32 {
        self.ranges.last().map_or(0, |r| r.end() + 1)
    }

    /// All numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().cloned().flatten()
    }

    fn read(root: &Sysroot, path: &'static str) -> Result<Self, CpuListError> {
        root.text(path)
            .map_err(|source| CpuListError::Read { path, source })?
            .parse()
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let bad = || CpuListError::Parse { text: text.to_owned() };
        let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
            // The kernel writes them ascending and apart; anything else would count CPUs twice.
            if first > last || last > MAX_CPU || ranges.last().is_some_and(|r| *r.end() >= first) {
                return Err(bad());
            }
            ranges.push(first..=last);
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::Tree;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for (text, expected) in [
            ("0", vec![0]),
            ("0-3\n", vec![0, 1, 2, 3]),
            ("0-1,4,6-7", vec![0, 1, 4, 6, 7]),
            ("", vec![]),
            ("\n", vec![]),
        ] {
            let list: CpuList = text.parse().expect(text);
            assert_eq!(list.iter().collect::<Vec<_>>(), expected, "{text:?}");
            assert_eq!(list.count() as usize, expected.len(), "{text:?}");
            assert_eq!(list.slots(), expected.last().map_or(0, |last| last + 1), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_text() {
        for text in [
            "x",
            "3-1",
            "0-",
            "-1",
            "0,0",
            "0-3,2",
            "1,,2",
            "0-4294967295",
            "4294967296",
            "0 1",
        ] {
            let error = text.parse::<CpuList>().expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn possible_and_online_come_from_their_own_files() {
        let tree = Tree::new();
        tree.file("/sys/devices/system/cpu/possible", "0-7\n")
            .file("/sys/devices/system/cpu/online", "0-2,5\n");
        let counts = (
            CpuList::possible(&tree.root()).map(|l| l.count()),
            CpuList::online(&tree.root()).map(|l| l.count()),
        );
        assert!(matches!(counts, (Ok(8), Ok(4))), "{counts:?}");
        let error = CpuList::online(&Tree::new().root())
            .expect_err("there is none")
            .to_string();
        assert!(error.contains("/sys/devices/system/cpu/online"), "{error}");
    }
}
