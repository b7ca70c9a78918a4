//! Describes work: tasks by role, their dependencies and where their inputs come from.
//!
//! A [`GraphBuilder`] collects [`Task`]s; [`GraphBuilder::build`] checks everything that can be
//! known before the run and yields an immutable [`Graph`] of dense indices.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

mod builder;
mod expr;
mod name_index;

pub(crate) use builder::Followers;
pub use builder::{GraphBuilder, GraphError};
pub use expr::ComposeError;
pub use name_index::NameIndex;

use crate::id::{QuotaId, RoleId, TaskIndex};
use crate::limits::Limits;
use crate::payload::Payload;
use crate::retry::RetryPolicy;

/// Refers to a task of the same builder: by what [`GraphBuilder::add`] returned, or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskRef {
    /// By its place in the builder.
    Index(TaskIndex),
    /// By its name, which may be added later.
    Name(String),
}

impl From<TaskIndex> for TaskRef {
    fn from(index: TaskIndex) -> Self {
        Self::Index(index)
    }
}

impl From<&str> for TaskRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for TaskRef {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

/// Says how an input is made; `R` refers to tasks ([`TaskRef`] in a builder, [`TaskIndex`] in a graph).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expr<R> {
    /// This value.
    Value(Payload),
    /// The output of a task.
    Output(R),
    /// The outputs of all tasks that this task spawned, as a list in spawn order.
    Spawned(R),
    /// A list of inputs.
    List(Vec<Expr<R>>),
    /// An object: each name with its input.
    Object(Vec<(String, Expr<R>)>),
}

/// What tasks of one kind have in common; shared among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskOptions {
    /// Place of the role in [`Graph::roles`].
    pub role: u16,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// Time limit of one attempt; none: [`Limits::task_timeout`].
    pub timeout: Option<Duration>,
    /// Longest time between two heartbeats; none: the task need not send any.
    pub heartbeat: Option<Duration>,
    /// Higher goes first.
    pub priority: i32,
    /// Permits or tokens needed of the quotas at these places in [`Graph::quotas`].
    pub quotas: Vec<(u16, u32)>,
}

/// Names a task among its siblings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskName {
    /// A name of its own.
    Named(SmolStr),
    /// The n-th task of a map; shown as `parent[n]`.
    Number(u32),
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Number(number) => write!(f, "[{number}]"),
        }
    }
}

/// One task of a [`Graph`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name among its siblings.
    pub name: TaskName,
    /// What it shares with others of its kind.
    pub options: Arc<TaskOptions>,
    /// The tasks that must complete before it, ascending and without duplicates; those that its
    /// input refers to included.
    pub after: Box<[TaskIndex]>,
    /// How its input is made.
    pub input: Expr<TaskIndex>,
    /// How long it is expected to take; weighs the critical path.
    pub expected: Duration,
}

/// An immutable, checked graph of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Name of the run; the idempotency key of its submission. Empty for spawned graphs.
    pub name: String,
    /// Names of the roles its tasks ask for.
    pub roles: Vec<Arc<str>>,
    /// Names of the quotas its tasks draw on.
    pub quotas: Vec<Arc<str>>,
    /// Its tasks; a [`TaskIndex`] is a place in here.
    pub tasks: Vec<TaskSpec>,
}

/// The places of a graph's roles and quotas in the guild that runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bindings {
    /// For each of [`Graph::roles`], the role.
    pub roles: Vec<RoleId>,
    /// For each of [`Graph::quotas`], the quota.
    pub quotas: Vec<QuotaId>,
}

/// What a guild offers to graphs: the names that they may use, and their bounds.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Name and id of every role.
    pub roles: Vec<(Arc<str>, RoleId)>,
    /// Name, id and capacity (permits, or the burst of a rate) of every quota.
    pub quotas: Vec<(Arc<str>, QuotaId, u32)>,
    /// The bounds.
    pub limits: Limits,
}

/// A task to be added to a [`GraphBuilder`].
#[derive(Clone, Debug)]
pub struct Task {
    pub(crate) name: TaskName,
    pub(crate) role: SmolStr,
    pub(crate) after: Vec<TaskRef>,
    pub(crate) input: Result<Expr<TaskRef>, String>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) priority: i32,
    pub(crate) quotas: Vec<(String, u32)>,
    pub(crate) expected: Duration,
}

impl Task {
    /// Returns a task of this name for an agent of this role; its input is `null`.
    pub fn new(name: impl AsRef<str>, role: impl AsRef<str>) -> Self {
        Self::with_name(TaskName::Named(SmolStr::new(name)), SmolStr::new(role))
    }

    /// Returns the n-th task of a map: it is named by its number.
    pub fn numbered(number: u32, role: impl AsRef<str>) -> Self {
        Self::with_name(TaskName::Number(number), SmolStr::new(role))
    }

    fn with_name(name: TaskName, role: SmolStr) -> Self {
        Self {
            name,
            role,
            after: Vec::new(),
            input: Ok(Expr::Value(Payload::NULL)),
            retry: RetryPolicy::default(),
            timeout: None,
            heartbeat: None,
            priority: 0,
            quotas: Vec::new(),
            expected: Duration::from_secs(1),
        }
    }

    /// Makes the task wait for another one, and for all tasks that the other one spawns.
    pub fn after(mut self, task: impl Into<TaskRef>) -> Self {
        self.after.push(task.into());
        self
    }

    /// Gives the task this input. A value without a JSON form is refused by `build()`.
    pub fn input<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        self.input = Payload::encode(value).map(Expr::Value).map_err(|error| error.to_string());
        self
    }

    /// Gives the task the output of another task as its input, and waits for it.
    pub fn input_from(self, task: impl Into<TaskRef>) -> Self {
        self.input_expr(Expr::Output(task.into()))
    }

    /// Gives the task an input composed from values and outputs, and waits for those tasks.
    pub fn input_expr(mut self, expr: Expr<TaskRef>) -> Self {
        self.input = Ok(expr);
        self
    }

    /// Sets when a failed attempt is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Limits the time of one attempt.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Demands a heartbeat at least this often.
    pub fn heartbeat(mut self, interval_max: Duration) -> Self {
        self.heartbeat = Some(interval_max);
        self
    }

    /// Sets the priority; higher goes first, 0 is the default.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Makes each attempt hold (permits) or spend (rate) this much of a quota.
    pub fn quota(mut self, quota: impl Into<String>, amount: u32) -> Self {
        self.quotas.push((quota.into(), amount));
        self
    }

    /// Says how long the task is expected to take, for the critical path.
    pub fn expected(mut self, duration: Duration) -> Self {
        self.expected = duration;
        self
    }
}
