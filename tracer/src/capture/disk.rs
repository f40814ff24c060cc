//! Frames to files, by a thread of its own: a slow disk must not keep the events waiting, and a disk that hangs together with
//! the box must not keep holdup from ending.

mod files;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use self::files::Files;
use super::sink::{Sink, SinkError};

/// Frames on their way to the disk; beyond it they are refused, and counted by whoever sent them.
const MAX_IN_FLIGHT: usize = 16 << 20;
/// A disk that is silent for so long at the end of a recording is taken for hung.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Where a recording goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To standard output.
    Stdout,
    /// To files.
    Files {
        /// The newest one.
        path: PathBuf,
        /// Older ones of the same recording that are kept, as `PATH.1` (the newest of them) and so on.
        keep: u32,
        /// Whether files of an earlier recording may be replaced.
        overwrite: bool,
    },
}

enum Job {
    File(Bytes),
    Frame(Bytes),
}

#[derive(Debug, Default)]
struct State {
    in_flight: AtomicUsize,
    failed: Mutex<Option<SinkError>>,
    failure: Notify,
}

/// The way to the disk.
#[derive(Debug)]
pub struct Disk {
    jobs: Sender<Job>,
    done: Receiver<()>,
    state: Arc<State>,
}

impl Disk {
    /// Creates the first file, so that a mistake in its name shows at once.
    ///
    /// # Errors
    /// When it cannot be created, or is there already.
    pub fn create(output: &Output) -> Result<Self, SinkError> {
        let mut files = Files::create(output)?;
        let (jobs, queue) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let worker = move || {
            if let Err(error) = work(&mut files, &queue, &shared) {
                *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                shared.failure.notify_one();
            }
            // Nobody waits for it any more when the recording has given up on the disk.
            let _ = finished.send(());
        };
        thread::Builder::new()
            .name("capture".to_owned())
            .spawn(worker)
            .map_err(|source| SinkError {
                what: "starting the thread that writes the capture".to_owned(),
                source: Some(source),
            })?;
        Ok(Self { jobs, done, state })
    }

    /// Waits until the disk has failed.
    pub async fn failure(&self) -> SinkError {
        loop {
            if let Some(error) = self.failed() {
                return error;
            }
            self.state.failure.notified().await;
        }
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// When it did not get there.
    pub fn finish(self) -> Result<(), SinkError> {
        let Self { jobs, done, state } = self;
        drop(jobs);
        let silent = done.recv_timeout(LAST_WORDS).is_err();
        let failed = state.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failed {
            Some(error) => Err(error),
            None if silent => Err(SinkError {
                what: format!(
                    "the disk has not taken the last {} bytes of the capture within {} s; what it has can be read",
                    state.in_flight.load(Ordering::Relaxed),
                    LAST_WORDS.as_secs()
                ),
                source: None,
            }),
            None => Ok(()),
        }
    }

    fn failed(&self) -> Option<SinkError> {
        self.state.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn send(&self, job: Job) -> Result<(), SinkError> {
        if let Some(error) = self.failed() {
            return Err(error);
        }
        // Without a receiver the thread has failed, which the next call or the end tells.
        let _ = self.jobs.send(job);
        Ok(())
    }
}

impl Sink for Disk {
    fn frame(&mut self, frame: Bytes) -> Result<bool, SinkError> {
        let length = frame.len();
        if self.state.in_flight.fetch_add(length, Ordering::Relaxed) > MAX_IN_FLIGHT {
            self.state.in_flight.fetch_sub(length, Ordering::Relaxed);
            return Ok(false);
        }
        self.send(Job::Frame(frame)).map(|()| true)
    }

    fn file(&mut self, header: Bytes) -> Result<(), SinkError> {
        self.state.in_flight.fetch_add(header.len(), Ordering::Relaxed);
        self.send(Job::File(header))
    }
}

/// Writes what comes; whenever nothing more is waiting, makes sure that it would survive a power cut.
fn work(files: &mut Files, queue: &Receiver<Job>, state: &State) -> Result<(), SinkError> {
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(job) = next {
            let length = match job {
                Job::File(header) => {
                    files.next(&header)?;
                    header.len()
                }
                Job::Frame(frame) => {
                    files.append(&frame)?;
                    frame.len()
                }
            };
            state.in_flight.fetch_sub(length, Ordering::Relaxed);
            next = queue.try_recv().ok();
        }
        files.sync()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
