"""Judges a trace by Perfetto's own schema, as its package on PyPI has it, against the events that went into it.

    check_trace.py TRACE EVENTS REPORT     (`holdup export --format perfetto` and `--format jsonl`, `holdup report --json`)

The protocol buffer classes are Google's, generated from Perfetto's .proto files: nothing of holdup's encoder is used.
"""

import json
import sys
from collections import Counter, defaultdict

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as schema

MONOTONIC = 3  # perfetto/common/builtin_clock.proto
EVENT = schema.TrackEvent


def check(good, what):
    if not good:
        sys.exit(f"{sys.argv[1]}: {what}")


def known(message, where="trace"):
    """Every field is one of the schema, with its type."""
    try:
        from google.protobuf.unknown_fields import UnknownFieldSet
    except ImportError:  # protobuf before 4.21
        from google.protobuf.internal.python_message import UnknownFieldSet
    for field in UnknownFieldSet(message):
        check(False, f"{where}: field {field.field_number} is not in Perfetto's schema")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for part in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
            known(part, f"{where}.{descriptor.name}")


def main(trace_path, events_path, report_path):
    trace = schema.Trace()
    trace.ParseFromString(open(trace_path, "rb").read())
    known(trace)
    events = [json.loads(line)["body"] for line in open(events_path)]

    first = trace.packet[0]
    check(first.sequence_flags & schema.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED, "the first packet starts no sequence")
    check(first.clock_snapshot.primary_trace_clock == MONOTONIC, "the trace's clock is another")
    clocks = {clock.clock_id for clock in first.clock_snapshot.clocks}
    check(MONOTONIC in clocks and len(clocks) >= 2, f"clocks {clocks} cannot be converted")

    tracks, slices, instants = {}, defaultdict(list), []
    starts, ends = Counter(), Counter()
    for packet in trace.packet[1:]:
        check(packet.trusted_packet_sequence_id == first.trusted_packet_sequence_id, "another sequence")
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            check(track.uuid not in tracks, f"track {track.uuid} is described twice")
            check(not track.parent_uuid or track.parent_uuid in tracks, f"track {track.uuid} hangs in the air")
            named = track.name or track.HasField("thread") or track.HasField("process")
            check(named, f"track {track.uuid} has no name")
            tracks[track.uuid] = track
            continue
        event = packet.track_event
        check(event.track_uuid in tracks, f"an event on track {event.track_uuid}, which is not described")
        check(packet.timestamp_clock_id in (0, MONOTONIC), "an event of another clock")
        for flow in event.flow_ids:
            starts[flow] += 1
        for flow in event.terminating_flow_ids:
            ends[flow] += 1
        if event.type == EVENT.TYPE_INSTANT:
            check(event.name, "an instant without a name")
            instants.append((packet.timestamp, event))
        else:
            slices[event.track_uuid].append((packet.timestamp, event))

    # Trace processor sorts by time and keeps the order of the file for equal times: slices must nest then.
    waits, holds = [], 0
    for uuid, list_ in slices.items():
        open_ = []
        for time, event in sorted(list_, key=lambda item: item[0]):
            if event.type == EVENT.TYPE_SLICE_BEGIN:
                check(event.name, "a slice without a name")
                open_.append((time, event))
            else:
                check(event.type == EVENT.TYPE_SLICE_END, f"event type {event.type}")
                check(open_, f"a slice ends on track {uuid} that has not begun")
                begun, event = open_.pop()
                if tracks[uuid].HasField("thread") or " " in tracks[uuid].name and tracks[uuid].name.startswith("cpu"):
                    waits.append((time - begun, event.name))
                else:
                    holds += 1
        check(not open_, f"a slice does not end on track {uuid}")
    dangling = [flow for flow in ends if starts[flow] != 1]
    check(not dangling, f"arrows {dangling} come from nowhere")

    # Every wait that ended is a slice of exactly its length.
    begun, expected = set(), Counter()
    for event in events:
        ((kind, body),) = event.items()
        if kind in ("Wait", "WaitEnd"):
            key = (json.dumps(body["waiter"], sort_keys=True), body["lock"])
            if kind == "Wait":
                begun.add(key)
            elif key in begun:
                begun.remove(key)
                expected[body["waited"]] += 1
    pending = json.load(open(report_path))["totals"]["waits"]
    lasting = sum(name.endswith(", not over") for _, name in waits)
    check(lasting == pending, f"{lasting} waits that are not over, and the report has {pending}")
    over = Counter(length for length, name in waits if not name.endswith(", not over"))
    check(over == expected, f"waits by length: {expected - over} are missing, {over - expected} are too many")
    print(
        f"{trace_path}: {len(trace.packet)} packets, {len(tracks)} tracks, {sum(over.values())} waits that ended and "
        f"{len(waits) - sum(over.values())} that did not, {holds} holds, {sum(ends.values())} arrows, {len(instants)} instants"
    )


main(*sys.argv[1:])
