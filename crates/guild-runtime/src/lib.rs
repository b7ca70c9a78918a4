//! Guild's actors: a thin shell around the pure core.
//!
//! A handler turns a message into an input, asks `guild-core` or `guild-memory`, and sends what
//! they decided. Architecture invariant: nothing in here decides about a task, a restart or a
//! commit; that is core's part. Only this crate knows actix and tokio.

#[cfg(panic = "abort")]
compile_error!(
    "guild isolates crashes by unwinding: remove `panic = \"abort\"` from the cargo profile"
);

mod agent;
mod beacon;
mod blocking;
mod builder;
mod cancellation;
mod clock;
mod context;
mod controller;
mod events;
mod failure;
mod fault;
mod fleet;
mod guard;
mod guild;
mod handle;
mod host;
mod incidents;
mod lease;
mod letters;
mod life;
mod mailbox;
mod memory;
mod message;
mod panics;
pub mod process;
mod run;
mod scheduler;
mod signal;
mod start;
mod supervisor;
mod threads;
mod watch;
mod watchdog;

pub use agent::{Agent, TaskError};
pub use builder::{GuildBuilder, Staging, StartError, Storage};
pub use cancellation::Cancellation;
pub use context::TaskContext;
pub use events::{Events, Lagged};
pub use fault::{ChaosError, Fault, FaultPoint, Hit, RandomFaults, Site, Strike};
pub use guild::{Drain, Guild, ShutdownError, ShutdownReport, Stats, SubmitError, UnderWay};
pub use handle::{MemoryHandle, TransactError};
pub use letters::LetterError;
pub use life::Life;
pub use run::{OutputError, Run, RunError, RunReport};
pub use watch::{MemoryChange, Watch, WatchLagged};
pub use watchdog::{Hog, ThreadLoad};
