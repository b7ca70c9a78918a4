//! Runs a graph of tasks on thousands of supervised agents and keeps the work correct while agents
//! crash, hang and lie.
//!
//! This is the front door: it re-exports what a user needs and holds nothing of its own. Begin with
//! [`Agent`], [`Guild::builder`] and [`Task`]; `ARCHITECTURE.md` tells how it works inside.
//!
//! ```
//! use guild::{Agent, Drain, Guild, Task, TaskContext, TaskError};
//!
//! struct Greeter;
//!
//! impl Agent for Greeter {
//!     type Input = String;
//!     type Output = String;
//!
//!     async fn perform(&mut self, name: String, _: &mut TaskContext) -> Result<String, TaskError> {
//!         Ok(format!("hello, {name}"))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let guild = Guild::builder().role("greeter", 10, || Greeter).start()?;
//! let mut graph = guild.graph("greetings");
//! graph.add(Task::new("world", "greeter").input("world"));
//! let graph = graph.build()?;
//!
//! guild::block_on(async {
//!     let report = guild.submit(graph).await?.wait().await?;
//!     assert_eq!(report.output::<String>("world")?, "hello, world");
//!     guild.shutdown(Drain::Now).await?;
//!     Ok(())
//! })
//! # }
//! ```

pub use guild_core::draw::Seed;
pub use guild_core::event::{
    Cause, EndState, Event, EventRecord, Names, Outcome, Severity, Tally, line as event_line,
};
pub use guild_core::graph::{Expr, Graph, GraphBuilder, GraphError, Task, TaskRef};
pub use guild_core::id::{
    AgentId, CommitVersion, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId, TaskIndex,
};
pub use guild_core::incident::{
    AcknowledgeError, Acknowledgement, Action, Attempt, Discarded, Group as IncidentGroup,
    Incident, IncidentKind, IncidentState, Reason, Recovery, Report as IncidentReport,
    Summary as IncidentSummary,
};
pub use guild_core::letter::{CrashReport, DeadLetter, DeadLetters, LetterState};
pub use guild_core::limits::Limits;
pub use guild_core::payload::Payload;
pub use guild_core::planner::{Progress, ReadyOrder};
pub use guild_core::quota::QuotaSpec;
pub use guild_core::restart::RestartPolicy;
pub use guild_core::retry::RetryPolicy;
pub use guild_core::supervision::{
    Ceiling, Exhausted, GroupSpec, RestartType, RoleSpec, Strategy, SupervisorSpec, TreeError,
    TreeSpec,
};
pub use guild_core::time::Timestamp;
pub use guild_memory::{
    Clash, Commit, CommitError, Condition, Conflict, Denied, Difference, Durability, Entry,
    HistoryError, Isolation, KeyRange, Merge, Namespace, NamespaceError, OnConflict, Pin, Revision,
    Rights, RollbackError, Savepoint, Snapshot, StoreError, Transaction, TransactionError, Unmet,
    Violation, Writer, checkpoint, reader, restore,
};
pub use guild_runtime::{
    Agent, Cancellation, ChaosError, Drain, Events, Fault, FaultPoint, Guild, GuildBuilder, Hit,
    Hog, Lagged, LetterError, Life, MemoryChange, MemoryHandle, OutputError, RandomFaults, Run,
    RunError, RunReport, ShutdownError, ShutdownReport, Site, StartError, Stats, Storage, Strike,
    SubmitError, TaskContext, TaskError, ThreadLoad, TransactError, Watch, WatchLagged, process,
};
pub use pollster::block_on;
