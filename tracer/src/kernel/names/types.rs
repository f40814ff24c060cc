//! Which struct the objects of a cache are, and which member of it a lock is.

use std::collections::HashMap;
use std::sync::Arc;

use super::modules::{ModuleTypes, Modules};
use super::slab::Cache;
use crate::event::LockKind;
use crate::kernel::btf::{Btf, MemberPath};

/// Answers kept; beyond it they are found again.
const MAX_KNOWN: usize = 16_384;

/// Caches whose name does not lead to the name of their struct. KERNEL: their `kmem_cache_create` calls, 5.10 to 6.18.
const NAMED: &[(&str, &str)] = &[
    ("inode_cache", "inode"),
    ("sock_inode_cache", "socket_alloc"),
    ("bdev_cache", "bdev_inode"),
    ("fat_inode_cache", "msdos_inode_info"),
    ("isofs_inode_cache", "iso_inode_info"),
    ("uid_cache", "user_struct"),
    ("cred_jar", "cred"),
    ("filp", "file"),
    ("fs_cache", "fs_struct"),
    ("mnt_cache", "mount"),
    ("net_namespace", "net"),
    ("skbuff_head_cache", "sk_buff"),
    ("eventpoll_epi", "epitem"),
    ("posix_timers_cache", "k_itimer"),
    ("radix_tree_node", "xa_node"),
    ("TCP", "tcp_sock"),
    ("TCPv6", "tcp6_sock"),
    ("UDP", "udp_sock"),
    ("UDPv6", "udp6_sock"),
    ("RAW", "raw_sock"),
    ("RAWv6", "raw6_sock"),
    ("PING", "inet_sock"),
    ("PINGv6", "raw6_sock"),
    ("UDP-Lite", "udp_sock"),
    ("UDPLITEv6", "udp6_sock"),
    ("tw_sock_TCP", "tcp_timewait_sock"),
    ("request_sock_TCP", "tcp_request_sock"),
    ("tw_sock_TCPv6", "tcp6_timewait_sock"),
    ("request_sock_TCPv6", "tcp6_request_sock"),
    ("key_jar", "key"),
    ("UNIX", "unix_sock"),
    ("UNIX-STREAM", "unix_sock"),
];

/// Structs of which more is allocated than BTF tells, or less: what lies at their end (registers, CPU masks, arrays) is sized at run time.
const SIZED_AT_RUN_TIME: &[&str] = &["task_struct", "mm_struct", "pid", "pid_namespace", "kernfs_node", "bio"];

/// Sizes may differ by what the allocator rounds up to.
const ROUNDING: u32 = 8;

/// The struct that a cache is named after, where its size fits.
fn struct_of(cache: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
    if let Some((_, name)) = NAMED.iter().find(|(known, _)| *known == cache) {
        return fits(name).then(|| (*name).to_owned());
    }
    let mut tries = vec![cache.to_owned()];
    if let Some(stem) = cache.strip_suffix("_cache") {
        tries.push(stem.to_owned());
        tries.push(format!("{stem}_struct"));
    }
    if let Some(stem) = cache.strip_suffix("_inode_cache") {
        tries.push(format!("{stem}_inode_info"));
        tries.push(format!("{stem}_inode"));
    }
    tries.into_iter().find(|name| fits(name))
}

/// What the objects of a cache are.
#[derive(Debug, Clone)]
pub enum ObjectType {
    /// This struct: the cache is named after it and has its size.
    Struct(String),
    /// The same, of a module.
    OfModule(Arc<ModuleTypes>, String),
    /// One of several: merged caches share their slabs.
    OneOf {
        /// (cache, struct), of those whose struct is known.
        known: Vec<(String, String)>,
        /// How many others there are.
        unknown: usize,
    },
    /// Memory of `kmalloc`, of this size.
    Kmalloc(u32),
    /// Not known.
    Unknown,
}

/// The types are told apart by where they are.
type PathKey = (usize, String, u32, LockKind);

/// Answers, kept because they are dear.
#[derive(Debug, Default)]
pub struct Types {
    objects: HashMap<(String, u32), Arc<ObjectType>>,
    paths: HashMap<PathKey, Arc<Vec<MemberPath>>>,
}

impl Types {
    /// What the objects of a cache are. `aliases`: all caches that share its slabs.
    pub fn object(
        &mut self,
        btf: &Arc<Btf>,
        modules: &mut Modules,
        cache: &Cache,
        aliases: &[String],
    ) -> Arc<ObjectType> {
        let key = (cache.name.clone(), cache.object_size);
        if let Some(known) = self.objects.get(&key) {
            return Arc::clone(known);
        }
        let found = match object_type(btf, cache, aliases) {
            ObjectType::Unknown => modules.object_type(btf, cache),
            known => known,
        };
        let found = Arc::new(found);
        if self.objects.len() >= MAX_KNOWN {
            self.objects.clear();
        }
        self.objects.insert(key, Arc::clone(&found));
        found
    }

    /// Paths to a lock of this kind at an offset of a struct.
    pub fn paths(&mut self, btf: &Btf, name: &str, offset: u32, kind: LockKind) -> Arc<Vec<MemberPath>> {
        let key = (std::ptr::from_ref(btf).addr(), name.to_owned(), offset, kind);
        if let Some(known) = self.paths.get(&key) {
            return Arc::clone(known);
        }
        let found = Arc::new(lock_paths(btf, name, offset, kind));
        if self.paths.len() >= MAX_KNOWN {
            self.paths.clear();
        }
        self.paths.insert(key, Arc::clone(&found));
        found
    }
}

