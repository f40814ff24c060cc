//! The history of a watched lock, from the events of a capture: whether it contradicts itself, or the waits that ended.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One hold: who, how, from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub tid: u64,
    pub shared: bool,
    pub from: u64,
    pub to: u64,
}

/// What the events tell of one lock.
#[derive(Debug, Default)]
pub struct History {
    /// The holds, by their end.
    pub holds: Vec<Hold>,
    /// Waits that ended: who, and when.
    pub waits: Vec<(u64, u64)>,
    /// Stacks of all acquisitions and releases: innermost function of the module among its frames, how often.
    pub sites: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Act {
    time: u64,
    number: usize,
    released: bool,
    shared: bool,
    tid: u64,
}

/// Reads `holdup export --format jsonl`.
///
/// # Errors
/// When a history contradicts itself: two have it at once who exclude each other, somebody gives back what he has not, or keeps it
/// to the end.
pub fn history(events: &str, lock: &str) -> Result<History> {
    let mut history = History::default();
    let mut acts: Vec<Act> = Vec::new();
    let mut stacks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut symbols: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let mut seen: Vec<String> = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (number, line) in events.lines().enumerate() {
        let event: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let time = event["time"].as_u64().context("an event without a time")?;
        let body = &event["body"];
        let tid = |actor: &Value| {
            actor["Task"]["tid"]
                .as_u64()
                .with_context(|| format!("not by a thread: {line}"))
        };
        let (watched, end) = (&body["Watch"], &body["WaitEnd"]);
        if watched["lock"] == lock {
            acts.push(Act {
                time,
                number,
                released: watched["act"] == "released",
                shared: watched["mode"] == "shared",
                tid: tid(&watched["by"])?,
            });
            seen.push(text(&watched["stack"]));
        } else if end["lock"] == lock {
            history.waits.push((tid(&end["waiter"])?, time));
        } else if let Some(frames) = body["Stack"]["frames"].as_array() {
            stacks.insert(text(&body["Stack"]["id"]), frames.iter().map(text).collect());
        } else if body["Symbol"].is_object() {
            let symbol = &body["Symbol"];
            let ours = symbol["module"] == "lockfault";
            symbols.insert(text(&symbol["addr"]), (text(&symbol["name"]), ours));
        }
    }
    acts.sort_by_key(|act| (act.time, act.number));
    history.holds = holds(&acts)?;
    for id in seen {
        let frames = stacks.get(&id).with_context(|| format!("no stack {id:?}"))?;
        let ours = frames
            .iter()
            .filter_map(|frame| symbols.get(frame))
            .find(|(_, ours)| *ours);
        let (name, _) = ours.with_context(|| format!("stack {id} shows nothing of the module: {frames:?}"))?;
        *history.sites.entry(name.clone()).or_default() += 1;
    }
    Ok(history)
}

fn holds(acts: &[Act]) -> Result<Vec<Hold>> {
    let mut holds = Vec::new();
    let mut held: Vec<Hold> = Vec::new();
    for act in acts {
        let own = held.iter().position(|h| h.tid == act.tid && h.shared == act.shared);
        match (act.released, own) {
            (true, Some(own)) => holds.push(Hold {
                to: act.time,
                ..held.remove(own)
            }),
            (false, None) if held.iter().all(|h| h.shared && act.shared) => held.push(Hold {
                tid: act.tid,
                shared: act.shared,
                from: act.time,
                to: u64::MAX,
            }),
            _ => bail!("{act:?}, when {held:?} held it"),
        }
    }
    ensure!(held.is_empty(), "{held:?} never released it");
    Ok(holds)
}

impl History {
    /// Whether every wait fits the holds: who waited held it next, and from the end of the wait to then nobody else did whom that
    /// excludes.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn consistent(&self) -> Result<()> {
        ensure!(!self.waits.is_empty(), "a storm without a wait");
        let mut by_begin = self.holds.clone();
        by_begin.sort_by_key(|hold| hold.from);
        for &(tid, end) in &self.waits {
            let own = by_begin.iter().find(|hold| hold.tid == tid && hold.from >= end);
            let own = own.with_context(|| format!("{tid} got it at {end} and never held it"))?;
            let other = |hold: &&Hold| hold.tid != tid && !(hold.shared && own.shared);
            let between = by_begin.iter().filter(other).find(|h| h.from < own.from && h.to > end);
            if let Some(between) = between {
                bail!(
                    "{tid} got it at {end} and held it from {} on, when {between:?} held it",
                    own.from
                );
            }
        }
        Ok(())
    }

