//! The user's terminal while QEMU owns it.

use anyhow::{Context as _, Result, bail};
use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Puts the terminal's settings back when dropped: a QEMU that was killed cannot.
#[derive(Debug)]
pub struct Terminal {
    settings: String,
    pub size: Size,
}

impl Terminal {
    /// Takes note of the terminal's state.
    ///
    /// # Errors
    /// Standard input or output is no terminal.
    pub fn save() -> Result<Self> {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            bail!("there is no terminal to show the live view on; give holdup's arguments after --, or --guest-script");
        }
        let size = stty(&["size"])?;
        Ok(Self {
            settings: stty(&["-g"])?.trim().to_owned(),
            size: parse(&size).unwrap_or(Size { rows: 24, columns: 80 }),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The user can still type `reset`.
        let _ = stty(&[&self.settings]);
    }
}

fn stty(arguments: &[&str]) -> Result<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .output()
        .context("cannot start stty")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `stty size` prints. A terminal that does not know its size says `0 0`.
fn parse(text: &str) -> Option<Size> {
    let mut numbers = text
        .split_whitespace()
        .map(|word| word.parse::<u16>().ok().filter(|number| *number > 0));
    Some(Size {
        rows: numbers.next()??,
        columns: numbers.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_parsed_or_unknown() {
        assert_eq!(parse("50 132\n"), Some(Size { rows: 50, columns: 132 }));
        for text in ["", "0 0", "50", "x 80", "99999 80"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
