//! Captures of real kernels: a replay says what the live run said, and what ends a recording early costs a second at most.

use super::results::Output;
use super::{Steps, VmTest, WITHOUT_RT};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// What may be missing of a recording that was cut off.
const AT_MOST_LOST_NS: u64 = 1_000_000_000;

/// A shell command that returns once a file has this size; the step's time limit ends it otherwise.
pub fn grown(path: &str, bytes: usize) -> String {
    format!("until [ $(wc -c < {path}) -ge {bytes} ]; do sleep 0.05; done")
}

pub const TESTS: &[VmTest] = &[
    VmTest {
        name: "killed",
        kernels: WITHOUT_RT,
        group: "record",
        expects: &[],
        steps: |steps| {
            steps.start_attached(
                "live",
                &["record", "-o", "/out/killed.holdup", "--json", "--tuples", "--all"],
            );
            steps.trigger("contend-mutex ms=30000");
            steps.shell("grown", &grown("/out/killed.holdup", 20_000));
            steps.signal("live", "KILL");
            steps.wait("live");
            steps.holdup("replay", &["replay", "/out/killed.holdup", "--json", "--tuples"]);
            steps.done("contend-mutex");
        },
        check: |run| survived(run.output("live")?, run.output("replay")?),
    },
    VmTest {
        name: "full-disk",
        kernels: WITHOUT_RT,
        group: "record",
        expects: &[],
        steps: |steps| {
            steps.shell("mount", "mkdir -p /small && mount -t tmpfs -o size=32k tmpfs /small");
            let record = [
                "record",
                "-o",
                "/small/full.holdup",
                "--json",
                "--tuples",
                "--all",
                "--duration",
                "60",
            ];
            steps.start_attached("live", &record);
            steps.trigger("contend-rwsem ms=30000");
            steps.wait("live");
            steps.holdup("replay", &["replay", "/small/full.holdup", "--json", "--tuples"]);
            steps.done("contend-rwsem");
        },
        check: |run| {
            run.output("mount")?.exited_with(0)?;
            let live = run.output("live")?;
            live.exited_with(1)?;
            let said = live.stderr();
            ensure!(
                said.contains("No space left on device")
                    && said.contains("/small/full.holdup")
                    && said.contains("can be read"),
                "it does not say what happened: {said}"
            );
            let replay = run.output("replay")?;
            ensure!(
                !replay.stderr().contains("cut off"),
                "half a frame was left: {}",
                replay.stderr()
            );
            survived(live, replay)
        },
    },
    // Through pipes all the way, narrowed down to some tasks; SIGTERM ends it in good order.
    VmTest {
        name: "streamed",
        kernels: WITHOUT_RT,
        group: "record",
        expects: &[],
        steps: |steps| {
            let run = "sh -c 'echo $$ > /out/pid; exec holdup record -o - --all --only task:storm 2> /out/streamed.err' \
                       | tee /out/streamed.holdup | holdup replay - --json --tuples > /out/piped.jsonl";
            let compare = "holdup replay /out/streamed.holdup --json --tuples | cmp - /out/piped.jsonl \
                           && grep '\"evidence\":\"tracepoint\"' /out/piped.jsonl | grep -vc '\"comm\":\"lf_cmx_storm'; \
                           grep -c '\"event\":\"end\"' /out/piped.jsonl; cat /out/streamed.err >&2";
            let grown = grown("/out/streamed.holdup", 10_000);
            steps.shell(
                "streamed",
                &format!(
                    ": > /out/streamed.holdup; ({run}) & until grep -q attached /out/streamed.err; do sleep 0.05; done; \
                     echo 'contend-mutex ms=15000' > /proc/lockfault; \
                     {grown}; kill -TERM $(cat /out/pid); wait; {compare}"
                ),
            );
            steps.done("contend-mutex");
        },
        check: |run| {
            let streamed = run.output("streamed")?;
            streamed.exited_with(0)?;
            let said = streamed.stderr();
            ensure!(
                said.contains("holdup: recorded") && !said.contains("not in the capture"),
                "it did not end in good order: {said}"
            );
            let stdout = streamed.stdout();
            let counts: Vec<u64> = stdout.split_whitespace().flat_map(str::parse).collect();
            let &[others, count] = counts.as_slice() else {
                bail!("no counts, so the two replays differ: {stdout}");
            };
            ensure!(others == 0, "{others} waits of others than --only names");
            ensure!(count > 100, "only {count} waits came through");
            Ok(())
        },
    },
    // The last of its boot: whatever starts after it finds the deadlock, too.
    VmTest {
        name: "replay-is-live",
        kernels: WITHOUT_RT,
        group: "record",
        expects: &[],
        steps: |steps| {
            recorded(steps, "contend-rwsem ms=300", "json", &["--json", "--tuples", "--all"]);
            recorded(
                steps,
                "mutex-abba",
                "text",
                &["--text", "--tuples", "--until", "deadlock"],
            );
            for (label, file) in [("json-records", "json"), ("text-records", "text")] {
                let file = format!("/out/{file}.holdup");
                steps.holdup(label, &["export", &file, "--format", "records"]);
            }
            steps.holdup("json-events", &["export", "/out/json.holdup", "--format", "jsonl"]);
            steps.shell("mode", "stat -c '%a %n' /out/text.holdup /out/json.holdup");
            steps.holdup("report", &["report", "/out/text.holdup"]);
            steps.holdup(
                "graph",
                &["export", "/out/text.holdup", "--format", "dot", "--finding", "1"],
            );
            steps.holdup("missing", &["replay", "/no/such/file", "--text"]);
            steps.shell("pipe", "cat /out/text.holdup | holdup replay - --text --tuples");
        },
        check: |run| {
            for (name, code) in [("text", 3), ("json", 0)] {
                let (live, replay) = (run.output(name)?, run.output(&format!("{name}-replay"))?);
                live.exited_with(code)?;
                replay.exited_with(code)?;
                let (live, replay) = (findings(live), findings(replay));
                ensure!(live.len() > 3, "{name}: next to nothing was seen: {live:?}");
                ensure!(
                    live == replay,
                    "{name}: the replay differs\n-- live\n{live:#?}\n-- replay\n{replay:#?}"
                );
            }
            ensure!(
                run.output("pipe")?.stdout == run.output("text")?.stdout,
                "through a pipe it is another"
            );
            holds_records(run.output("json")?, run.output("json-records")?)?;
            same_ends(run.output("json")?, run.output("json-events")?)?;
            let pending = by_kind(run.output("text-records")?, "wait-pending")?;
            ensure!(pending.len() > 1, "no record of a wait that lasts: {pending:?}");
            let mode = run.output("mode")?.stdout().into_owned();
            ensure!(
                mode.lines().all(|line| line.starts_with("600 ")),
                "others can read it: {mode}"
            );
            let report = run.output("report")?;
            report.exited_with(3)?;
            report.stdout_has(&format!("kernel {}", run.release))?;
            report.stdout_has("cycle [critical, proven]")?;
            let graph = run.output("graph")?;
            graph.exited_with(0)?;
            for text in ["digraph holdup", "lockfault_abba_a", "lockfault_abba_b", "held by"] {
                graph.stdout_has(text)?;
            }
            run.output("missing")?.exited_with(1)
        },
    },
];

