//! Colours and characters.
//!
//! Only the sixteen colours that every terminal has, on its own background; nothing is told by colour alone.

use ratatui::style::{Color, Modifier, Style};

/// Which colours are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Mono when `NO_COLOR` is set or the terminal has none, light when `COLORFGBG` says so, else dark.
    #[default]
    Auto,
    /// For a dark background.
    Dark,
    /// For a light background.
    Light,
    /// No colours.
    Mono,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing special.
    Text,
    /// Less important.
    Dim,
    /// Names and titles.
    Strong,
    /// Will not go on by itself; events were lost.
    Critical,
    /// Held up for long.
    Warning,
    /// Worth knowing.
    Info,
    /// All is well.
    Good,
    /// Can be followed with Enter.
    Link,
    /// Headings of columns and sections.
    Heading,
    /// The header's and the footer's bar.
    Bar,
    /// The pane that is shown.
    Active,
}

/// Colours and characters of one terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theme {
    palette: Palette,
    /// Characters to draw with.
    pub glyphs: &'static Glyphs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Palette {
    Dark,
    Light,
    Mono,
}

/// Characters to draw with.
#[derive(Debug, PartialEq, Eq)]
pub struct Glyphs {
    /// Only ASCII may reach the terminal.
    pub ascii: bool,
    /// Separates fields.
    pub dot: &'static str,
    /// Horizontal line.
    pub line: &'static str,
    /// Vertical line.
    pub bar: &'static str,
    /// A child with siblings after it, and the last child.
    pub branch: [&'static str; 2],
    /// Below a child with siblings after it, and below the last child.
    pub below: [&'static str; 2],
    /// First, middle and last member of a cycle.
    pub cycle: [&'static str; 3],
    /// A cycle of one.
    pub again: &'static str,
    /// Mark of something folded, and of something unfolded.
    pub fold: [&'static str; 2],
    /// Sorted upwards, downwards.
    pub sorted: [&'static str; 2],
    /// Mark of the selected row.
    pub cursor: &'static str,
    /// Mark of a pinned row.
    pub pin: &'static str,
    /// Sparkline from low to high.
    pub spark: &'static [&'static str],
    /// A cell of a bar.
    pub block: &'static str,
    /// Cut-off text.
    pub more: &'static str,
}

/// Box-drawing and block characters.
pub static UTF8: Glyphs = Glyphs {
    ascii: false,
    dot: " · ",
    line: "─",
    bar: "│",
    branch: ["├─ ", "└─ "],
    below: ["│  ", "   "],
    cycle: ["╭▶ ", "│  ", "╰─ "],
    again: "↻ ",
    fold: ["▸ ", "▾ "],
    sorted: ["▲", "▼"],
    cursor: "▌",
    pin: "◆",
    spark: &["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    block: "█",
    more: "…",
};

/// ASCII.
pub static ASCII: Glyphs = Glyphs {
    ascii: true,
    dot: " | ",
    line: "-",
    bar: "|",
    branch: ["|- ", "`- "],
    below: ["|  ", "   "],
    cycle: ["+> ", "|  ", "+- "],
    again: "@ ",
    fold: ["+ ", "- "],
    sorted: ["^", "v"],
    cursor: ">",
    pin: "*",
    spark: &["_", ".", "-", "=", "+", "*", "%", "#"],
    block: "#",
    more: "~",
};

impl Theme {
    /// The theme for a terminal, as the arguments and the environment describe it.
    #[must_use]
    pub fn choose(choice: Choice, ascii: bool, var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(set)
            .unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let utf8 = !ascii && (locale.contains("utf-8") || locale.contains("utf8"));
        let colourless = ["dumb", "vt100", "vt102", "vt220", "vt320"];
        let term = set("TERM").unwrap_or_default();
        // "foreground;background", sometimes with a word in between.
        let background = set("COLORFGBG").and_then(|v| v.rsplit(';').next().map(str::to_owned));
        let palette = match choice {
            Choice::Dark => Palette::Dark,
            Choice::Light => Palette::Light,
            Choice::Mono => Palette::Mono,
            Choice::Auto if set("NO_COLOR").is_some() || colourless.contains(&term.as_str()) => Palette::Mono,
            Choice::Auto if matches!(background.as_deref(), Some("7" | "15")) => Palette::Light,
            Choice::Auto => Palette::Dark,
        };
        Self {
            palette,
            glyphs: if utf8 { &UTF8 } else { &ASCII },
        }
    }

    /// How a piece of text looks.
    #[must_use]
    pub fn style(&self, role: Role) -> Style {
        let style = Style::new();
        match role {
            Role::Text => style,
            Role::Strong => style.add_modifier(Modifier::BOLD),
            Role::Active => style.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            Role::Bar => style.add_modifier(Modifier::REVERSED),
            Role::Heading => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            Role::Dim => self.colour(style.add_modifier(Modifier::DIM), None, None),
            Role::Critical => self.colour(
                style.add_modifier(Modifier::BOLD),
                Some(Color::LightRed),
                Some(Color::Red),
            ),
            Role::Warning => self.colour(
                style.add_modifier(Modifier::BOLD),
                Some(Color::Yellow),
                Some(Color::Magenta),
            ),
            Role::Info => self.colour(style, Some(Color::Cyan), Some(Color::Blue)),
            Role::Good => self.colour(style, Some(Color::Green), Some(Color::Green)),
            Role::Link => self.colour(
                style.add_modifier(Modifier::UNDERLINED),
                Some(Color::Cyan),
                Some(Color::Blue),
            ),
        }
    }

    /// How the selected row looks, on top of its roles.
    #[must_use]
    pub fn selected(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn colour(&self, style: Style, dark: Option<Color>, light: Option<Color>) -> Style {
        let colour = match self.palette {
            Palette::Dark => dark,
            Palette::Light => light,
            Palette::Mono => None,
        };
        colour.map_or(style, |colour| style.fg(colour))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(ascii: bool, vars: &[(&str, &str)]) -> Theme {
        Theme::choose(Choice::Auto, ascii, |name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn the_environment_decides_what_the_arguments_leave_open() {
        type Case = (&'static [(&'static str, &'static str)], Palette, bool);
        let cases: [Case; 8] = [
            (&[], Palette::Dark, true),
            (&[("LANG", "de_DE.UTF-8")], Palette::Dark, false),
            (&[("LANG", "C.utf8"), ("LC_ALL", "C")], Palette::Dark, true),
            (&[("LANG", "C.utf8"), ("LC_ALL", "")], Palette::Dark, false),
            (&[("NO_COLOR", "1")], Palette::Mono, true),
            (&[("NO_COLOR", "")], Palette::Dark, true),
            (&[("TERM", "vt220")], Palette::Mono, true),
            (&[("COLORFGBG", "0;default;15")], Palette::Light, true),
        ];
        for (vars, palette, ascii) in cases {
            let chosen = choose(false, vars);
            assert_eq!((chosen.palette, chosen.glyphs.ascii), (palette, ascii), "{vars:?}");
        }
        assert!(choose(true, &[("LANG", "C.UTF-8")]).glyphs.ascii);
    }

    #[test]
    fn ascii_is_ascii() {
        let g = &ASCII;
        let all = [g.dot, g.line, g.bar, g.again, g.cursor, g.pin, g.block, g.more];
        let arrays = [&g.branch[..], &g.below, &g.cycle, &g.fold, &g.sorted, g.spark];
        assert!(
            all.iter()
                .chain(arrays.into_iter().flatten())
                .all(|text| text.is_ascii())
        );
    }

    #[test]
    fn without_colours_no_role_has_one() {
        let theme = choose(false, &[("NO_COLOR", "1")]);
        for role in [
            Role::Critical,
            Role::Warning,
            Role::Info,
            Role::Good,
            Role::Link,
            Role::Dim,
        ] {
            let style = theme.style(role);
            assert_eq!((style.fg, style.bg), (None, None), "{role:?}");
        }
    }
}