    /// Holds for reading and others, by thread.
    pub fn counts(&self) -> BTreeMap<u64, (u64, u64)> {
        let mut counts: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for hold in &self.holds {
            let (shared, exclusive) = counts.entry(hold.tid).or_default();
            *if hold.shared { shared } else { exclusive } += 1;
        }
        counts
    }

    /// Whether several readers ever had it at the same time.
    pub fn shared_by_several(&self) -> bool {
        let readers = || self.holds.iter().filter(|hold| hold.shared);
        let begins: BTreeSet<(u64, u64)> = readers().map(|hold| (hold.from, hold.tid)).collect();
        readers().any(|hold| {
            let mut inside = begins.range((hold.from, 0)..(hold.to, 0));
            inside.any(|&(_, tid)| tid != hold.tid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: u64, body: &str) -> String {
        format!("{{\"time\":{time},\"body\":{body}}}\n")
    }

    fn act(time: u64, act: &str, tid: u32, mode: &str) -> String {
        line(
            time,
            &format!(
                "{{\"Watch\":{{\"lock\":\"0x10\",\"act\":\"{act}\",\"mode\":\"{mode}\",\"stack\":\"0x5\",\
                 \"by\":{{\"Task\":{{\"tid\":{tid}}}}}}}}}"
            ),
        )
    }

    const STACK: &str = "{\"time\":1,\"body\":{\"Stack\":{\"id\":\"0x5\",\"frames\":[\"0x1\",\"0x2\"]}}}\n\
        {\"time\":1,\"body\":{\"Symbol\":{\"addr\":\"0x1\",\"name\":\"mutex_lock\",\"module\":null}}}\n\
        {\"time\":1,\"body\":{\"Symbol\":{\"addr\":\"0x2\",\"name\":\"take\",\"module\":\"lockfault\"}}}\n";

    fn of(acts: &[(u64, &str, u32, &str)]) -> Result<History> {
        let lines: String = acts
            .iter()
            .map(|&(time, what, tid, mode)| act(time, what, tid, mode))
            .collect();
        history(&(STACK.to_owned() + &lines), "0x10")
    }

    const WHOLE: [(u64, &str, u32, &str); 4] = [
        (10, "acquired", 1, "exclusive"),
        (20, "released", 1, "exclusive"),
        (30, "acquired", 2, "exclusive"),
        (40, "released", 2, "exclusive"),
    ];

    #[test]
    fn a_history_that_contradicts_itself_is_refused() {
        let whole = of(&WHOLE).unwrap();
        assert_eq!(whole.counts(), [(1, (0, 1)), (2, (0, 1))].into());
        assert_eq!(whole.sites, [("take".to_owned(), 4)].into());
        assert!(history(STACK, "0x10").unwrap().holds.is_empty());
        assert!(of(&[(10, "acquired", 1, "exclusive"), (20, "acquired", 2, "exclusive")]).is_err());
        assert!(of(&[(10, "acquired", 1, "exclusive"), (20, "acquired", 2, "shared")]).is_err());
        assert!(of(&[(10, "acquired", 1, "exclusive"), (20, "released", 2, "exclusive")]).is_err());
        assert!(of(&[(10, "acquired", 1, "shared"), (20, "released", 1, "exclusive")]).is_err());
        assert!(of(&WHOLE[..1]).is_err(), "never released");
        let without =
            STACK.replace("lockfault", "other") + &act(10, "acquired", 1, "shared") + &act(11, "released", 1, "shared");
        assert!(history(&without, "0x10").is_err(), "nothing of the module");
    }

    #[test]
    fn readers_share() {
        let readers = [
            (10, "acquired", 1, "shared"),
            (12, "acquired", 2, "shared"),
            (14, "released", 1, "shared"),
            (16, "released", 2, "shared"),
        ];
        let both = of(&readers).unwrap();
        assert!(both.shared_by_several());
        assert_eq!(both.counts(), [(1, (1, 0)), (2, (1, 0))].into());
        assert!(!of(&WHOLE).unwrap().shared_by_several());
    }

    #[test]
    fn a_wait_must_fit_the_holds() {
        let with = |waits: &[(u64, u64)]| History {
            waits: waits.to_vec(),
            ..of(&WHOLE).unwrap()
        };
        assert!(with(&[(2, 25)]).consistent().is_ok());
        assert!(with(&[(2, 15)]).consistent().is_err(), "in the middle of a hold");
        assert!(with(&[(1, 25)]).consistent().is_err(), "never held it after");
        assert!(with(&[]).consistent().is_err());
        let mut late = with(&[(1, 5)]);
        assert!(late.consistent().is_ok());
        late.holds[1].from = 8;
        assert!(late.consistent().is_err(), "another one held it in between");
    }
}
