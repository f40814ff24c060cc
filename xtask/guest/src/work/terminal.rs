//! Locks of a terminal.

use super::{for_ever, in_turn, say, system};
use anyhow::{Context as _, Result};
use rustix::termios::{Action, OptionalActions, Winsize};
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};

/// All threads but one write to one terminal.
pub fn write() -> Result<()> {
    let (mut master, path) = system::pseudo_terminal()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    say(&format!("pts{name}"))?;
    let slave = OpenOptions::new()
        .write(true)
        .open(&path)
        .context("opening the slave")?;
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while master.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let result = for_ever(|_| (&slave).write_all(&[b'x'; 256]).context("writing to the terminal"));
    let _ = drain.join();
    result
}

/// All threads set up, write to and read from a few terminals, and open and close them.
pub fn many() -> Result<()> {
    const TERMINALS: usize = 3;
    let mut terminals = Vec::new();
    for _ in 0..TERMINALS {
        let (master, path) = system::pseudo_terminal()?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .context("opening the slave")?;
        rustix::io::ioctl_fionbio(&slave, true)?;
        terminals.push((master, slave, path));
    }
    in_turn(|turn| {
        let Some((master, slave, path)) = terminals.get(turn.of(TERMINALS)) else {
            return Ok(());
        };
        let settings = rustix::termios::tcgetattr(slave).context("tcgetattr")?;
        rustix::termios::tcsetattr(slave, OptionalActions::Now, &settings).context("tcsetattr")?;
        let size = Winsize {
            ws_row: 24 + turn.thread as u16,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(slave, size).context("tcsetwinsize")?;
        // The buffers may be full, or empty.
        let _ = (&*slave).write(&[b'x'; 128]);
        let _ = (&*master).write(b"typed\n");
        let _ = (&*master).read(&mut [0; 256]);
        let _ = (&*slave).read(&mut [0; 256]);
        if turn.every(4) {
            drop(OpenOptions::new().write(true).open(path).context("opening the slave")?);
            drop(system::pseudo_terminal()?);
        }
        Ok(())
    })
}

/// One thread writes to a terminal whose other side nobody reads, and keeps its lock meanwhile; another one waits for that in an ioctl.
pub fn blocked_ioctl() -> Result<()> {
    let (_unread, path) = system::pseudo_terminal()?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .context("opening the slave")?;
    let own = || rustix::thread::gettid().as_raw_nonzero();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            say(&format!("writer {}", own()))?;
            loop {
                (&slave).write_all(&[b'x'; 256]).context("writing to the terminal")?;
            }
        });
        say(&format!("ioctl {} {}", own(), path.display()))?;
        while !writer.is_finished() {
            // KERNEL: TCXONC takes the lock of writers to send a stop character (tty_send_xchar, drivers/tty/tty_io.c).
            rustix::termios::tcflow(&slave, Action::IOff).context("TCXONC")?;
        }
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
    })
}
