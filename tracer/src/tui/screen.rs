//! The view's thread: draws pictures and answers keys.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use ratatui::crossterm::event;
use tokio::sync::mpsc::UnboundedSender;

use super::feed::{Request, Slot, Wake};
use super::state::{Effect, Ui};
use super::terminal::Taken;
use super::{Options, look};

/// How soon the input thread notices that it is no longer wanted.
const LOOK_UP_EVERY: Duration = Duration::from_millis(250);
/// Keys and pictures taken in before the next drawing, at most.
const BATCH: usize = 64;

/// Name of the view's thread, by which its CPU time can be told from the rest.
pub const THREAD: &str = "holdup-view";

/// A running view.
pub struct View {
    /// Gives one result when the view has ended and the terminal is given back; nothing when it panicked.
    pub ended: Receiver<Result<()>>,
}

impl View {
    /// Takes the terminal and starts the view.
    ///
    /// # Errors
    /// When the terminal or a thread cannot be had.
    pub fn start(
        options: &Options,
        (wake, wakes): (Sender<Wake>, Receiver<Wake>),
        slot: Arc<Slot>,
        ask: UnboundedSender<Request>,
    ) -> Result<Self> {
        let ui = Ui::new(look(options));
        let terminal = Taken::new(!options.no_mouse)?;
        let (end, ended) = mpsc::channel();
        let done = Arc::new(AtomicBool::new(false));
        read_input(wake, Arc::clone(&done))?;
        let work = move || {
            let mut view = Screen {
                ui,
                terminal,
                wakes,
                slot,
                ask,
            };
            let result = view.run();
            done.store(true, Ordering::Relaxed);
            // Gives the terminal back before anybody prints.
            drop(view);
            let _ = end.send(result);
        };
        thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(work)
            .context("starting the thread of the view")?;
        Ok(Self { ended })
    }
}

/// Reads the terminal on a thread of its own.
fn read_input(wake: Sender<Wake>, done: Arc<AtomicBool>) -> Result<()> {
    let read = move || {
        while !done.load(Ordering::Relaxed) {
            let next = match event::poll(LOOK_UP_EVERY) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = next.is_err();
            let sent = wake.send(next.map_or_else(Wake::InputFailed, Wake::Input));
            if failed || sent.is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("holdup-keys".to_owned())
        .spawn(read)
        .context("starting the thread that reads keys")?;
    Ok(())
}

struct Screen {
    ui: Ui,
    terminal: Taken,
    wakes: Receiver<Wake>,
    slot: Arc<Slot>,
    ask: UnboundedSender<Request>,
}

/// Whether the view goes on.
enum Next {
    Nothing,
    Draw,
    End,
}

impl Screen {
    fn run(&mut self) -> Result<()> {
        self.draw()?;
        while let Ok(first) = self.wakes.recv() {
            let batch: Vec<Wake> = iter::once(first).chain(self.wakes.try_iter().take(BATCH)).collect();
            let mut dirty = false;
            for wake in batch {
                match self.take(wake)? {
                    Next::Nothing => {}
                    Next::Draw => dirty = true,
                    Next::End => return Ok(()),
                }
            }
            if let Some(picture) = self.slot.take() {
                self.ui.show(picture);
                dirty = true;
            }
            if dirty {
                self.draw()?;
            }
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<()> {
        let ui = &mut self.ui;
        self.terminal
            .terminal
            .draw(|frame| ui.draw(frame.buffer_mut()))
            .context("drawing on the terminal")?;
        Ok(())
    }

    fn take(&mut self, wake: Wake) -> Result<Next> {
        let effect = match wake {
            Wake::Stop => return Ok(Next::End),
            // Taken from the slot when the whole batch is done.
            Wake::Picture => Effect::Nothing,
            Wake::Input(input) => self.ui.input(&input),
            Wake::InputFailed(error) => return Err(error).context("reading keys from the terminal"),
            Wake::Told(said) => {
                self.ui.told(said);
                Effect::Redraw
            }
            Wake::Continued => {
                self.terminal.take()?;
                Effect::Redraw
            }
        };
        Ok(match effect {
            Effect::Nothing => Next::Nothing,
            Effect::Redraw => Next::Draw,
            Effect::Quit => Next::End,
            Effect::Repaint => {
                self.terminal.repaint()?;
                Next::Draw
            }
            Effect::Suspend => {
                self.terminal.suspend(&self.wakes)?;
                Next::Draw
            }
            Effect::Ask(request) => {
                // The data side is gone only when we are about to be stopped.
                let _ = self.ask.send(request);
                Next::Draw
            }
        })
    }
}
