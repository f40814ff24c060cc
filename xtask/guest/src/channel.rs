//! Messages to the host, from any thread.

use crate::port::Port;
use std::sync::{Arc, Mutex, PoisonError};
use xtask_guest::frame;
use xtask_guest::message::Message;

/// A handle on the one stream of frames.
#[derive(Clone)]
pub struct Channel(Arc<Mutex<State>>);

struct State {
    port: Port,
    seq: u32,
}

impl Channel {
    pub fn new(port: Port) -> Self {
        Self(Arc::new(Mutex::new(State { port, seq: 0 })))
    }

    /// Sends one message; the host has it when this returns.
    pub fn send(&self, message: &Message) {
        let (kind, id, payload) = match message.to_parts() {
            Ok(parts) => parts,
            Err(error) => {
                // The host sees the hole: whatever this message was (an exit, a verdict), it is missing there.
                eprintln!("xtask-guest: message not sent: {error}");
                return;
            }
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = frame::encode(kind, id, state.seq, &payload);
        state.seq = state.seq.wrapping_add(1);
        state.port.write(&bytes);
    }

    /// A line for the log.
    pub fn note(&self, text: impl Into<String>) {
        self.send(&Message::Note(text.into()));
    }

    /// Ends the machine. Returns only if QEMU has no exit device.
    pub fn power_off(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).port.power_off();
    }
}