/// Records a scenario and replays it.
fn recorded(steps: &mut Steps, scenario: &str, label: &str, arguments: &[&str]) {
    let file = format!("/out/{label}.holdup");
    steps.start_attached(label, &[&["record", "-o", &file], arguments].concat());
    steps.trigger(scenario);
    let ends = scenario.contains("ms=");
    if ends {
        steps.done(scenario);
        steps.signal(label, "INT");
    }
    steps.wait(label);
    let shown: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|argument| ["--text", "--json", "--tuples"].contains(argument))
        .collect();
    steps.holdup(
        &format!("{label}-replay"),
        &[&["replay", &file], shown.as_slice()].concat(),
    );
}

/// The lines of a run, without the report at the end, which names its source.
fn findings(output: &Output) -> Vec<String> {
    let report = |line: &str| line.starts_with("{\"schema_version\":1,\"type\":\"report\"");
    output
        .stdout()
        .lines()
        .filter(|line| !report(line))
        .map(str::to_owned)
        .collect()
}

/// Demands that a capture has the record of the end of each wait for a rwsem that was printed live, and of no other end.
fn holds_records(live: &Output, records: &Output) -> Result<()> {
    let lines = json(live)?;
    let tuples = |event: &'static str| lines.iter().filter(move |line| is(line, "event", event));
    let rwsems: BTreeSet<&str> = tuples("wait")
        .filter(|line| is(line, "kind", "rwsem"))
        .filter_map(|line| line.get("lock")?.as_str())
        .collect();
    let time = |line: &Value| line.get("time")?.as_u64();
    let ends: BTreeSet<u64> = tuples("end").filter_map(time).collect();
    let on_rwsems = tuples("end").filter(|line| {
        let lock = line.get("lock").and_then(Value::as_str);
        lock.is_some_and(|lock| rwsems.contains(lock))
    });
    let wanted: BTreeSet<u64> = on_rwsems.filter_map(time).collect();
    let stored = by_kind(records, "wait-end")?;
    ensure!(wanted.len() > 10, "only {} waits for rwsems", wanted.len());
    let lacking: Vec<&u64> = wanted.difference(&stored).collect();
    ensure!(
        lacking.is_empty(),
        "{} of {} ends have no record: {lacking:?}",
        lacking.len(),
        wanted.len()
    );
    let strange: Vec<&u64> = stored.difference(&ends).collect();
    ensure!(strange.is_empty(), "records of ends that nobody saw: {strange:?}");
    Ok(())
}

