//! The events of a capture as JSON, one a line. Addresses and hashes are hexadecimal texts: as numbers they would lose their
//! last digits in most readers of JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::json::SCHEMA_VERSION;
use crate::event::Event;

/// Fields that hold addresses, raw words or hashes, alone or in lists.
const HEXADECIMAL: [&str; 13] = [
    "lock",
    "owner_word",
    "addr",
    "frames",
    "stack",
    "id",
    "function",
    "workqueue",
    "completion",
    "queue",
    "work",
    "Unreadable",
    "unreadable",
];

#[derive(Serialize)]
struct Line {
    schema_version: u32,
    r#type: &'static str,
    #[serde(flatten)]
    event: Value,
}

/// Writes one event.
///
/// # Errors
/// When `out` cannot be written to.
pub fn event(event: &Event, out: &mut impl Write) -> io::Result<()> {
    let mut event = serde_json::to_value(event)?;
    readable(&mut event, false);
    serde_json::to_writer(
        &mut *out,
        &Line {
            schema_version: SCHEMA_VERSION,
            r#type: "event",
            event,
        },
    )?;
    out.write_all(b"\n")
}

fn readable(value: &mut Value, address: bool) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                readable(value, HEXADECIMAL.contains(&name.as_str()));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| readable(value, address)),
        Value::Number(number) if address => {
            if let Some(number) = number.as_u64() {
                *value = Value::String(format!("{number:#x}"));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, StackFrames, WaitEnd};
    use crate::ids::{KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tid, Timestamp};

    fn line(body: Body) -> String {
        let mut out = Vec::new();
        event(
            &Event {
                time: Timestamp(7),
                body,
            },
            &mut out,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_are_texts_and_times_are_numbers() {
        let frames = [0xffff_ffff_8112_3456, 1].map(KernelAddr).into();
        assert_eq!(
            line(Body::Stack(StackFrames {
                id: StackId(u64::MAX),
                frames,
                pieced: true,
            })),
            "{\"schema_version\":1,\"type\":\"event\",\"body\":{\"Stack\":{\"frames\":[\"0xffffffff81123456\",\"0x1\"],\
             \"id\":\"0xffffffffffffffff\",\"pieced\":true}},\"time\":7}\n"
        );
        let key = TaskKey {
            tid: Tid(4),
            start: Timestamp(5),
        };
        let end = WaitEnd {
            waiter: crate::event::Actor::Task(key),
            lock: LockAddr(16),
            result: -4,
            waited: Nanos(9),
        };
        assert_eq!(
            line(Body::WaitEnd(end)),
            "{\"schema_version\":1,\"type\":\"event\",\"body\":{\"WaitEnd\":{\"lock\":\"0x10\",\"result\":-4,\
             \"waited\":9,\"waiter\":{\"Task\":{\"start\":5,\"tid\":4}}}},\"time\":7}\n"
        );
    }
}
