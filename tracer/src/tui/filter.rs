//! The filter: words that must all occur, in any field or in a named one.

use std::fmt;

/// A field that a filter can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Thread name or id.
    Task,
    /// Name or address of a lock.
    Lock,
    /// Kind of a lock or finding.
    Kind,
    /// cgroup id.
    Cgroup,
}

const FIELDS: [(&str, Field); 4] = [
    ("task", Field::Task),
    ("lock", Field::Lock),
    ("kind", Field::Kind),
    ("cgroup", Field::Cgroup),
];

/// What the rows are reduced to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
    words: Vec<(Option<Field>, String)>,
}

impl Filter {
    /// From the text that was typed. A word of the form `task:X`, `lock:X`, `kind:X` or `cgroup:X` looks into that field only.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let word = |word: &str| {
            let lower = word.to_lowercase();
            let named = lower
                .split_once(':')
                .and_then(|(name, rest)| Some((FIELDS.iter().find(|(n, _)| *n == name)?.1, rest.to_owned())));
            match named {
                Some((field, rest)) => (Some(field), rest),
                None => (None, lower),
            }
        };
        Self {
            text: text.trim().to_owned(),
            words: text.split_whitespace().map(word).collect(),
        }
    }

    /// Lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a word looks into this field only.
    #[must_use]
    pub fn names(&self, field: Field) -> bool {
        self.words.iter().any(|(named, _)| *named == Some(field))
    }

    /// Without the words that look into this field only.
    #[must_use]
    pub fn without(&self, field: Field) -> Self {
        let words = self.words.iter().filter(|(named, _)| *named != Some(field));
        Self {
            text: self.text.clone(),
            words: words.cloned().collect(),
        }
    }

    /// Whether something with these fields is shown.
    #[must_use]
    pub fn matches(&self, fields: &Fields) -> bool {
        self.words.iter().all(|(field, word)| {
            let wanted = |f: Field| field.is_none_or(|field| field == f);
            fields
                .0
                .iter()
                .any(|(f, text)| wanted(*f) && text.contains(word.as_str()))
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The searchable texts of one row.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(Field, String)>);

impl Fields {
    /// Adds a text.
    pub fn add(&mut self, field: Field, text: impl fmt::Display) {
        self.0.push((field, text.to_string().to_lowercase()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_must_all_occur_each_in_its_field() {
        let mut fields = Fields::default();
        fields.add(Field::Task, "kworker/1:2 (215)");
        fields.add(Field::Lock, "mutex LF_AA");
        fields.add(Field::Cgroup, 7);
        for (filter, shown) in [
            ("", true),
            ("kworker", true),
            ("KWORKER lf_aa", true),
            ("task:215", true),
            ("lock:215", false),
            ("lock:lf_ cgroup:7", true),
            ("215 nothing", false),
            // Not a field's name: looked for as it stands.
            ("1:2", true),
            ("1:3", false),
        ] {
            assert_eq!(Filter::parse(filter).matches(&fields), shown, "{filter:?}");
        }
    }
}
