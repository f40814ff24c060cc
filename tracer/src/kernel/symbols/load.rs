//! Text to table.

use std::{collections::HashMap, fs, path::Path, sync::OnceLock};

use super::{Entry, Symbols, SymbolsError};

/// Longer names do not exist (KSYM_NAME_LEN is 512 since 6.1); the limit keeps a length in 16 bits.
const MAX_NAME: usize = 4096;

impl Symbols {
    /// Reads `/proc/kallsyms` or a copy of it.
    ///
    /// # Errors
    /// The file cannot be read, lists nothing, or hides its addresses.
    pub fn load(path: &Path) -> Result<Self, SymbolsError> {
        let bytes = fs::read(path).map_err(|source| SymbolsError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &bytes)
    }

    /// Reads the text of `/proc/kallsyms`: lines of `address letter name [module]`. `path` only names it in errors.
    ///
    /// # Errors
    /// The text lists nothing, or hides its addresses.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SymbolsError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(SymbolsError::TooLarge { path: path.to_owned() });
        }
        let mut table = Table::with_room_for(bytes.len());
        for line in bytes.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
            if table.add(line).is_none() {
                table.malformed += 1;
            }
        }
        if table.entries.is_empty() {
            return Err(SymbolsError::Empty {
                path: path.to_owned(),
                malformed: table.malformed,
            });
        }
        // Per-CPU symbols have small addresses and the first of them has zero, so one zero means nothing.
        if table.entries.iter().all(|e| e.address == 0) {
            return Err(SymbolsError::Hidden {
                path: path.to_owned(),
                symbols: table.entries.len(),
            });
        }
        Ok(table.finish())
    }
}

struct Table {
    text: String,
    entries: Vec<Entry>,
    modules: Vec<Box<str>>,
    module_numbers: HashMap<Box<str>, u16>,
    malformed: usize,
}

impl Table {
    fn with_room_for(bytes: usize) -> Self {
        // A line is 20 bytes and a name; names average 22.
        Self {
            text: String::with_capacity(bytes / 2),
            entries: Vec::with_capacity(bytes / 40),
            modules: Vec::new(),
            module_numbers: HashMap::new(),
            malformed: 0,
        }
    }

    fn add(&mut self, line: &[u8]) -> Option<()> {
        let (address, rest) = hex(line)?;
        let rest = str::from_utf8(rest.strip_prefix(b" ")?).ok()?;
        let mut letter_and_rest = rest.chars();
        let letter = letter_and_rest.next().filter(char::is_ascii_graphic)?;
        let mut fields = letter_and_rest.as_str().strip_prefix(' ')?.split_ascii_whitespace();
        let name = fields.next().filter(|n| n.len() <= MAX_NAME)?;
        let module = match fields.next() {
            Some(field) => self.module(field.strip_prefix('[')?.strip_suffix(']')?)?,
            None => 0,
        };
        let text_at = u32::try_from(self.text.len()).ok()?;
        self.text.push(letter);
        self.text.push_str(name);
        self.entries.push(Entry {
            address,
            text_at,
            text_len: u16::try_from(1 + name.len()).ok()?,
            module,
        });
        Some(())
    }

    fn module(&mut self, name: &str) -> Option<u16> {
        // Symbols of one module stand together.
        let newest = self.modules.last().map(|m| &**m);
        if newest == Some(name) {
            return u16::try_from(self.modules.len()).ok();
        }
        if let Some(&number) = self.module_numbers.get(name) {
            return Some(number);
        }
        let number = u16::try_from(self.modules.len() + 1).ok()?;
        self.modules.push(name.into());
        self.module_numbers.insert(name.into(), number);
        Some(number)
    }

    fn finish(mut self) -> Symbols {
        self.text.shrink_to_fit();
        self.entries.shrink_to_fit();
        let text = self.text;
        let letter_and_name = |e: &Entry| text.get(e.text_at as usize..).map(|t| t.split_at(e.text_len.into()).0);
        self.entries.sort_unstable_by_key(|e| e.address);
        // Few symbols share an address: only those need their names looked at.
        let mut start = 0;
        while let Some(first) = self.entries.get(start) {
            let address = first.address;
            let run = self
                .entries
                .iter()
                .skip(start)
                .take_while(|e| e.address == address)
                .count();
            if run > 1
                && let Some(same) = self.entries.get_mut(start..start + run)
            {
                same.sort_unstable_by_key(|e| (letter_and_name(e).map_or(0, preference), std::cmp::Reverse(e.text_at)));
            }
            start += run;
        }
        Symbols {
            text,
            entries: self.entries,
            modules: self.modules,
            malformed: self.malformed,
            by_base_name: OnceLock::new(),
        }
    }
}

/// How well a symbol serves as the name of its address, when several have it.
fn preference(letter_and_name: &str) -> u8 {
    let (letter, name) = letter_and_name.split_at(1);
    // Section bounds (`_stext`, `__entry_text_end`) and prologue padding name no object.
    if name.starts_with("__pfx_") || name.ends_with("text") || name.ends_with("_start") || name.ends_with("_end") {
        return 0;
    }
    // A global name is the one people know (`__x64_sys_read` rather than `__do_sys_read`).
    1 + u8::from(letter == letter.to_ascii_uppercase())
}

/// A hexadecimal number at the start of the line, and what follows it.
fn hex(line: &[u8]) -> Option<(u64, &[u8])> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at_checked(digits)?;
    if !(1..=16).contains(&digits) {
        return None;
    }
    let value = number.iter().fold(0u64, |v, &b| {
        v << 4 | u64::from((b as char).to_digit(16).unwrap_or_default())
    });
    Some((value, rest))
}
