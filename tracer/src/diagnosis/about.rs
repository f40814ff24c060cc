//! What a task is about and where it belongs, as reports carry it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::event::{Activity, Argument, FileKind};
use crate::ids::KernelAddr;
use crate::kernel::tasks::container::{Container, container};
use crate::model::{ActorIx, Model};

/// What a task is about and where it belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// The work it executes, or the system call it is in; `None` when not known.
    pub doing: Option<DoingRow>,
    /// Path of its cgroup in the unified hierarchy.
    pub cgroup_path: Option<Arc<str>>,
    /// The container that this path names.
    pub container: Option<Container>,
}

/// What a task is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum DoingRow {
    /// A worker of a workqueue executes work.
    Work {
        /// The work's function, or its address.
        function: String,
        /// The module of the function, where not the kernel proper.
        module: Option<Arc<str>>,
        /// Name of the workqueue.
        workqueue: Option<Arc<str>>,
    },
    /// It is in a system call.
    Syscall {
        /// Its number on this architecture.
        number: u32,
        /// Its name, where the number is known.
        name: Option<Arc<str>>,
        /// What its first argument is: `file`, `descriptor`, `path`, `address` or `other`.
        argument: &'static str,
        /// What the file is that the first argument refers to.
        file: Option<FileKind>,
        /// Path of that file.
        path: Option<Arc<str>>,
    },
    /// It came from user space into the kernel by a fault or an interrupt.
    Exception,
}

impl About {
    /// What is known of a task at present.
    #[must_use]
    pub fn of(model: &Model, ix: ActorIx) -> Self {
        let Some(actor) = model.actors().get(ix) else {
            return Self::default();
        };
        let work = actor.sample.and_then(|sample| sample.work);
        let doing = match (&actor.doing, work) {
            (Some(activity), _) => Some(DoingRow::of(model, activity)),
            (None, Some(function)) => Some(DoingRow::work(model, function, None)),
            (None, None) => None,
        };
        let cgroup = actor.sample.map(|sample| sample.cgroup);
        let path = cgroup.and_then(|cgroup| model.names().cgroup(cgroup));
        Self {
            doing,
            container: path.and_then(|path| container(path)),
            cgroup_path: path.cloned(),
        }
    }

    /// In words, one clause each; none for what goes without saying.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.doing.as_ref().map(ToString::to_string));
        words.extend(
            self.container
                .as_ref()
                .map(|container| format!("container {container}")),
        );
        if let Some(path) = self.cgroup_path.as_deref().filter(|&path| path != "/") {
            words.push(format!("cgroup {path}"));
        }
        words
    }
}

impl DoingRow {
    fn of(model: &Model, activity: &Activity) -> Self {
        match activity {
            Activity::Work { function, workqueue } => Self::work(model, *function, workqueue.clone()),
            Activity::Syscall { number, name, argument } => {
                let (class, file, path) = match argument {
                    Argument::Other => ("other", None, None),
                    Argument::File { kind, path } => ("file", Some(*kind), Some(Arc::clone(path))),
                    Argument::Descriptor { .. } => ("descriptor", None, None),
                    Argument::Path => ("path", None, None),
                    Argument::Address => ("address", None, None),
                };
                Self::Syscall {
                    number: *number,
                    name: name.clone(),
                    argument: class,
                    file,
                    path,
                }
            }
            Activity::Exception => Self::Exception,
        }
    }

    fn work(model: &Model, function: KernelAddr, workqueue: Option<Arc<str>>) -> Self {
        Self::Work {
            function: model.names().code(function),
            module: model
                .names()
                .symbol_at(function)
                .and_then(|symbol| symbol.module.clone()),
            workqueue,
        }
    }
}

impl fmt::Display for DoingRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work {
                function,
                module,
                workqueue,
            } => {
                write!(f, "executes {function}")?;
                if let Some(module) = module {
                    write!(f, " [{module}]")?;
                }
                workqueue
                    .as_ref()
                    .map_or(Ok(()), |queue| write!(f, " for workqueue {queue}"))
            }
            Self::Syscall {
                number,
                name,
                argument,
                file,
                path,
            } => {
                match name {
                    Some(name) => write!(f, "in {name}()")?,
                    None => write!(f, "in system call {number}")?,
                }
                match (path, *argument) {
                    (Some(path), _) => write!(f, " on {path}")?,
                    (None, "descriptor") => f.write_str(" on a closed descriptor")?,
                    (None, "path") => f.write_str(" of a path")?,
                    (None, _) => {}
                }
                let kind = match file {
                    Some(FileKind::CharDevice) => " (character device)",
                    Some(FileKind::BlockDevice) => " (block device)",
                    Some(FileKind::Directory) => " (directory)",
                    _ => "",
                };
                f.write_str(kind)
            }
            Self::Exception => f.write_str("in a fault or an interrupt, not in a system call"),
        }
    }
}
