//! Reading a log that programs go on writing: which entries are whole, which are still being written, which are gone.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::bpf::shared::SharedArray;

/// The reader's place in the log of one CPU.
///
/// A writer takes the next number, sets the entry's sequence number to 0, writes the entry, and sets the sequence number to the
/// number plus one. It may be stopped anywhere in between: by an interrupt, or with its CPU where that is a virtual one.
#[derive(Debug)]
pub struct Cursor {
    /// Entries that the log has room for.
    capacity: u64,
    /// Number to read next.
    next: u64,
}

/// The log, as it is at each call.
pub trait Log {
    /// What an entry says.
    type Entry;
    /// How many numbers have been taken.
    fn logged(&self) -> u64;
    /// Sequence number of the entry in this place.
    fn seq(&self, place: usize) -> Option<u64>;
    /// The entry in this place.
    fn entry(&self, place: usize) -> Option<Self::Entry>;
}

/// The part of one CPU in a log whose entries begin with their sequence numbers.
pub struct CpuLog<'a, C, E> {
    /// State of the CPUs.
    pub cpus: &'a SharedArray<C>,
    /// Word of a CPU's state that counts the numbers taken.
    pub logged_word: usize,
    /// Entries of all CPUs, those of each together.
    pub log: &'a SharedArray<E>,
    /// Entries of each.
    pub per_cpu: usize,
    /// Which CPU.
    pub cpu: usize,
}

impl<C, E> Log for CpuLog<'_, C, E>
where
    C: FromBytes + IntoBytes + Immutable + Copy,
    E: FromBytes + IntoBytes + Immutable + Copy,
{
    type Entry = E;

    fn logged(&self) -> u64 {
        self.cpus.word(self.cpu, self.logged_word).unwrap_or(0)
    }

    fn seq(&self, place: usize) -> Option<u64> {
        self.log.word(self.cpu * self.per_cpu + place, 0)
    }

    fn entry(&self, place: usize) -> Option<E> {
        self.log.get(self.cpu * self.per_cpu + place)
    }
}

