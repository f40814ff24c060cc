//! Everything about one selected thing.

use super::{Subject, Who, lock_detail, words};
use crate::diagnosis::{Finding, Link, Name, On, Party, Source};
use crate::event::TaskState;
use crate::ids::{CgroupId, CpuId, StackId};
use crate::report::{Report, TaskRow};
use crate::tui::theme::{Glyphs, Role};
use crate::tui::widgets::{Text, count, number};
use crate::view::stacks::{self, Depth};
use crate::view::units::{duration, instant};

/// Waiters listed one by one.
pub(super) const MAX_LISTED: usize = 200;

/// A line of a detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How far in it stands.
    pub indent: u16,
    /// What it says.
    pub text: Text,
    /// Where it leads.
    pub link: Option<Subject>,
}

/// A page under construction.
pub(super) struct Page {
    pub lines: Vec<Line>,
    depth: Depth,
}

impl Page {
    pub fn text(&mut self, indent: u16, text: Text) {
        self.lines.push(Line {
            indent,
            text,
            link: None,
        });
    }

    pub fn plain(&mut self, text: impl Into<String>) {
        self.text(2, Text::plain(text));
    }

    pub fn heading(&mut self, text: impl Into<String>) {
        self.text(0, Text::of(Role::Strong, text));
    }

    pub fn link(&mut self, text: impl Into<String>, to: Subject) {
        self.lines.push(Line {
            indent: 2,
            text: Text::of(Role::Link, text),
            link: Some(to),
        });
    }

    pub fn stack(&mut self, report: &Report, stack: StackId) {
        match report.stacks.get(&stack) {
            None if stack.0 == 0 => self.text(4, super::dim("no stack was taken")),
            None => self.text(4, super::dim("its stack is no longer known")),
            Some(frames) => {
                let hidden = frames.iter().filter(|frame| frame.machinery).count();
                if hidden > 0 && self.depth == Depth::Caller {
                    let what = count(hidden, "frame");
                    self.text(4, super::dim(format!("{what} of lock and scheduler (x shows)")));
                }
                for line in stacks::lines(frames, self.depth) {
                    self.text(4, Text::plain(line));
                }
            }
        }
    }
}

/// The title of something.
#[must_use]
pub fn title(report: &Report, subject: &Subject) -> String {
    match subject {
        Subject::Finding(id) => find(report, id).map_or_else(|| "finding".to_owned(), |(f, _)| f.kind.to_string()),
        Subject::Task(who) => name_of(report, *who).map_or_else(|| "task".to_owned(), ToString::to_string),
        Subject::Lock(key) => {
            let row = report.locks.iter().find(|l| l.lock.key() == *key);
            row.map_or_else(|| format!("lock {}", key.addr), |row| words::lock(&row.lock))
        }
        Subject::Cpu(cpu) => format!("CPU {cpu}"),
        Subject::Unexplained => "waiting, not explained".to_owned(),
        Subject::Run => "this run".to_owned(),
        Subject::Fold(..) => "folded waiters".to_owned(),
    }
}

/// Everything about something.
#[must_use]
pub fn lines(report: &Report, subject: &Subject, glyphs: &Glyphs, depth: Depth) -> Vec<Line> {
    let mut page = Page {
        lines: Vec::new(),
        depth,
    };
    match subject {
        Subject::Finding(id) => match find(report, id) {
            Some((finding, closed)) => self::finding(&mut page, report, finding, closed),
            None => page.plain("This finding is closed, and no longer among the recently closed ones."),
        },
        Subject::Task(who) => match report.tasks.iter().find(|t| Who::from(&t.name) == *who) {
            Some(task) => self::task(&mut page, report, task),
            None => gone(&mut page, report, *who),
        },
        Subject::Lock(key) => lock_detail::lock(&mut page, report, *key, glyphs),
        Subject::Cpu(cpu) => super::cpus::detail(&mut page, report, *cpu),
        Subject::Unexplained => super::run::unexplained(&mut page, report),
        Subject::Run => super::run::run(&mut page, report),
        Subject::Fold(..) => page.plain("Press x to fold or unfold them."),
    }
    page.lines
}

/// A finding that is open or was closed recently; and whether it is closed, since when.
fn find<'r>(
    report: &'r Report,
    id: &crate::diagnosis::FindingId,
) -> Option<(&'r Finding, Option<&'r crate::report::ClosedRow>)> {
    let open = report.findings.iter().find(|f| f.id == *id).map(|f| (f, None));
    open.or_else(|| {
        let closed = report.closed.iter().find(|c| c.finding.id == *id)?;
        Some((&closed.finding, Some(closed)))
    })
}

