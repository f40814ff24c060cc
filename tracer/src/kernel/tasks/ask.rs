//! Questions that need one word of kernel memory after the other, put for many threads at a time.

use anyhow::Result;

use crate::kernel::stackscan::{Words, is_pointer};

/// Words that may depend on each other before a question is given up.
const MAX_DEPTH: usize = 192;
/// Words of a text fetched at a time.
const TEXT_WORDS: usize = 4;

/// Answers from the words that are there, and takes note of those that are not.
pub struct Asker<'w, 'm> {
    words: &'w Words<'m>,
    missing: Vec<u64>,
}

impl Asker<'_, '_> {
    /// The words at these places, fetched together. `None` as long as one is missing, and where one cannot be read.
    pub fn words<const N: usize>(&mut self, places: [u64; N]) -> Option<[u64; N]> {
        if !self.all_known(&places) {
            return None;
        }
        let mut values = [0; N];
        for (value, at) in values.iter_mut().zip(places) {
            *value = self.words.get(at)?;
        }
        Some(values)
    }

    /// The words at these places, fetched together; `None` inside for those that cannot be read.
    pub fn many(&mut self, places: &[u64]) -> Option<Vec<Option<u64>>> {
        let known = self.all_known(places);
        known.then(|| places.iter().map(|&at| self.words.get(at)).collect())
    }

    /// The answer to a part of the question, and whether words are missing for it: other parts can be asked meanwhile, so that what
    /// all of them need is fetched together.
    pub fn part<T>(&mut self, part: impl FnOnce(&mut Self) -> Option<T>) -> (Option<T>, bool) {
        let before = self.missing.len();
        let answer = part(self);
        (answer, self.missing.len() > before)
    }

    fn all_known(&mut self, places: &[u64]) -> bool {
        let before = self.missing.len();
        self.missing
            .extend(places.iter().filter(|&&at| !self.words.is_known(at)));
        self.missing.len() == before
    }

    /// The word at an offset of an object, where this kernel has that offset.
    pub fn field(&mut self, object: u64, offset: Option<u32>) -> Option<u64> {
        let [value] = self.words([object.wrapping_add(offset?.into())])?;
        Some(value)
    }

    /// As [`Asker::field`], if it is a pointer into kernel memory.
    pub fn pointer(&mut self, object: u64, offset: Option<u32>) -> Option<u64> {
        self.field(object, offset).filter(|&value| is_pointer(value))
    }

    /// The text at `at`, up to a NUL byte or `max` bytes. What cannot be printed is replaced.
    pub fn text(&mut self, at: u64, max: usize) -> Option<String> {
        let (first, skip) = (at & !7, (at & 7) as usize);
        let mut bytes: Vec<u8> = Vec::new();
        let mut next = first;
        let mut readable = true;
        while readable && bytes.len() < skip + max && !bytes.iter().skip(skip).any(|&byte| byte == 0) {
            let places: [u64; TEXT_WORDS] = std::array::from_fn(|n| next.wrapping_add(8 * n as u64));
            if !self.all_known(&places) {
                return None;
            }
            for at in places {
                match self.words.get(at) {
                    Some(word) => bytes.extend(word.to_ne_bytes()),
                    // Behind the end of a text there may be nothing to read.
                    None => {
                        readable = false;
                        break;
                    }
                }
            }
            next = next.wrapping_add(8 * TEXT_WORDS as u64);
        }
        let text = bytes.get(skip..)?;
        let end = text.iter().position(|&byte| byte == 0);
        // Cut off by what cannot be read: no text.
        let end = end.or_else(|| (text.len() >= max).then_some(max))?;
        let text = text.get(..end.min(max))?;
        let printed = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Some(String::from_utf8_lossy(text).chars().map(printed).collect())
    }
}

/// Puts the question for every subject until the words it needs are there: an answer given while one is missing does not count.
/// `None` where there is no answer.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn ask_all<S, A>(
    words: &mut Words<'_>,
    subjects: &[S],
    question: impl Fn(&S, &mut Asker<'_, '_>) -> Option<A>,
) -> Result<Vec<Option<A>>> {
    let mut answers: Vec<Option<A>> = subjects.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..subjects.len()).collect();
    for _ in 0..MAX_DEPTH {
        let mut missing = Vec::new();
        open.retain(|&at| {
            let mut ask = Asker {
                words,
                missing: Vec::new(),
            };
            let answer = subjects.get(at).and_then(|subject| question(subject, &mut ask));
            if ask.missing.is_empty() {
                if let Some(place) = answers.get_mut(at) {
                    *place = answer;
                }
                return false;
            }
            missing.append(&mut ask.missing);
            true
        });
        if open.is_empty() {
            break;
        }
        words.fetch(missing)?;
    }
    Ok(answers)
}
