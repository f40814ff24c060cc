//! Lines to steps: words, fields, times and codes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as CodeError, StrDeserializer};

use super::names::Names;
use super::{Script, ScriptError, Step, statement};
use crate::event::{Body, Event};
use crate::ids::{Nanos, Timestamp};

/// The words of one line. Taking a word or field removes it, so that what is left over is an error.
pub struct Words<'a> {
    plain: std::vec::IntoIter<&'a str>,
    fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn split(line: &'a str) -> Result<Self, String> {
        let (mut plain, mut fields) = (Vec::new(), BTreeMap::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    if fields.insert(key, value).is_some() {
                        return Err(format!("field {key} is given twice"));
                    }
                }
                _ => plain.push(word),
            }
        }
        Ok(Self {
            plain: plain.into_iter(),
            fields,
        })
    }

    /// The next plain word.
    pub fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.plain.next().ok_or_else(|| format!("{what} is missing"))
    }

    /// The next plain word, if there is one.
    pub fn optional(&mut self) -> Option<&'a str> {
        self.plain.next()
    }

    /// All other plain words.
    pub fn rest(&mut self) -> Vec<&'a str> {
        self.plain.by_ref().collect()
    }

    /// All fields.
    pub fn fields(&mut self) -> BTreeMap<&'a str, &'a str> {
        std::mem::take(&mut self.fields)
    }

    /// A field as text.
    pub fn text(&mut self, key: &str) -> Option<&'a str> {
        self.fields.remove(key)
    }

    /// A field, parsed by `parse`.
    pub fn field<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        self.text(key)
            .map(parse)
            .transpose()
            .map_err(|e| format!("field {key}: {e}"))
    }

    fn finish(mut self) -> Result<(), String> {
        if let Some(word) = self.plain.next() {
            return Err(format!("unexpected word {word:?}"));
        }
        match self.fields.first_key_value() {
            Some((key, _)) => Err(format!("unknown field {key:?}")),
            None => Ok(()),
        }
    }
}

/// A number, decimal or with 0x.
pub fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let value = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let value = value.ok().and_then(|v| T::try_from(v).ok());
    value.ok_or_else(|| format!("{text:?} is not a number that fits"))
}

/// A duration or time: a number, which may have decimals, with ns, us, ms or s.
pub fn nanos(text: &str) -> Result<Nanos, String> {
    let wrong = || format!("{text:?} is no time; write it like 1.5s, 20ms, 3us or 7ns");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..) {
        Some("s") => 1_000_000_000,
        Some("ms") => 1_000_000,
        Some("us") => 1_000,
        Some("ns") => 1,
        _ => return Err(wrong()),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mut value = whole
        .parse::<u64>()
        .map_err(|_| wrong())?
        .checked_mul(unit)
        .ok_or_else(wrong)?;
    let mut scale = unit;
    for digit in part.chars() {
        scale /= 10;
        let digit = digit.to_digit(10).filter(|_| scale > 0).ok_or_else(wrong)?;
        value = value.checked_add(u64::from(digit) * scale).ok_or_else(wrong)?;
    }
    Ok(Nanos(value))
}

/// An instant.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    nanos(text).map(|n| Timestamp(n.0))
}

/// A code of the event vocabulary, by the name it has in JSON.
pub fn code<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    let deserializer: StrDeserializer<'de, CodeError> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|e| e.to_string())
}

/// `name(argument)` taken apart; without parentheses the argument is empty.
pub fn call(text: &str) -> Result<(&str, &str), String> {
    match text.split_once('(') {
        None => Ok((text, "")),
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(argument) => Ok((name, argument)),
            None => Err(format!("{text:?} lacks the closing parenthesis")),
        },
    }
}

/// State of the parser.
#[derive(Default)]
pub struct Parser {
    /// Declared names.
    pub names: Names,
    /// Time of the statement.
    pub now: Timestamp,
    steps: Vec<Step>,
}

impl Parser {
    /// Adds an event at the present time.
    pub fn emit(&mut self, body: Body) {
        self.steps.push(Step::Event(Event { time: self.now, body }));
    }

    /// Adds events.
    pub fn extend(&mut self, events: Vec<Event>) {
        self.steps.extend(events.into_iter().map(Step::Event));
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if let Some(expected) = line.strip_prefix('>') {
            let expected = expected.strip_prefix(' ').unwrap_or(expected);
            let Some(Step::Expect { text, .. }) = self.steps.last_mut() else {
                return Err("an expected line without `expect` before it".to_owned());
            };
            text.push_str(expected.trim_end());
            text.push('\n');
            return Ok(());
        }
        let line = line.split('#').next().unwrap_or_default();
        let mut words = Words::split(line)?;
        let Some(verb) = words.optional() else {
            return words.finish();
        };
        match verb {
            "at" => {
                let time = words.word("the time")?;
                self.now = match time.strip_prefix('+') {
                    Some(step) => self.now + nanos(step)?,
                    None => instant(time)?,
                };
            }
            "update" => self.steps.push(Step::Update),
            "expect" => self.steps.push(Step::Expect {
                text: String::new(),
                line: number,
            }),
            verb => statement::apply(self, verb, &mut words)?,
        }
        words.finish()
    }
}

/// Parses a scenario.
pub fn parse(text: &str) -> Result<Script, ScriptError> {
    let mut parser = Parser::default();
    for (i, line) in text.lines().enumerate() {
        let number = i + 1;
        parser
            .line(number, line)
            .map_err(|what| ScriptError { line: number, what })?;
    }
    Ok(Script { steps: parser.steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        assert_eq!(error("frobnicate"), "scenario line 1: unknown statement \"frobnicate\"");
        assert_eq!(
            error("\ntask a 1 a colour=red"),
            "scenario line 2: unknown field \"colour\""
        );
        assert_eq!(error("task a 1 a b"), "scenario line 1: unexpected word \"b\"");
        assert_eq!(error("gone x"), "scenario line 1: no task was declared as \"x\"");
        assert_eq!(
            error("at soon"),
            "scenario line 1: \"soon\" is no time; write it like 1.5s, 20ms, 3us or 7ns"
        );
        assert_eq!(
            error("> x"),
            "scenario line 1: an expected line without `expect` before it"
        );
        assert!(error("lock L futex").starts_with("scenario line 1: unknown variant `futex`, expected one of `mutex`"));
        assert_eq!(
            error("task a 1 a tgid=1 tgid=2"),
            "scenario line 1: field tgid is given twice"
        );
    }

    #[test]
    fn times_have_units_and_decimals() {
        assert_eq!(nanos("1.5s"), Ok(Nanos(1_500_000_000)));
        assert_eq!(nanos("0.25us"), Ok(Nanos(250)));
        for wrong in ["", "5", "1.5ns", "1..5s", "-1s", "99999999999999999s"] {
            assert!(nanos(wrong).is_err(), "{wrong}");
        }
    }
}
