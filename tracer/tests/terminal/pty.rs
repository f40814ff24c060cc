//! A program on a pseudo-terminal, with a terminal emulator at the other end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// For anything to happen on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A program on a terminal.
pub struct Pty {
    pub child: Child,
    master: OwnedFd,
    slave: OwnedFd,
    screen: Arc<Screen>,
}

/// What the emulator shows.
struct Screen {
    parser: Mutex<vt100::Parser>,
    changed: Condvar,
    /// Nobody reads the terminal: it takes bytes until its buffer is full.
    stalled: AtomicBool,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, vt100::Parser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pty {
    /// Starts a command on a terminal of this size.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let name = name.to_str().expect("a path");
        let slave: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("its other end")
            .into();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).expect("its size");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        // Whatever the surroundings say of colours and languages, it sees this terminal only.
        for name in ["NO_COLOR", "COLORFGBG", "LC_ALL", "LC_CTYPE"] {
            command.env_remove(name);
        }
        let child = command
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8")
            .env("RUST_BACKTRACE", "0")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the program");
        let screen = Arc::new(Screen {
            parser: Mutex::new(vt100::Parser::new(
                if rows == 0 { 24 } else { rows },
                if columns == 0 { 80 } else { columns },
                0,
            )),
            changed: Condvar::new(),
            stalled: AtomicBool::new(false),
        });
        let reader = File::from(master.try_clone().expect("a descriptor"));
        std::thread::spawn({
            let screen = Arc::clone(&screen);
            move || read(reader, &screen)
        });
        Self {
            child,
            master,
            slave,
            screen,
        }
    }

    /// The text on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().screen().contents()
    }

    /// Whether the alternate screen is shown.
    pub fn alternate(&self) -> bool {
        self.screen.lock().screen().alternate_screen()
    }

    /// Whether the line discipline edits lines and echoes, as a shell wants it.
    pub fn cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("the terminal's modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Types.
    pub fn keys(&self, text: &str) {
        File::from(self.master.try_clone().expect("a descriptor"))
            .write_all(text.as_bytes())
            .expect("typing");
    }

    /// Stops or goes on reading what the program writes.
    pub fn stall(&self, stalled: bool) {
        self.screen.stalled.store(stalled, Ordering::SeqCst);
    }

    /// Waits until the screen is as wanted; tells how long it took.
    pub fn until(&self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) -> Duration {
        let started = Instant::now();
        let mut parser = self.screen.lock();
        while !wanted(parser.screen()) {
            let left = SOON.saturating_sub(started.elapsed());
            assert!(!left.is_zero(), "{what} did not come:\n{}", parser.screen().contents());
            parser = self
                .screen
                .changed
                .wait_timeout(parser, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        started.elapsed()
    }

    /// Waits for a text.
    pub fn until_text(&self, text: &str) -> Duration {
        self.until(text, |screen| screen.contents().contains(text))
    }

    /// Changes the size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        self.screen.lock().screen_mut().set_size(rows, columns);
        tcsetwinsize(self.slave.as_fd(), size).expect("its size");
    }

    /// Waits for the end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut from: File, screen: &Screen) {
    let mut buffer = [0; 65536];
    loop {
        if screen.stalled.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(n) if n > 0 => {
                screen.lock().process(buffer.get(..n).unwrap_or_default());
                screen.changed.notify_all();
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
