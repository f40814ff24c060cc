//! A capture as a source of the view: played, stopped, searched, rewound.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::source::{Control, Playback, Source};
use crate::ids::{Nanos, Timestamp};
use crate::pipeline::Pipeline;
use crate::player::{Player, Reached};

/// Events played before keys get a turn.
const BATCH: usize = 4096;
/// Time between two looks at the clock while playing.
const TICK: Duration = Duration::from_millis(20);
/// Real time, in hundredths.
const REAL_TIME: u32 = 100;
/// Speeds, in hundredths of real time. A list, because halves of them are rounded: the way down must be the way up.
const SPEEDS: [u32; 13] = [
    6, 12, 25, 50, REAL_TIME, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600,
];

/// A capture that is being played.
#[derive(Debug)]
pub struct ReplaySource {
    player: Player,
    paused: bool,
    percent: u32,
    /// Playing was started or moved at this instant, at that time of the recording.
    since: (Instant, Timestamp),
}

impl ReplaySource {
    /// Plays from the first event on.
    #[must_use]
    pub fn new(player: Player) -> Self {
        let start = player.replay().span().map_or(player.now(), |(start, _)| start);
        Self {
            player,
            paused: false,
            percent: REAL_TIME,
            since: (Instant::now(), start),
        }
    }

    /// Up to where it should have been played by now.
    fn due(&self) -> Timestamp {
        let (instant, time) = self.since;
        let elapsed = u128::from(Nanos::from(instant.elapsed()).0) * u128::from(self.percent) / u128::from(REAL_TIME);
        time + Nanos(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Goes on from here at this speed.
    fn resume_at(&mut self, time: Timestamp, percent: u32) {
        self.since = (Instant::now(), time);
        self.percent = percent;
    }

    /// The speed so many steps further, at most the last one.
    fn speed(&self, by: isize) -> u32 {
        let at = SPEEDS.iter().position(|speed| *speed >= self.percent).unwrap_or(0);
        let to = at.saturating_add_signed(by).min(SPEEDS.len() - 1);
        SPEEDS.get(to).copied().unwrap_or(REAL_TIME)
    }

    /// Time up to which it has been played, also between two events.
    fn position(&self) -> Timestamp {
        let (start, end) = self
            .player
            .replay()
            .span()
            .unwrap_or((self.player.now(), self.player.now()));
        let position = if self.paused { self.since.1 } else { self.due() };
        position.max(self.player.now()).clamp(start, end.max(start))
    }

    fn pause(&mut self, at: Timestamp) {
        self.paused = true;
        self.since.1 = at;
    }

    /// To a time of the recording; what stood still stays so.
    fn seek(&mut self, time: Timestamp) -> Result<()> {
        let (start, end) = self
            .player
            .replay()
            .span()
            .unwrap_or((self.player.now(), self.player.now()));
        let time = time.clamp(start, end.max(start));
        self.player.seek(time)?;
        self.resume_at(time, self.percent);
        Ok(())
    }
}

impl Source for ReplaySource {
    async fn advance(&mut self) -> Result<()> {
        if self.paused {
            return std::future::pending().await;
        }
        let mut changes = Vec::new();
        match self.player.advance(self.due(), BATCH, &mut changes)? {
            Reached::Time => tokio::time::sleep(TICK).await,
            Reached::Most => tokio::task::yield_now().await,
            Reached::End => self.pause(self.player.now()),
        }
        Ok(())
    }

    fn pipeline(&self) -> &Pipeline {
        self.player.pipeline()
    }

    fn playback(&self) -> Option<Playback> {
        let position = self.position();
        let (start, end) = self.player.replay().span().unwrap_or((position, position));
        Some(Playback {
            paused: self.paused,
            percent: self.percent,
            start,
            position,
            end,
        })
    }

    fn control(&mut self, control: Control) -> Result<()> {
        let position = self.position();
        match control {
            Control::TogglePause if self.paused => {
                // At the end, play means from the beginning.
                if self.player.ended() {
                    self.seek(Timestamp(0))?;
                } else {
                    self.resume_at(position, self.percent);
                }
                self.paused = false;
            }
            Control::TogglePause => self.pause(position),
            Control::Faster => self.resume_at(position, self.speed(1)),
            Control::Slower => self.resume_at(position, self.speed(-1)),
            Control::StepToFinding => {
                self.player.next_finding()?;
                self.pause(self.player.now());
            }
            Control::SeekBy(seconds) => {
                let by = Nanos::from_secs(seconds.unsigned_abs());
                self.seek(if seconds < 0 { position - by } else { position + by })?;
            }
            Control::Rewind => self.seek(Timestamp(0))?,
        }
        Ok(())
    }
}
