//! The terminal: taken over once, and given back on every way out.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::{Position, Rect};
use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use super::feed::Wake;

/// Whether the terminal is ours at present. Process-wide, as the terminal is: the panic hook has no other way to know.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// A stop signal to our process group takes effect at once, or never (when nobody could let us go on again).
const STOPPED_WITHIN: Duration = Duration::from_millis(300);

/// Where pictures are written to. A descriptor of its own, not `std::io::stdout`: the terminal can then be given back while
/// another thread hangs in a write.
pub type Output = BufWriter<File>;

fn output() -> Result<File> {
    let fd = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("taking over the terminal")?;
    Ok(File::from(fd))
}

/// The terminal in our hands; given back when dropped.
pub struct Taken {
    /// What to draw on.
    pub terminal: Terminal<CrosstermBackend<Output>>,
    mouse: bool,
}

impl Taken {
    /// Takes the terminal over and arms the panic hook.
    ///
    /// # Errors
    /// When it is no terminal, or refuses.
    pub fn new(mouse: bool) -> Result<Self> {
        arm_panic_hook();
        // Large enough for any picture: one write each.
        let backend = CrosstermBackend::new(BufWriter::with_capacity(1 << 16, output()?));
        let terminal = Terminal::new(backend).context("asking the terminal for its size")?;
        let mut taken = Self { terminal, mouse };
        taken.take()?;
        Ok(taken)
    }

    /// Takes it over (again); the next picture is drawn in full.
    ///
    /// # Errors
    /// When it refuses.
    pub fn take(&mut self) -> Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        give_it_a_size();
        // Who ran in between may have changed its modes, behind the back of what remembers them as raw.
        let _ = disable_raw_mode();
        enable_raw_mode().context("switching the terminal to raw mode")?;
        let backend = self.terminal.backend_mut();
        execute!(backend, EnterAlternateScreen, cursor::Hide).context(WRITING)?;
        if self.mouse {
            execute!(backend, EnableMouseCapture).context(WRITING)?;
        }
        self.repaint()
    }

    /// Clears it; the next picture is drawn in full. Not with `Terminal::clear`: that asks the terminal for its cursor and waits
    /// for the answer, which on a bad line may never come.
    ///
    /// # Errors
    /// When it refuses.
    pub fn repaint(&mut self) -> Result<()> {
        let size = self.terminal.size().context("asking the terminal for its size")?;
        self.terminal
            .resize(Rect::from((Position::ORIGIN, size)))
            .context(WRITING)
    }

    /// Stops the process as Ctrl-Z does elsewhere, and takes the terminal again afterwards.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub fn suspend(&mut self, wakes: &mpsc::Receiver<Wake>) -> Result<()> {
        restore();
        if kill_current_process_group(Signal::TSTP).is_ok() {
            // The signal may go to another thread, so this one can still run for a moment: it must not take the terminal yet.
            while let Ok(wake) = wakes.recv_timeout(STOPPED_WITHIN) {
                if matches!(wake, Wake::Continued) {
                    break;
                }
            }
        }
        self.take()
    }
}

const WRITING: &str = "writing to the terminal";

impl Drop for Taken {
    fn drop(&mut self) {
        restore();
    }
}

/// A serial line does not know how large the terminal at its other end is: then it is 80x24, until `stty` says otherwise.
fn give_it_a_size() {
    let stdout = io::stdout();
    if let Ok(mut size) = tcgetwinsize(&stdout)
        && (size.ws_row == 0 || size.ws_col == 0)
    {
        (size.ws_row, size.ws_col) = (24, 80);
        // It stays unusable where it cannot be told.
        let _ = tcsetwinsize(&stdout, size);
    }
}

/// Gives the terminal back, if it is ours. May be called at any time from any thread.
pub fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // On the way out there is nobody left to tell of an error. The settings come first: they never wait for the line.
    let _ = disable_raw_mode();
    let mut bytes = Vec::new();
    let _ = execute!(bytes, DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
    if let Ok(mut output) = output() {
        let _ = output.write_all(&bytes);
    }
}

/// A panic gives the terminal back before its message is printed.
fn arm_panic_hook() {
    static ARMED: Once = Once::new();
    ARMED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}
