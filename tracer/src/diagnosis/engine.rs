//! The life of findings: opened, changed, closed; merged and aged, never repeated.

use std::collections::{BTreeMap, VecDeque};

use super::finding::{Finding, FindingId, Link, LockRef};
use super::graph::Graph;
use super::{Certainty, Kind, RULES, View};
use crate::event::{Evidence, TaskState};
use crate::ids::{Nanos, Timestamp};
use crate::model::{LockKey, Model};

/// What became of a finding since the previous update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingChange {
    /// It is new.
    Opened(Finding),
    /// It is still there, and something that matters is different.
    Changed(Finding),
    /// It is over.
    Closed(Closed),
}

/// A finding that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// As it was last seen.
    pub finding: Finding,
    /// When it was found to be over.
    pub closed: Timestamp,
    /// How long it lasted, at least.
    pub lasted: Nanos,
}

/// Runs the rules and keeps what is open.
#[derive(Debug, Default)]
pub struct Engine {
    open: BTreeMap<FindingId, Finding>,
    reported: BTreeMap<FindingId, Finding>,
    closed: VecDeque<Closed>,
    graph: Graph,
    left_out: usize,
}

impl Engine {
    /// Nothing open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the model anew. Returns the changes, most severe first.
    pub fn update(&mut self, model: &Model) -> Vec<FindingChange> {
        self.graph = Graph::build(model);
        let view = View {
            model,
            graph: &self.graph,
        };
        let mut found = Vec::new();
        self.left_out = 0;
        for rule in RULES {
            let mut of_rule = Vec::new();
            rule.find(&view, &mut of_rule);
            sort(&mut of_rule);
            self.left_out += of_rule.len().saturating_sub(model.settings().max_findings);
            of_rule.truncate(model.settings().max_findings);
            found.append(&mut of_rule);
        }
        drop_explained(&mut found);
        sort(&mut found);
        let before = std::mem::take(&mut self.open);
        let mut changes = Vec::new();
        for mut finding in found {
            match before.get(&finding.id) {
                Some(known) if same_tasks(known, &finding) => {
                    finding.opened = known.opened;
                    let news = self
                        .reported
                        .get(&finding.id)
                        .is_none_or(|reported| matters(reported, &finding));
                    if news {
                        self.reported.insert(finding.id.clone(), finding.clone());
                        changes.push(FindingChange::Changed(finding.clone()));
                    }
                }
                known => {
                    if let Some(known) = known {
                        changes.push(self.close(known.clone(), model));
                    }
                    self.reported.insert(finding.id.clone(), finding.clone());
                    changes.push(FindingChange::Opened(finding.clone()));
                }
            }
            self.open.insert(finding.id.clone(), finding);
        }
        for (id, finding) in before {
            if !self.open.contains_key(&id) {
                self.reported.remove(&id);
                changes.push(self.close(finding, model));
            }
        }
        changes
    }

    fn close(&mut self, finding: Finding, model: &Model) -> FindingChange {
        let closed = Closed {
            closed: model.now(),
            lasted: model.now().since(finding.since),
            finding,
        };
        self.closed.push_back(closed.clone());
        while self.closed.len() > model.settings().max_closed {
            self.closed.pop_front();
        }
        FindingChange::Closed(closed)
    }

    /// Open findings, most severe first.
    #[must_use]
    pub fn open(&self) -> Vec<&Finding> {
        let mut open: Vec<&Finding> = self.open.values().collect();
        open.sort_by_cached_key(|f| rank(f));
        open
    }

    /// Recently closed findings, newest last.
    pub fn closed(&self) -> impl Iterator<Item = &Closed> {
        self.closed.iter()
    }

    /// The wait-for graph of the latest update.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Findings of the latest update beyond [`Settings::max_findings`], which are not listed.
    ///
    /// [`Settings::max_findings`]: crate::model::Settings::max_findings
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

type Rank = (
    std::cmp::Reverse<(super::Severity, super::Certainty)>,
    Kind,
    std::cmp::Reverse<usize>,
    Timestamp,
    FindingId,
);

fn rank(finding: &Finding) -> Rank {
    (
        std::cmp::Reverse((finding.severity, finding.certainty)),
        finding.kind,
        std::cmp::Reverse(finding.victims.count),
        finding.since,
        finding.id.clone(),
    )
}

fn sort(findings: &mut [Finding]) {
    findings.sort_by_cached_key(rank);
}

/// Where a deadlock is there, that its locks might deadlock, or that nobody is known to hold them, is no news.
fn drop_explained(found: &mut Vec<Finding>) {
    let deadlocks: Vec<Vec<LockKey>> = found
        .iter()
        .filter(|f| matches!(f.kind, Kind::SelfDeadlock | Kind::Cycle) && f.certainty >= Certainty::Likely)
        .map(|f| f.locks.iter().map(LockRef::key).collect())
        .collect();
    found.retain(|f| {
        let weaker = f.kind == Kind::OrderInversion || (f.kind == Kind::RootBlocker && f.tasks.is_empty());
        let explained = |deadlock: &Vec<LockKey>| f.locks.iter().all(|l| deadlock.contains(&l.key()));
        !weaker || !deadlocks.iter().any(explained)
    });
}

/// Whether two findings of the same id are about the same tasks: a thread id may have been given to another thread.
fn same_tasks(a: &Finding, b: &Finding) -> bool {
    a.tasks
        .iter()
        .zip(&b.tasks)
        .all(|(a, b)| a.start == b.start || a.start.0 == 0 || b.start.0 == 0)
}

/// Whether a reader who knows `old` has to be told of `new`. Growing ages and small changes in numbers are not news.
fn matters(old: &Finding, new: &Finding) -> bool {
    let names = |f: &Finding| f.locks.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
    let who = |f: &Finding| {
        f.chain
            .iter()
            .map(|l| (l.waiter.clone(), l.holder.clone()))
            .collect::<Vec<_>>()
    };
    let many = |n: usize| n.checked_ilog2();
    let unknown = |f: &Finding| f.tasks.iter().filter(|t| t.state == TaskState::Unknown).count();
    let nowhere = |f: &Finding| f.tasks.iter().filter(|t| t.site.is_none()).count();
    // That nobody else can hold it, or that it was seen to take it: more than a trace of the lock.
    let settled = |f: &Finding| {
        let by = |l: &&Link| matches!(l.holder_evidence, Some(Evidence::CpuSample | Evidence::Acquisition));
        f.chain.iter().filter(by).count()
    };
    old.severity != new.severity
        || old.certainty != new.certainty
        || names(old) != names(new)
        || unknown(new) < unknown(old)
        || settled(new) > settled(old)
        || (old.kind != Kind::RootBlocker && (who(old) != who(new) || nowhere(new) < nowhere(old)))
        || many(old.victims.count) != many(new.victims.count)
}
