//! Bad bytes give exactly the error that names them.

use proptest::prelude::*;
use tracer_common::kind::record_kind;
use tracer_common::record::WaitRecord;
use zerocopy::IntoBytes;

use super::*;

#[test]
fn malformed_bytes_are_rejected_by_name_and_give_nothing() {
    const WAIT: usize = size_of::<WaitRecord>();
    let change = |f: &dyn Fn(&mut WaitRecord)| {
        let mut record = wait(record_kind::WAIT_END);
        f(&mut record);
        record.as_bytes().to_vec()
    };
    let kind = record_kind::WAIT_END;
    let size = WAIT as u16;
    for (what, bytes, expected) in [
        (
            "nothing",
            vec![],
            WireError::Short {
                kind: 0,
                have: 0,
                need: 16,
            },
        ),
        (
            "half a header",
            vec![0; 15],
            WireError::Short {
                kind: 0,
                have: 15,
                need: 16,
            },
        ),
        ("kind 0", vec![0; 16], WireError::UnknownKind(0)),
        (
            "unknown kind",
            change(&|r| r.header.kind = 99),
            WireError::UnknownKind(99),
        ),
        (
            "cut body",
            change(&|_| ())[..WAIT - 1].to_vec(),
            WireError::Short {
                kind,
                have: WAIT - 1,
                need: WAIT,
            },
        ),
        (
            "size 0",
            change(&|r| r.header.size = 0),
            WireError::BadSize {
                kind,
                size: 0,
                frames: 0,
            },
        ),
        (
            "size too small",
            change(&|r| r.header.size -= 1),
            WireError::BadSize {
                kind,
                size: size - 1,
                frames: 0,
            },
        ),
        (
            "size too large",
            change(&|r| r.header.size = u16::MAX),
            WireError::BadSize {
                kind,
                size: u16::MAX,
                frames: 0,
            },
        ),
        (
            "size beyond the bytes",
            change(&|r| r.header.size += 8),
            WireError::Short {
                kind,
                have: WAIT,
                need: WAIT + 8,
            },
        ),
        (
            "frames without size",
            change(&|r| r.stack_len = 1),
            WireError::BadSize { kind, size, frames: 1 },
        ),
        (
            "absurd frames",
            change(&|r| r.stack_len = u32::MAX),
            WireError::BadSize {
                kind,
                size,
                frames: u32::MAX,
            },
        ),
        (
            "lock kind",
            change(&|r| r.kind = 200),
            WireError::BadCode {
                kind,
                field: "lock kind",
                value: 200,
            },
        ),
        (
            "mode",
            change(&|r| r.mode = 9),
            WireError::BadCode {
                kind,
                field: "mode",
                value: 9,
            },
        ),
        (
            "phase",
            change(&|r| r.phase = 9),
            WireError::BadCode {
                kind,
                field: "phase",
                value: 9,
            },
        ),
        (
            "probe",
            change(&|r| r.seen_by = 9),
            WireError::BadCode {
                kind,
                field: "seen_by",
                value: 9,
            },
        ),
    ] {
        assert_eq!(decode(&bytes), (Err(expected), vec![]), "{what}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_taken_was_there(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 0u16..8) {
        if let Some(place) = bytes.get_mut(..2) {
            place.copy_from_slice(&kind.to_ne_bytes());
        }
        let (taken, events) = decode(&bytes);
        match taken {
            Ok(taken) => prop_assert!(taken > 0 && taken <= bytes.len()),
            Err(_) => prop_assert!(events.is_empty()),
        }
    }
}