fn object_type(btf: &Btf, cache: &Cache, aliases: &[String]) -> ObjectType {
    if let Some(size) = kmalloc(&cache.name, cache.object_size) {
        return ObjectType::Kmalloc(size);
    }
    let size = cache.object_size;
    if cache.merged {
        // The merged cache has the size of the largest: the others may be smaller.
        let smaller = |name: &str| btf.struct_size(name).is_ok_and(|own| own <= size);
        let known: Vec<(String, String)> = aliases
            .iter()
            .filter_map(|alias| Some((alias.clone(), struct_of(alias, smaller)?)))
            .collect();
        // Without aliases there are at least two that are not known.
        let unknown = aliases.len().max(2) - known.len().min(aliases.len());
        return ObjectType::OneOf { known, unknown };
    }
    own_struct(btf, cache).map_or(ObjectType::Unknown, ObjectType::Struct)
}

/// The struct that a cache is named after, and has the size of.
pub fn own_struct(btf: &Btf, cache: &Cache) -> Option<String> {
    let size = cache.object_size;
    let same = |name: &str| {
        btf.struct_size(name).is_ok_and(|own| {
            own <= size && size - own < ROUNDING || SIZED_AT_RUN_TIME.contains(&name) && own.abs_diff(size) <= own / 2
        })
    };
    struct_of(&cache.name, same)
}

/// Size of a kmalloc cache. KERNEL: `kmalloc_info` (mm/slab_common.c): `kmalloc-192`, `kmalloc-cg-1k`, `kmalloc-rcl-8k`,
/// `kmalloc-rnd-03-64`, `dma-kmalloc-512`.
fn kmalloc(name: &str, object_size: u32) -> Option<u32> {
    let rest = name.strip_prefix("dma-").unwrap_or(name).strip_prefix("kmalloc-")?;
    let last = rest.rsplit('-').next()?;
    let digits = last.strip_suffix('k').unwrap_or(last);
    digits.bytes().all(|b| b.is_ascii_digit()).then_some(object_size)
}

/// Paths to a lock of this kind at an offset of a struct. The queue of a rwlock is a spinlock inside of it, and may be what is waited for.
#[must_use]
pub fn lock_paths(btf: &Btf, name: &str, offset: u32, kind: LockKind) -> Vec<MemberPath> {
    let found = btf.paths_at(name, offset, ends(kind));
    if found.is_empty() && kind == LockKind::Rwlock {
        return btf.paths_at(name, offset, ends(LockKind::Spinlock));
    }
    found
}

/// The types at whose address the kernel reports contention of a lock of this kind.
#[must_use]
pub fn ends(kind: LockKind) -> &'static [&'static str] {
    match kind {
        LockKind::Mutex | LockKind::WwMutex => &["ww_mutex", "mutex"],
        LockKind::Rwsem => &["rw_semaphore"],
        LockKind::RtMutex => &["mutex", "ww_mutex", "rw_semaphore", "rt_mutex", "rt_mutex_base"],
        LockKind::PercpuRwsem => &["percpu_rw_semaphore"],
        LockKind::Semaphore => &["semaphore"],
        LockKind::Spinlock => &["spinlock", "raw_spinlock", "qspinlock"],
        LockKind::Rwlock => &["rwlock_t", "qrwlock"],
        LockKind::RtSpinlock => &["spinlock", "rwlock_t", "rw_semaphore", "rt_mutex_base"],
        LockKind::Unknown => &[
            "completion",
            "wait_queue_head",
            "swait_queue_head",
            "mutex",
            "rw_semaphore",
            "semaphore",
            "spinlock",
            "raw_spinlock",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::tests::blob::Blob;

    #[test]
    fn kmalloc_caches_are_told_by_name() {
        assert_eq!(kmalloc("kmalloc-192", 192), Some(192));
        assert_eq!(kmalloc("kmalloc-cg-1k", 1024), Some(1024));
        assert_eq!(kmalloc("kmalloc-rnd-03-64", 64), Some(64));
        assert_eq!(kmalloc("dma-kmalloc-512", 512), Some(512));
        assert_eq!(kmalloc("kmalloc_test", 8), None);
        assert_eq!(kmalloc("dentry", 192), None);
    }

    #[test]
    fn the_queue_of_a_rwlock_is_a_part_of_it() {
        let mut b = Blob::new();
        let half = b.int("unsigned int", 4, 32);
        let raw = b.strukt("raw_spinlock", 4, &[("val", half, 0, 0)]);
        let queued = b.strukt("qrwlock", 8, &[("cnts", half, 0, 0), ("wait_lock", raw, 32, 0)]);
        let plain = b.strukt("", 8, &[("raw_lock", queued, 0, 0)]);
        let rwlock = b.add("rwlock_t", 8, false, 0, plain, &[]);
        b.strukt("journal", 24, &[("flags", half, 0, 0), ("lock", rwlock, 64, 0)]);
        let btf = b.parse();
        let shown = |offset, kind| -> Vec<String> {
            let paths = lock_paths(&btf, "journal", offset, kind);
            paths.iter().map(|path| path.text_from(0)).collect()
        };
        assert_eq!(shown(8, LockKind::Rwlock), ["journal.lock"]);
        assert_eq!(shown(12, LockKind::Rwlock), ["journal.lock.raw_lock.wait_lock"]);
        assert_eq!(shown(12, LockKind::Mutex), [""; 0]);
    }
}