impl Cursor {
    /// At the first entry of an empty log with room for `capacity` entries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1) as u64,
            next: 0,
        }
    }

    /// Gives every whole entry that is new, oldest first, up to one that is still being written or that is not taken (`false`): that
    /// one is for the next call. Returns how many were overwritten before they were read.
    pub fn read<L: Log>(&mut self, log: &L, mut take: impl FnMut(L::Entry) -> bool) -> u64 {
        let logged = log.logged();
        let mut lost = self.skip_overwritten(logged);
        while self.next < logged {
            let place = usize::try_from(self.next % self.capacity).unwrap_or(0);
            let (Some(before), Some(entry), Some(after)) = (log.seq(place), log.entry(place), log.seq(place)) else {
                break;
            };
            if before == self.next + 1 && after == before {
                if !take(entry) {
                    break;
                }
                self.next += 1;
                continue;
            }
            // Not whole: somebody writes there. If that is the writer of a later number, this one is gone; else it is to come.
            let gone = self.skip_overwritten(log.logged());
            if gone == 0 {
                break;
            }
            lost += gone;
        }
        lost
    }

    /// Goes to the oldest entry that later ones leave room for.
    fn skip_overwritten(&mut self, logged: u64) -> u64 {
        let oldest = logged.saturating_sub(self.capacity);
        let gone = oldest.saturating_sub(self.next);
        self.next += gone;
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A log of numbers: each entry is its own number.
    struct Numbers {
        logged: Cell<u64>,
        places: RefCell<Vec<(u64, u64)>>,
        /// Written once the reader has looked at a sequence number so many times.
        meanwhile: Cell<Option<(u32, u64)>>,
    }

    impl Numbers {
        fn new(capacity: usize) -> Self {
            Self {
                logged: Cell::new(0),
                places: RefCell::new(vec![(0, 0); capacity]),
                meanwhile: Cell::new(None),
            }
        }

        fn begin(&self) -> u64 {
            let number = self.logged.get();
            self.logged.set(number + 1);
            number
        }

        fn clear(&self, number: u64) {
            self.write(number, (0, number));
        }

        fn end(&self, number: u64) {
            self.write(number, (number + 1, number));
        }

        fn write(&self, number: u64, what: (u64, u64)) {
            let mut places = self.places.borrow_mut();
            let place = number as usize % places.len();
            places[place] = what;
        }

        fn log(&self, count: u64) {
            for _ in 0..count {
                let number = self.begin();
                self.end(number);
            }
        }
    }

    impl Log for Numbers {
        type Entry = u64;

        fn logged(&self) -> u64 {
            self.logged.get()
        }

        fn seq(&self, place: usize) -> Option<u64> {
            let seq = self.places.borrow()[place].0;
            match self.meanwhile.take() {
                Some((0, count)) => self.log(count),
                Some((looks, count)) => self.meanwhile.set(Some((looks - 1, count))),
                None => {}
            }
            Some(seq)
        }

        fn entry(&self, place: usize) -> Option<u64> {
            Some(self.places.borrow()[place].1)
        }
    }

    fn read(cursor: &mut Cursor, log: &Numbers) -> (Vec<u64>, u64) {
        let mut seen = Vec::new();
        let lost = cursor.read(log, |number| {
            seen.push(number);
            true
        });
        (seen, lost)
    }

    #[test]
    fn what_is_not_taken_comes_again() {
        let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
        log.log(3);
        let mut seen = Vec::new();
        let take = |number| {
            seen.push(number);
            number < 1
        };
        assert_eq!(cursor.read(&log, take), 0);
        assert_eq!(seen, [0, 1]);
        assert_eq!(read(&mut cursor, &log), (vec![1, 2], 0));
    }

    #[test]
    fn whole_entries_come_once_in_order() {
        let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
        assert_eq!(read(&mut cursor, &log), (vec![], 0));
        log.log(3);
        assert_eq!(read(&mut cursor, &log), (vec![0, 1, 2], 0));
        log.log(4);
        assert_eq!(read(&mut cursor, &log), (vec![3, 4, 5, 6], 0));
    }

    #[test]
    fn what_was_overwritten_is_counted() {
        let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
        log.log(7);
        assert_eq!(read(&mut cursor, &log), (vec![3, 4, 5, 6], 3));
    }

    /// On one CPU of an emulated machine the writer was stopped in the middle while another CPU read.
    #[test]
    fn an_entry_that_is_being_written_is_read_when_it_is_whole() {
        let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
        log.log(5);
        let number = log.begin();
        assert_eq!(read(&mut cursor, &log), (vec![2, 3, 4], 2), "the room of 1 is taken");
        log.clear(number);
        assert_eq!(read(&mut cursor, &log), (vec![], 0));
        log.end(number);
        assert_eq!(read(&mut cursor, &log), (vec![5], 0));
    }

    /// An interrupt logs while the entry of the thread below is half written.
    #[test]
    fn later_entries_wait_for_an_earlier_one() {
        let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
        let number = log.begin();
        log.log(2);
        assert_eq!(read(&mut cursor, &log), (vec![], 0));
        log.end(number);
        assert_eq!(read(&mut cursor, &log), (vec![0, 1, 2], 0));
    }

    #[test]
    fn an_entry_that_never_gets_whole_is_lost_when_its_room_is_taken() {
        let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
        log.begin();
        log.log(3);
        assert_eq!(read(&mut cursor, &log), (vec![], 0));
        log.log(1);
        assert_eq!(read(&mut cursor, &log), (vec![1, 2, 3, 4], 1));
    }

    #[test]
    fn entries_overwritten_while_they_are_read_are_counted_once() {
        for looks in 0..8 {
            let (log, mut cursor) = (Numbers::new(4), Cursor::new(4));
            log.log(4);
            log.meanwhile.set(Some((looks, 3)));
            let (mut seen, mut lost) = read(&mut cursor, &log);
            let (more, gone) = read(&mut cursor, &log);
            seen.extend(more);
            lost += gone;
            assert_eq!(seen.len() as u64 + lost, 7, "after {looks} looks: {seen:?}");
            assert!(seen.is_sorted(), "{seen:?}");
            assert!(seen.ends_with(&[4, 5, 6]), "{seen:?}");
        }
    }
}