fn finding(page: &mut Page, report: &Report, finding: &Finding, closed: Option<&crate::report::ClosedRow>) {
    page.text(0, Text::of(Role::Strong, finding.title.clone()));
    let age = closed.map_or_else(|| finding.age(report.time), |c| c.lasted);
    let mut facts = Text::of(words::severity(finding.severity), finding.severity.to_string())
        .and(Role::Text, ", ")
        .and(words::certainty(finding.certainty), finding.certainty.to_string())
        .and(
            Role::Text,
            format!(
                "; since {}, for {}",
                instant(finding.since),
                words::at_least(age, finding.since_is_lower_bound)
            ),
        );
    if let Some(closed) = closed {
        facts = facts.and(Role::Good, format!("; closed at {}", instant(closed.closed)));
    }
    page.text(0, facts);
    chain(page, finding);
    if !finding.evidence.is_empty() {
        page.heading("evidence");
        for line in &finding.evidence {
            let weak = matches!(line.source, Source::Loss(_) | Source::Missing);
            let (open, shut) = if weak { ("(", ")") } else { ("[", "]") };
            let role = if weak { Role::Warning } else { Role::Text };
            page.text(
                2,
                Text::of(Role::Dim, format!("{open}{}{shut} ", line.source)).and(role, line.text.clone()),
            );
        }
    }
    if !finding.next_steps.is_empty() {
        page.heading("what to do next");
        for step in &finding.next_steps {
            page.plain(step.clone());
        }
    }
    if !finding.locks.is_empty() {
        page.heading("locks");
        for lock in &finding.locks {
            page.link(
                format!("{lock}, {}", count(lock.waiters, "waiter")),
                Subject::Lock(lock.key()),
            );
        }
    }
    for party in &finding.tasks {
        self::party(page, report, party);
    }
    victims(page, finding);
}

fn chain(page: &mut Page, finding: &Finding) {
    if finding.chain.is_empty() {
        return;
    }
    page.heading("chain");
    for link in finding.chain.iter().take(MAX_LISTED) {
        self::link(page, link);
    }
    more(page, finding.chain.len());
}

pub(super) fn more(page: &mut Page, all: usize) {
    if all > MAX_LISTED {
        page.plain(format!("... and {} more", number((all - MAX_LISTED) as u64)));
    }
}

fn link(page: &mut Page, link: &Link) {
    let on = match &link.on {
        On::Lock { lock, .. } => words::lock(lock),
        On::Dependency { text, .. } => text.clone(),
    };
    let waited = words::at_least(link.waited, link.waited_is_lower_bound);
    let holder = link.holder.as_ref().map(|h| format!(" <- {h}")).unwrap_or_default();
    let text = format!("{} waits {waited} for {on}{holder}", link.waiter);
    page.link(text, Subject::task(&link.waiter));
}

fn victims(page: &mut Page, finding: &Finding) {
    let victims = &finding.victims;
    if victims.count == 0 {
        return;
    }
    let mut heading = format!(
        "{}, longest {}, in sum {}",
        count(victims.count, "victim"),
        duration(victims.longest_wait),
        duration(victims.total_wait)
    );
    if !victims.cgroups.is_empty() {
        heading = format!("{heading}, in {}", count(victims.cgroups.len(), "cgroup"));
    }
    page.heading(heading);
    for victim in &victims.tasks {
        link(page, &victim.link);
    }
    if victims.count > victims.tasks.len() {
        page.plain(format!(
            "... and {} more",
            number((victims.count - victims.tasks.len()) as u64)
        ));
    }
}

fn party(page: &mut Page, report: &Report, party: &Party) {
    page.heading(format!("stack of {}", party.name));
    page.text(2, super::dim(facts(party.state, party.cpu, party.cgroup, false)));
    for words in party.about.words() {
        page.text(2, super::dim(words));
    }
    page.stack(report, party.stack);
}

fn facts(state: TaskState, cpu: Option<CpuId>, cgroup: CgroupId, kernel_thread: bool) -> String {
    let mut facts = words::long_state(state).to_owned();
    if let Some(cpu) = cpu {
        let on = if state == TaskState::Running { "on" } else { "last on" };
        facts = format!("{facts}, {on} CPU {cpu}");
    }
    if cgroup.0 != 0 {
        facts = format!("{facts}, cgroup {cgroup}");
    }
    if kernel_thread {
        facts.push_str(", kernel thread");
    }
    facts
}

