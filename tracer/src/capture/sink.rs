//! Where the frames of a recording go.

use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Why a recording had to stop.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct SinkError {
    /// What failed.
    pub what: String,
    /// Why, where the system says so.
    pub source: Option<io::Error>,
}

/// Takes whole frames.
pub trait Sink {
    /// Takes a frame. `false` when there is no room for it at the moment: it is lost then, and the caller counts it.
    ///
    /// # Errors
    /// When nothing can be written any more. What was taken before stays readable.
    fn frame(&mut self, frame: Bytes) -> Result<bool, SinkError>;

    /// Starts a file of the recording with its first frame, which is never refused. Further frames go there.
    ///
    /// # Errors
    /// As for [`Sink::frame`].
    fn file(&mut self, header: Bytes) -> Result<(), SinkError>;
}

/// Keeps everything in memory, one buffer a file.
#[derive(Debug, Default)]
pub struct Memory {
    /// The files.
    pub files: Vec<BytesMut>,
}

impl Sink for Memory {
    fn frame(&mut self, frame: Bytes) -> Result<bool, SinkError> {
        if let Some(file) = self.files.last_mut() {
            file.extend_from_slice(&frame);
        }
        Ok(true)
    }

    fn file(&mut self, header: Bytes) -> Result<(), SinkError> {
        self.files.push(BytesMut::from(header.as_ref()));
        Ok(())
    }
}
