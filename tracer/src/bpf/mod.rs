//! The edge to the BPF object: embedding, loading, attaching, and the shared tables. The only place with `unsafe`.

pub mod attach;
pub mod iterators;
pub mod leave;
pub mod load;
pub mod log;
pub mod probes;
pub mod shared;
pub mod stats;
pub mod watch;
pub mod watch_probes;

/// The BPF object, built and put there by build.rs.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/holdup-bpf"));
