//! The few of Perfetto's messages that a trace of lock waits needs.
//!
//! Field numbers are those of protos/perfetto/trace/*.proto in github.com/google/perfetto.

use prost::{Enumeration, Message};

/// Clock ids of `builtin_clock.proto`.
pub mod clock {
    /// CLOCK_REALTIME.
    pub const REALTIME: u32 = 1;
    /// CLOCK_MONOTONIC.
    pub const MONOTONIC: u32 = 3;
    /// CLOCK_BOOTTIME.
    pub const BOOTTIME: u32 = 6;
}

/// `TracePacket.sequence_flags`: nothing before this packet is needed.
pub const INCREMENTAL_STATE_CLEARED: u32 = 1;

/// trace.proto
#[derive(Clone, PartialEq, Message)]
pub struct Trace {
    /// The packets.
    #[prost(message, repeated, tag = "1")]
    pub packet: Vec<TracePacket>,
}

/// trace_packet.proto
#[derive(Clone, PartialEq, Message)]
pub struct TracePacket {
    /// Nanoseconds.
    #[prost(uint64, optional, tag = "8")]
    pub timestamp: Option<u64>,
    /// Of which clock.
    #[prost(uint32, optional, tag = "58")]
    pub timestamp_clock_id: Option<u32>,
    /// Identity of the writer.
    #[prost(uint32, optional, tag = "10")]
    pub trusted_packet_sequence_id: Option<u32>,
    /// Flags.
    #[prost(uint32, optional, tag = "13")]
    pub sequence_flags: Option<u32>,
    /// One moment on several clocks.
    #[prost(message, optional, tag = "6")]
    pub clock_snapshot: Option<ClockSnapshot>,
    /// Something on a track.
    #[prost(message, optional, tag = "11")]
    pub track_event: Option<TrackEvent>,
    /// A track.
    #[prost(message, optional, tag = "60")]
    pub track_descriptor: Option<TrackDescriptor>,
}

/// clock_snapshot.proto
#[derive(Clone, PartialEq, Message)]
pub struct ClockSnapshot {
    /// The readings.
    #[prost(message, repeated, tag = "1")]
    pub clocks: Vec<Clock>,
    /// The one that the trace shows.
    #[prost(uint32, optional, tag = "2")]
    pub primary_trace_clock: Option<u32>,
}

/// clock_snapshot.proto
#[derive(Clone, PartialEq, Message)]
pub struct Clock {
    /// Which clock.
    #[prost(uint32, optional, tag = "1")]
    pub clock_id: Option<u32>,
    /// Its reading.
    #[prost(uint64, optional, tag = "2")]
    pub timestamp: Option<u64>,
}

/// track_event/track_descriptor.proto
#[derive(Clone, PartialEq, Message)]
pub struct TrackDescriptor {
    /// Identity.
    #[prost(uint64, optional, tag = "1")]
    pub uuid: Option<u64>,
    /// The track above.
    #[prost(uint64, optional, tag = "5")]
    pub parent_uuid: Option<u64>,
    /// Shown name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The track of a process.
    #[prost(message, optional, tag = "3")]
    pub process: Option<ProcessDescriptor>,
    /// The track of a thread.
    #[prost(message, optional, tag = "4")]
    pub thread: Option<ThreadDescriptor>,
}

/// track_event/process_descriptor.proto
#[derive(Clone, PartialEq, Message)]
pub struct ProcessDescriptor {
    /// Process id.
    #[prost(int32, optional, tag = "1")]
    pub pid: Option<i32>,
    /// Name.
    #[prost(string, optional, tag = "6")]
    pub process_name: Option<String>,
}

/// track_event/thread_descriptor.proto
#[derive(Clone, PartialEq, Message)]
pub struct ThreadDescriptor {
    /// Process id.
    #[prost(int32, optional, tag = "1")]
    pub pid: Option<i32>,
    /// Thread id.
    #[prost(int32, optional, tag = "2")]
    pub tid: Option<i32>,
    /// Name.
    #[prost(string, optional, tag = "5")]
    pub thread_name: Option<String>,
}

/// track_event/track_event.proto
#[derive(Clone, PartialEq, Message)]
pub struct TrackEvent {
    /// What happens.
    #[prost(enumeration = "Type", optional, tag = "9")]
    pub r#type: Option<i32>,
    /// Where.
    #[prost(uint64, optional, tag = "11")]
    pub track_uuid: Option<u64>,
    /// Shown name.
    #[prost(string, optional, tag = "23")]
    pub name: Option<String>,
    /// For filters.
    #[prost(string, repeated, tag = "22")]
    pub categories: Vec<String>,
    /// Further values.
    #[prost(message, repeated, tag = "4")]
    pub debug_annotations: Vec<DebugAnnotation>,
    /// Arrows that start here.
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub flow_ids: Vec<u64>,
    /// Arrows that end here.
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    pub terminating_flow_ids: Vec<u64>,
}

/// track_event/track_event.proto
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Type {
    /// Not given.
    Unspecified = 0,
    /// A slice begins.
    SliceBegin = 1,
    /// The innermost slice of the track ends.
    SliceEnd = 2,
    /// Something without length.
    Instant = 3,
}

/// track_event/debug_annotation.proto
#[derive(Clone, PartialEq, Message)]
pub struct DebugAnnotation {
    /// Name.
    #[prost(string, optional, tag = "10")]
    pub name: Option<String>,
    /// Its value.
    #[prost(string, optional, tag = "6")]
    pub string_value: Option<String>,
}
