//! Records that were decoded before.

use super::{Decoder, WireError};
use crate::event::Event;

/// Decodes records out of a capture, each as if it was the only one: what a live [`Decoder`] remembers from one to the next stands in
/// the capture.
#[derive(Debug, Default)]
pub struct Again(Decoder);

impl Again {
    /// Appends the events of a record; the frames of its stack only with `stack`.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn decode(&mut self, record: &[u8], stack: bool, out: &mut Vec<Event>) -> Result<usize, WireError> {
        self.0.met.clear();
        (self.0.percpu, self.0.stacks) = (None, Some(stack));
        self.0.decode(record, out)
    }
}
