//! The contract of the command line: exit codes, and what goes to which stream.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn holdup(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn version_and_help_go_to_stdout() {
    let version = holdup(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        text(&version.stdout),
        concat!("holdup ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert!(version.stderr.is_empty());
    for verb in [&["--help"][..], &["live", "--help"]] {
        let help = holdup(verb);
        assert_eq!(help.status.code(), Some(0));
        for line in ["Exit codes:", "  3  a deadlock was found"] {
            assert!(text(&help.stdout).contains(line), "{verb:?} lacks {line:?}");
        }
        assert!(help.stderr.is_empty());
    }
}

#[test]
fn wrong_usage_is_2_and_names_the_value() {
    for (arguments, names) in [
        (&["live", "--duration", "5y"][..], "unknown unit \"y\""),
        (&["live", "--interval", "1ms"], "below 10ms"),
        (&["live", "--ring-bytes", "5000"], "no power of two"),
        (&["live", "--text", "--json"], "cannot be used with"),
        (
            &["record", "-o", "x", "--only", "cgroup:7"],
            "cgroup of a task is not known",
        ),
        (&["nonsense"], "nonsense"),
    ] {
        let output = holdup(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(names),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}

/// Runs holdup as somebody without privileges.
fn as_nobody(arguments: &[&str]) -> Output {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return holdup(arguments);
    }
    // A copy, for the build directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("holdup");
    std::fs::copy(env!("CARGO_BIN_EXE_holdup"), &copy).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let output = Command::new(&copy).args(arguments).uid(NOBODY).gid(NOBODY).output();
        match output {
            // A child of another test, forked while the copy was written, has it open until its own exec.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            output => return output.unwrap(),
        }
    }
}

#[test]
fn without_privileges_it_is_one_paragraph_and_1() {
    let output = as_nobody(&["live", "--duration", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("holdup: cannot work here: "), "{stderr}");
    assert!(stderr.contains("CAP_BPF"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn doctor_tells_everything_before_it_says_1() {
    let output = as_nobody(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    for part in ["Checks\n", "privileges", "\nProbes\n", "tp_contention_begin"] {
        assert!(text(&output.stdout).contains(part), "{part:?}");
    }
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("holdup: cannot work here: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdup"))
        .arg("doctor")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(stderr.is_empty(), "{stderr}");
}