/// Demands that the events of a capture have exactly the ends of waits that were printed live.
fn same_ends(live: &Output, events: &Output) -> Result<()> {
    events.exited_with(0)?;
    let printed = json(live)?
        .iter()
        .filter(|line| is(line, "event", "end"))
        .filter_map(|line| Some((line.get("time")?.as_u64()?, line.get("waited_ns")?.as_u64()?)))
        .collect::<Vec<_>>();
    let stored = json(events)?
        .iter()
        .filter_map(|line| {
            let body = line.get("body")?.get("WaitEnd")?;
            Some((line.get("time")?.as_u64()?, body.get("waited")?.as_u64()?))
        })
        .collect::<Vec<_>>();
    ensure!(
        printed == stored && !stored.is_empty(),
        "{} ends were printed, {} are in the capture",
        printed.len(),
        stored.len()
    );
    Ok(())
}

/// Times of the records of a kind; every line must be a record.
fn by_kind(records: &Output, kind: &str) -> Result<BTreeSet<u64>> {
    records.exited_with(0)?;
    let lines = json(records)?;
    ensure!(
        lines.iter().all(|line| is(line, "type", "record")),
        "other lines among the records"
    );
    let of_kind = lines.iter().filter(|line| is(line, "kind", kind));
    Ok(of_kind.filter_map(|line| line.get("time_ns")?.as_u64()).collect())
}

fn json(output: &Output) -> Result<Vec<Value>> {
    let lines = output.stdout();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}

fn is(line: &Value, field: &str, value: &str) -> bool {
    line.get(field).and_then(Value::as_str) == Some(value)
}

/// Demands that a replay has everything that was printed live but for the last second.
///
/// # Errors
/// Something else is missing, or was never there.
pub fn survived(live: &Output, replay: &Output) -> Result<()> {
    replay.exited_with(0)?;
    let mut printed = findings(live);
    // The last line may have been cut in the middle.
    if !live.stdout.ends_with(b"\n") {
        printed.pop();
    }
    let replayed = findings(replay);
    let kept = printed
        .iter()
        .zip(&replayed)
        .take_while(|(live, replay)| live == replay)
        .count();
    ensure!(
        kept > 100,
        "only {kept} lines are the same, of {} live and {} replayed ones",
        printed.len(),
        replayed.len()
    );
    // The last findings of a replay come from its end; all tuples before must be those of the live run.
    let differs = |line: &&String| line.contains("\"type\":\"tuple\"");
    let surplus = replayed.get(kept..).unwrap_or_default();
    ensure!(
        kept == printed.len() || !surplus.iter().any(|line| differs(&line)),
        "line {kept} differs\n-- live\n{:?}\n-- replay\n{:?}",
        printed.get(kept),
        surplus.first()
    );
    let last = printed
        .iter()
        .filter_map(|line| ended(line))
        .max()
        .context("no wait ended")?;
    let lost = printed.get(kept..).unwrap_or_default();
    let first_lost = lost.iter().filter_map(|line| ended(line)).min();
    let seconds = first_lost.map_or(0, |first| last.saturating_sub(first));
    ensure!(
        seconds <= AT_MOST_LOST_NS,
        "the last {seconds} ns are lost: {} lines of {}",
        lost.len(),
        printed.len()
    );
    Ok(())
}

/// Time of a line that tells the end of a wait: those come in the order of their times.
fn ended(line: &str) -> Option<u64> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line.get("event")?.as_str()? == "end").then(|| line.get("time")?.as_u64())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtask_guest::message::{Exit, Status};

    fn output(lines: &[String]) -> Output {
        let stdout = lines.concat().into_bytes();
        let exit = Some(Exit {
            status: Status::Code(0),
            elapsed_ms: 1,
        });
        Output {
            stdout,
            stderr: Vec::new(),
            exit,
        }
    }

    fn lines(count: u64) -> Vec<String> {
        let line = |n| format!("{{\"type\":\"tuple\",\"event\":\"end\",\"time\":{}}}\n", n * 10_000_000);
        (0..count).map(line).collect()
    }

    #[test]
    fn a_second_may_be_lost_and_no_more() {
        let live = output(&lines(1000));
        assert!(survived(&live, &live).is_ok());
        assert!(survived(&live, &output(&lines(900))).is_ok());
        assert!(survived(&live, &output(&lines(890))).is_err(), "more than a second");
        assert!(survived(&live, &output(&[])).is_err());
        let mut changed = lines(950);
        changed[940] = changed[941].clone();
        assert!(survived(&live, &output(&changed)).is_err(), "another line");
        // What was written but could not be printed any more is no fault.
        assert!(survived(&output(&lines(990)), &live).is_ok());
    }
}
