//! Stacks in user space.

use super::parse::{Parser, Words, number};
use crate::event::{Body, Place, UserFile, UserFrame, UserFunction, UserStack};

/// `user-stack TASK switches=N whole=yes FRAME...`, innermost first.
pub fn apply(p: &mut Parser, words: &mut Words<'_>) -> Result<(), String> {
    let task = p.names.task(words.word("the task")?)?.task.key;
    let switches = words.field("switches", number)?.unwrap_or(0);
    let whole = words
        .field("whole", |text| Ok::<_, String>(text == "yes"))?
        .unwrap_or(false);
    let frames = words
        .rest()
        .iter()
        .map(|word| user_frame(word))
        .collect::<Result<_, _>>()?;
    p.emit(Body::UserStack(UserStack {
        task,
        switches,
        whole,
        frames,
    }));
    Ok(())
}

/// `FUNCTION+OFFSET@FILE:OFFSET`, or less of it, or an address.
fn user_frame(word: &str) -> Result<UserFrame, String> {
    let (function, file) = word
        .split_once('@')
        .map_or((word, None), |(function, file)| (function, Some(file)));
    let file = file.and_then(|file| file.rsplit_once(':')).map(|(path, offset)| {
        number(offset).map(|offset| UserFile {
            path: path.into(),
            build_id: None,
            offset,
        })
    });
    let (address, function) = match function.split_once('+') {
        Some((name, offset)) => (
            0,
            Some(UserFunction {
                name: name.into(),
                offset: number(offset)?,
            }),
        ),
        None if function.is_empty() => (0, None),
        None => (number(function)?, None),
    };
    Ok(UserFrame {
        address,
        file: file.transpose()?,
        function,
        place: Place::default(),
        inlined: Vec::new(),
    })
}
