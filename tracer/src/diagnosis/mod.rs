//! From the model to findings: a list of small rules, each with severity, certainty and evidence.
//!
//! Rules look at the model as it is; they keep no state. [`Engine`] compares what they find with what was open before and
//! tells what opened, changed and closed.

mod about;
mod acquired;
mod context_deadlock;
mod dead_lock_word;
mod deadlock;
mod engine;
mod finding;
mod graph;
mod hot_lock;
mod impact;
mod inversion;
mod links;
mod orphan;
pub(crate) mod phrase;
mod pile_up;
mod proof;
mod reinit;
mod root_blocker;
mod scc;

pub use about::{About, DoingRow};
pub use engine::{Closed, Engine, FindingChange};
pub use finding::{
    Certainty, EvidenceLine, Finding, FindingId, Kind, Link, LockRef, Name, On, Party, Severity, Source, Victim,
    Victims, lock_kind_name,
};
pub(crate) use finding::{kernel_addr, stack_id};
pub use graph::{Blocked, Edge, Graph, Hold, Holder, Root, Via};

use std::fmt::Write as _;
use std::sync::Arc;

use crate::ids::{LockAddr, Timestamp};
use crate::model::{ActorIx, LockIx, Model};

/// What a rule looks at.
pub struct View<'m> {
    /// The model.
    pub model: &'m Model,
    /// Its wait-for graph.
    pub graph: &'m Graph,
}

/// One kind of thing to find.
pub trait Rule {
    /// Appends all findings of this rule.
    fn find(&self, view: &View<'_>, out: &mut Vec<Finding>);
}

/// All rules, in the order in which their findings are listed.
const RULES: &[&(dyn Rule + Sync)] = &[
    &deadlock::Deadlock,
    &context_deadlock::ContextDeadlock,
    &dead_lock_word::DeadLockWord,
    &orphan::Orphan,
    &reinit::ReinitInUse,
    &root_blocker::RootBlocker,
    &pile_up::PileUp,
    &hot_lock::HotLock,
    &inversion::Inversion,
];

/// A finding in the making.
struct Draft<'v, 'm> {
    view: &'v View<'m>,
    finding: Finding,
}

impl<'v, 'm> Draft<'v, 'm> {
    fn new(view: &'v View<'m>, kind: Kind, actors: &[ActorIx], locks: &[LockIx]) -> Self {
        let model = view.model;
        let now = model.now();
        let mut draft = Self {
            view,
            finding: Finding {
                id: FindingId(Arc::from("")),
                kind,
                severity: Severity::Info,
                certainty: Certainty::Possible,
                title: String::new(),
                since: now,
                since_is_lower_bound: true,
                opened: now,
                tasks: actors.iter().map(|&a| phrase::party(model, a)).collect(),
                locks: locks.iter().map(|&l| phrase::lock_ref(model, l)).collect(),
                chain: Vec::new(),
                victims: Victims::default(),
                evidence: Vec::new(),
                next_steps: Vec::new(),
            },
        };
        draft.id(actors, locks);
        draft
    }

    /// Names the finding after these tasks and locks only.
    fn id(&mut self, actors: &[ActorIx], locks: &[LockIx]) {
        let mut id = self.finding.kind.to_string();
        for &actor in actors {
            let name = phrase::name(self.view.model, actor);
            let _ = match name.interrupt_cpu {
                Some(cpu) => write!(id, ":cpu{cpu}-{:?}", name.context),
                None => write!(id, ":{}", name.tid),
            };
        }
        for lock in locks.iter().filter_map(|&l| self.view.model.locks().get(l)) {
            let spins = if lock.kind.spins() { "spin-" } else { "" };
            let _ = write!(id, ":{spins}{:#x}", lock.addr.0);
        }
        self.finding.id = FindingId(Arc::from(id));
    }

    /// The id of what an actor did to an object that need not be a known lock.
    fn id_of(&mut self, actor: &Option<ActorIx>, object: LockAddr) {
        self.id(actor.as_slice(), &[]);
        self.finding.id = FindingId(Arc::from(format!("{}:{:#x}", self.finding.id.0, object.0)));
    }

    fn certainty(&mut self, certainty: Certainty, severity: Severity) {
        (self.finding.certainty, self.finding.severity) = (certainty, severity);
    }

    fn since(&mut self, since: Timestamp, exact: bool) {
        (self.finding.since, self.finding.since_is_lower_bound) = (since, !exact);
    }

    fn title(&mut self, title: String) {
        self.finding.title = title;
    }

    fn parties(&mut self, parties: Vec<Party>) {
        self.finding.tasks = parties;
    }

    fn chain(&mut self, chain: Vec<Link>) {
        self.finding.chain = chain;
    }

    fn victims(&mut self, victims: Victims) {
        self.finding.victims = victims;
    }

    fn evidence(&mut self, source: Source, text: String) {
        self.finding.evidence.push(EvidenceLine { source, text });
    }

    fn lines(&mut self, lines: Vec<EvidenceLine>) {
        self.finding.evidence.extend(lines);
    }

    fn next(&mut self, step: &str) {
        self.finding.next_steps.push(step.to_owned());
    }

    fn finish(self) -> Finding {
        self.finding
    }
}