fn task(page: &mut Page, report: &Report, task: &TaskRow) {
    let process = if task.name.tgid.0 != 0 && task.name.tgid.0 != task.name.tid.0 {
        format!(", of process {}", task.name.tgid)
    } else {
        String::new()
    };
    page.text(0, Text::of(Role::Strong, format!("{}{process}", task.name)));
    page.text(
        0,
        Text::plain(facts(task.state, task.cpu, task.cgroup, task.kernel_thread)),
    );
    if let (None, Some(asleep)) = (&task.wait, task.asleep) {
        page.plain(format!("asleep for at least {}", duration(asleep)));
    }
    for words in task.about.words() {
        page.plain(words);
    }
    if let Some(wait) = &task.wait {
        let place = words::place(wait);
        let waited = words::waited(wait);
        match &wait.lock {
            Some(lock) => {
                page.heading(format!("{} {waited}{place}", words::phase(wait.phase)));
                let mode = words::mode(wait.mode);
                page.link(
                    format!("{lock} ({mode}), {}", count(lock.waiters, "waiter")),
                    Subject::Lock(lock.key()),
                );
            }
            None => page.heading(format!("waits {waited} for {}", words::wanted(wait))),
        }
    }
    if let Some(by) = task.blocked_by.and_then(|row| report.tasks.get(row)) {
        page.heading(if by.name == task.name {
            "behind itself"
        } else {
            "behind"
        });
        page.link(
            format!("{}, {}", by.name, words::long_state(by.state)),
            Subject::task(&by.name),
        );
    }
    if !task.holds.is_empty() {
        page.heading("holds");
        for lock in &task.holds {
            page.link(
                format!("{lock}, {}", count(lock.waiters, "waiter")),
                Subject::Lock(lock.key()),
            );
        }
    }
    page.heading("stack");
    page.stack(report, task.stack);
    if let Some(stack) = &task.user_stack {
        page.heading("stack in user space");
        for line in stacks::user_lines(stack) {
            page.text(4, Text::plain(line));
        }
    }
    let waiters = task.blocks.iter().filter_map(|row| report.tasks.get(*row));
    let waiters: Vec<&TaskRow> = waiters.filter(|waiter| waiter.name != task.name).collect();
    if !waiters.is_empty() {
        page.heading(format!("holds up {} directly", count(waiters.len(), "task")));
    }
    waiting(page, &waiters);
    let named: Vec<&Finding> = report.findings.iter().filter(|f| names(f, &task.name)).collect();
    if !named.is_empty() {
        page.heading("in findings");
        for finding in named {
            page.link(
                format!("{}: {}", finding.kind, finding.title),
                Subject::Finding(finding.id.clone()),
            );
        }
    }
}

/// A list of waiters, each of which can be followed.
pub(super) fn waiting(page: &mut Page, waiters: &[&TaskRow]) {
    for waiter in waiters.iter().take(MAX_LISTED) {
        let text = match &waiter.wait {
            Some(wait) => {
                // Only locks are wanted in one way or another.
                let mode = wait.lock.as_ref().map_or("waits", |_| words::mode(wait.mode));
                format!(
                    "{} {mode} {} for {}",
                    waiter.name,
                    words::waited(wait),
                    words::wanted(wait)
                )
            }
            None => waiter.name.to_string(),
        };
        page.link(text, Subject::task(&waiter.name));
    }
    more(page, waiters.len());
}

fn names(finding: &Finding, name: &Name) -> bool {
    finding.tasks.iter().any(|party| party.name == *name)
}

/// Somebody who no longer waits or holds: all that is left is what findings say.
fn gone(page: &mut Page, report: &Report, who: Who) {
    page.plain("It neither waits nor holds a contended lock any more.");
    let findings = report.findings.iter().chain(report.closed.iter().map(|c| &c.finding));
    for finding in findings {
        if let Some(party) = finding.tasks.iter().find(|p| Who::from(&p.name) == who) {
            page.link(
                format!("{}: {}", finding.kind, finding.title),
                Subject::Finding(finding.id.clone()),
            );
            self::party(page, report, party);
        }
    }
}

fn name_of(report: &Report, who: Who) -> Option<&Name> {
    let rows = report.tasks.iter().map(|t| &t.name);
    let findings = report.findings.iter().chain(report.closed.iter().map(|c| &c.finding));
    let parties = findings.flat_map(|f| f.tasks.iter().map(|p| &p.name));
    rows.chain(parties).find(|name| Who::from(*name) == who)
}
