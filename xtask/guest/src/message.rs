//! What the guest tells the host.

use crate::frame::{Frame, MAX_PAYLOAD};
use crate::plan::{CommandId, JobId};
use serde::{Deserialize, Serialize};

/// One message from the guest. Output travels raw, the rest as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// PID 1 runs and the file systems are mounted.
    Hello(Hello),
    /// Bytes a command wrote to its standard output.
    Stdout(CommandId, Vec<u8>),
    /// Bytes a command wrote to its standard error.
    Stderr(CommandId, Vec<u8>),
    /// A command has ended.
    Exit(CommandId, Exit),
    /// A job has ended.
    JobEnd(JobId, JobEnd),
    /// A file of `/out` follows.
    File(FileHead),
    /// The next bytes of that file.
    FileData(Vec<u8>),
    /// PID 1's own words, for the log.
    Note(String),
    /// The last message; exactly one comes.
    Verdict(Verdict),
}

/// First message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `uname -r`.
    pub release: String,
    /// CPUs that are on line.
    pub cpus: u32,
    /// Time since the kernel started, ms.
    pub uptime_ms: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub status: Status,
    /// Its run time, ms.
    pub elapsed_ms: u64,
}

/// Exit status of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Code(i32),
    Signal(i32),
    /// It was still running when its time was up. `reaped` is false if even SIGKILL did not end it.
    TimedOut {
        after_ms: u64,
        reaped: bool,
    },
    /// It could not be started.
    NotStarted(String),
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut { after_ms, reaped: true } => write!(f, "still running after {after_ms} ms, stopped"),
            Self::TimedOut {
                after_ms,
                reaped: false,
            } => {
                write!(f, "still running after {after_ms} ms, and SIGKILL did not end it")
            }
            Self::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// The step that could not be done and why. A command's exit status is no error of the job.
    pub error: Option<String>,
}

/// A file that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHead {
    /// Relative to `/out`.
    pub path: String,
    /// Bytes that follow.
    pub size: u64,
}

/// PID 1's summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Jobs that were finished, with or without error.
    pub jobs: usize,
    /// Why the plan as a whole could not be carried out.
    pub error: Option<String>,
}

const HELLO: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;
const EXIT: u8 = 4;
const JOB_END: u8 = 5;
const FILE: u8 = 6;
const FILE_DATA: u8 = 7;
const NOTE: u8 = 8;
const VERDICT: u8 = 9;

impl Message {
    /// Kind, id and payload for [`crate::frame::encode`].
    ///
    /// # Errors
    /// A payload that does not fit into one frame. Raw data must be cut to [`MAX_PAYLOAD`] by the sender.
    pub fn to_parts(&self) -> anyhow::Result<(u8, u16, Vec<u8>)> {
        let (kind, id, payload) = match self {
            Self::Hello(hello) => (HELLO, 0, serde_json::to_vec(hello)?),
            Self::Stdout(id, bytes) => (STDOUT, id.0, bytes.clone()),
            Self::Stderr(id, bytes) => (STDERR, id.0, bytes.clone()),
            Self::Exit(id, exit) => (EXIT, id.0, serde_json::to_vec(exit)?),
            Self::JobEnd(id, end) => (JOB_END, id.0, serde_json::to_vec(end)?),
            Self::File(head) => (FILE, 0, serde_json::to_vec(head)?),
            Self::FileData(bytes) => (FILE_DATA, 0, bytes.clone()),
            Self::Note(text) => (NOTE, 0, text.as_bytes().iter().copied().take(MAX_PAYLOAD).collect()),
            Self::Verdict(verdict) => (VERDICT, 0, serde_json::to_vec(verdict)?),
        };
        anyhow::ensure!(
            payload.len() <= MAX_PAYLOAD,
            "a message of {} bytes does not fit a frame",
            payload.len()
        );
        Ok((kind, id, payload))
    }

    /// The message in a frame.
    ///
    /// # Errors
    /// An unknown kind, or JSON that is not what the kind asks for.
    pub fn from_frame(frame: Frame) -> anyhow::Result<Self> {
        let Frame { kind, id, seq, payload } = frame;
        let message = match kind {
            HELLO => Self::Hello(serde_json::from_slice(&payload)?),
            STDOUT => Self::Stdout(CommandId(id), payload),
            STDERR => Self::Stderr(CommandId(id), payload),
            EXIT => Self::Exit(CommandId(id), serde_json::from_slice(&payload)?),
            JOB_END => Self::JobEnd(JobId(id), serde_json::from_slice(&payload)?),
            FILE => Self::File(serde_json::from_slice(&payload)?),
            FILE_DATA => Self::FileData(payload),
            NOTE => Self::Note(String::from_utf8_lossy(&payload).into_owned()),
            VERDICT => Self::Verdict(serde_json::from_slice(&payload)?),
            other => anyhow::bail!("frame {seq} has the unknown kind {other}"),
        };
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_way() {
        let messages = [
            Message::Hello(Hello {
                release: "6.1".into(),
                cpus: 4,
                uptime_ms: 900,
            }),
            Message::Stdout(CommandId(1), vec![0, 255, 10]),
            Message::Stderr(CommandId(2), b"warn\n".to_vec()),
            Message::Exit(
                CommandId(1),
                Exit {
                    status: Status::Signal(9),
                    elapsed_ms: 12,
                },
            ),
            Message::JobEnd(
                JobId(3),
                JobEnd {
                    error: Some("no".into()),
                },
            ),
            Message::File(FileHead {
                path: "a/b".into(),
                size: 3,
            }),
            Message::FileData(vec![1, 2, 3]),
            Message::Note("hello".into()),
            Message::Verdict(Verdict { jobs: 1, error: None }),
        ];
        for message in messages {
            let (kind, id, payload) = message.to_parts().unwrap();
            assert_eq!(
                Message::from_frame(Frame {
                    kind,
                    id,
                    seq: 0,
                    payload
                })
                .unwrap(),
                message
            );
        }
    }

    #[test]
    fn unknown_kinds_and_bad_json_are_refused() {
        let frame = |kind, payload: &[u8]| Frame {
            kind,
            id: 0,
            seq: 5,
            payload: payload.to_vec(),
        };
        assert!(
            Message::from_frame(frame(0, b""))
                .unwrap_err()
                .to_string()
                .contains("unknown kind 0")
        );
        for kind in [HELLO, EXIT, JOB_END, FILE, VERDICT] {
            assert!(Message::from_frame(frame(kind, b"{")).is_err(), "kind {kind}");
        }
    }
}
