//! Places in the source for the functions that a batch of events names.

use std::time::Duration;

use crate::event::{Body, CodeLine, Event, SymbolName};
use crate::ids::Timestamp;
use crate::kernel::lines::Lines;

/// Asks for places in the source, where that was wanted, and tells them as they come.
#[derive(Debug, Default)]
pub struct LineNames(Option<Lines>);

impl LineNames {
    /// With nothing to look them up, it tells nothing.
    #[must_use]
    pub fn new(lines: Option<Lines>) -> Self {
        Self(lines)
    }

    /// Asks for the functions that the events from index `from` name, and appends what has been found.
    pub fn announce(&mut self, from: usize, out: &mut Vec<Event>) {
        let Some(lines) = &mut self.0 else { return };
        let Some(time) = out.get(from..).and_then(|events| events.last()).map(|event| event.time) else {
            return;
        };
        for event in out.iter().skip(from) {
            // Only a call has a place: what is named by its entry stands on no stack.
            if let Body::Symbol(SymbolName {
                addr,
                offset: 1..,
                module,
                ..
            }) = &event.body
            {
                lines.ask(*addr, module.as_ref());
            }
        }
        out.extend(events(lines.take(), time));
    }

    /// Appends what was asked for and comes within this time; says how much did not.
    pub fn finish(&mut self, at_most: Duration, time: Timestamp, out: &mut Vec<Event>) -> usize {
        let Some(lines) = &mut self.0 else { return 0 };
        out.extend(events(lines.wait(at_most), time));
        lines.open()
    }
}

fn events(lines: Vec<CodeLine>, time: Timestamp) -> impl Iterator<Item = Event> {
    let event = move |line| Event {
        time,
        body: Body::CodeLine(line),
    };
    lines.into_iter().map(event)
}
