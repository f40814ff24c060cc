//! Progress on standard error. Standard output belongs to what the user asked for.

use std::time::Instant;

/// Says what is being done.
pub fn step(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// Says what is being done and, when dropped, how long it took if that was noticeable.
pub fn long(text: impl Into<String>) -> Long {
    let text = text.into();
    step(format!("{text} ..."));
    Long {
        text,
        started: Instant::now(),
    }
}

/// See [`long`].
pub struct Long {
    text: String,
    started: Instant,
}

impl Drop for Long {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f32();
        if seconds >= 2.0 {
            step(format!("{}: {seconds:.0} s", self.text));
        }
    }
}
