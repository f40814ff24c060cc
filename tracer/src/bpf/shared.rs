//! Memory-mapped BPF arrays: user space reads the programs' tables in place, without a system call an entry.

use std::marker::PhantomData;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A `BPF_F_MMAPABLE` array of `T`.
///
/// Programs change entries while we read them. Values are copied out word by word, so a copy may mix two states; `T` is made of
/// integers only, so every mix is a valid value, and callers judge copies by the key word they contain.
#[derive(Debug)]
pub struct SharedArray<T> {
    map: MmapRaw,
    len: usize,
    // Keeps the map alive as long as the mapping.
    _fd: MapData,
    _type: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> SharedArray<T> {
    const WORDS: usize = size_of::<T>() / 8;

    /// Maps the array `name`, which user space sized to `len` entries.
    ///
    /// # Errors
    /// When the map is no array, or the kernel refuses the mapping.
    pub fn new(map: Map, name: &str, len: usize) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
        let Map::Array(data) = map else {
            bail!("BPF map {name} is not an array")
        };
        let fd = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .with_context(|| format!("duplicating the descriptor of BPF map {name}"))?;
        let map = MmapOptions::new()
            .len(len * size_of::<T>())
            .map_raw(&fd)
            .with_context(|| format!("mapping {len} entries of BPF map {name} into memory"))?;
        Ok(Self {
            map,
            len,
            _fd: data,
            _type: PhantomData,
        })
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies entry `index` out; `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        let mut value = T::new_zeroed();
        if index >= self.len {
            return None;
        }
        for (word, bytes) in value_words(&mut value).iter_mut().enumerate() {
            *bytes = self.word(index, word)?;
        }
        Some(value)
    }

    /// Reads one 64-bit word of entry `index`.
    #[must_use]
    pub fn word(&self, index: usize, word: usize) -> Option<u64> {
        Some(self.atomic(index, word)?.load(std::sync::atomic::Ordering::Acquire))
    }

    /// Writes one 64-bit word of entry `index`; beyond the end it does nothing.
    pub fn set_word(&self, index: usize, word: usize, value: u64) {
        if let Some(atomic) = self.atomic(index, word) {
            atomic.store(value, std::sync::atomic::Ordering::Release);
        }
    }

    #[expect(unsafe_code, reason = "shared memory with BPF programs has no safe interface")]
    fn atomic(&self, index: usize, word: usize) -> Option<&std::sync::atomic::AtomicU64> {
        if index >= self.len || word >= Self::WORDS {
            return None;
        }
        let at = self
            .map
            .as_mut_ptr()
            .cast::<u64>()
            .wrapping_add(index * Self::WORDS + word);
        // SAFETY: within the mapping (checked above), page aligned plus a multiple of 8, mapped as long as self lives, and only
        // ever accessed atomically.
        Some(unsafe { std::sync::atomic::AtomicU64::from_ptr(at) })
    }
}

/// The 64-bit words of a value made of integers.
fn value_words<T: FromBytes + IntoBytes>(value: &mut T) -> &mut [u64] {
    <[u64]>::mut_from_bytes(value.as_mut_bytes()).unwrap_or_default()
}
