//! The interactive view: findings, wait-for graph, locks, tasks and CPUs on a terminal.
//!
//! Two threads share the work. The data side ([`feed`]) runs on the caller's task: it takes events in without ever waiting for the
//! terminal, and lays a finished [`Picture`] down for the view at most a few times a second. The view ([`screen`]) runs on a thread
//! of its own: it draws the newest picture when there is one, and answers keys at once. A slow terminal therefore costs
//! pictures, never events.
//!
//! [`state::Ui`] is the view without a terminal: it takes keys and pictures and draws into a buffer. It owns selection,
//! sort, filter and pause; everything else that is shown stands in the [`Report`](crate::report::Report).

pub mod feed;
pub mod filter;
pub mod input;
mod live;
pub mod panes;
pub mod save;
pub mod screen;
pub mod source;
pub mod state;
pub mod terminal;
pub mod theme;

mod draw;
mod footer;
mod header;
mod help;
mod prompt;
mod replay;
mod walk;
mod widgets;

use std::io::IsTerminal;

pub use feed::run;
pub use live::LiveSource;
pub use replay::ReplaySource;
pub use source::{Control, Look, Picture, Playback, Source, Vitals};
pub use state::Ui;

/// How the view looks.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Draw with ASCII characters only; this is also what a locale without UTF-8 gets.
    #[arg(long)]
    pub ascii: bool,
    /// Colours of the interactive view.
    #[arg(long, value_enum, default_value_t)]
    pub theme: theme::Choice,
    /// Leave the mouse to the terminal.
    #[arg(long)]
    pub no_mouse: bool,
}

/// Whether the view can be shown: somebody reads and types on a terminal.
#[must_use]
pub fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The theme for the arguments and the environment.
fn look(options: &Options) -> theme::Theme {
    let var = |name: &str| std::env::var(name).ok();
    theme::Theme::choose(options.theme, options.ascii, var)
}
