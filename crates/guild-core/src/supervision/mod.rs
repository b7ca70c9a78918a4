//! Decides what becomes of a supervisor's children: who is started, stopped, quarantined, and when
//! the supervisor gives up and passes its failure upward.
//!
//! One pure state machine serves every node of the tree: the children of a [`Supervisor`] are the
//! agents of a role, or supervisors. A supervisor that gives up is, to the one above it, a child
//! that died. Terms and meaning follow Erlang/OTP (restart types, strategies, stop in reverse order
//! of start, restart intensity), with two things added: a child whose restarts are used up may be
//! quarantined instead of failing its supervisor, and deaths of one cause within a burst count once
//! towards the supervisor's ceiling, so that one broken dependency does not melt the tree down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::restart::RestartPolicy;
use crate::time::Timestamp;

mod ceiling;
mod fingerprint;
mod hold;
mod placement;
mod supervisor;
#[cfg(test)]
mod tests;
mod tree;

pub use fingerprint::fingerprint;
pub use hold::{Finding, HoldLimits, HoldWatch, Holder, Look};
pub use placement::{Placement, ThreadUse};
pub use supervisor::Supervisor;
pub use tree::{
    Escalation, GroupSpec, Link, RoleSpec, Tree, TreeError, TreeInput, TreeOrder, TreeSpec,
};

/// Who else is restarted when a child dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// All children: they belong together. They are started one after the other and stopped in
    /// reverse.
    OneForAll,
    /// The children that were started after it: they depend on it. They are started one after the
    /// other and stopped in reverse.
    RestForOne,
}

/// Whether a child that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartType {
    /// Always.
    #[default]
    Permanent,
    /// Only after a failure.
    Transient,
    /// Never.
    Temporary,
}

/// What happens when a child has used up its restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// The child is quarantined and the others go on. Children that are restarted together belong
    /// together: under another strategy than one-for-one this means [`Exhausted::Escalate`].
    #[default]
    Quarantine,
    /// The supervisor stops its children and fails.
    Escalate,
}

/// How many deaths among its children a supervisor bears, whoever dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Deaths within `period` that are borne; one more and the supervisor gives up.
    pub deaths_max: u32,
    /// The window in which deaths count.
    pub period: Duration,
    /// Deaths of one cause within this time of the first of them count once.
    pub burst: Duration,
}

impl Default for Ceiling {
    /// One cause alone never reaches it: it counts at most sixty times a minute.
    fn default() -> Self {
        Self { deaths_max: 600, period: Duration::from_secs(60), burst: Duration::from_secs(1) }
    }
}

/// How a supervisor treats its children.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupervisorSpec {
    /// Who else is restarted.
    pub strategy: Strategy,
    /// Whether a child that ended is started again.
    pub restart_type: RestartType,
    /// How often and after which delay a child is restarted.
    pub restart: RestartPolicy,
    /// What happens when a child has used that up.
    pub exhausted: Exhausted,
    /// How many deaths are borne in all.
    pub ceiling: Ceiling,
    /// How long an agent that was told to stop may take; then it is left behind. (A supervisor takes
    /// as long as its children.)
    pub shutdown: Duration,
}

impl Default for SupervisorSpec {
    /// One for one, permanent, quarantine, and two seconds to stop.
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            restart_type: RestartType::default(),
            restart: RestartPolicy::default(),
            exhausted: Exhausted::default(),
            ceiling: Ceiling::default(),
            shutdown: Duration::from_secs(2),
        }
    }
}

/// What the children of a supervisor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The agents of a role. Where they do not depend on each other they are stopped at once.
    Agents,
    /// Supervisors. They are stopped one by one, and each takes as long as its children.
    Supervisors,
}

/// How a child ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// In order.
    Normal,
    /// It was ended from outside and is not to blame (its task was cancelled).
    Blameless,
    /// By a failure, whose cause has this fingerprint.
    Failed {
        /// Equal for deaths of one cause.
        cause: u64,
    },
    /// By a failure that harmed others (it blocked their thread): it gets no second chance before a
    /// quarantine.
    Condemned {
        /// Equal for deaths of one cause.
        cause: u64,
    },
}

/// What a supervisor is told. A child is named by its place in the order of start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Begin: start all children in order.
    Start,
    /// End: stop all children in reverse order, then say so.
    Stop,
    /// A child runs.
    Up {
        /// Which.
        child: u32,
    },
    /// A child on probation has done its first piece of work.
    Passed {
        /// Which.
        child: u32,
    },
    /// The newest failure of a child was not its own: a task was to blame.
    Forgiven {
        /// Which.
        child: u32,
    },
    /// A child ended by itself.
    Down {
        /// Which.
        child: u32,
        /// How.
        exit: Exit,
    },
    /// A child that was told to stop has ended.
    Stopped {
        /// Which.
        child: u32,
    },
    /// Time passed.
    Tick,
}

/// What a supervisor wants done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start the child; it answers with [`Input::Up`] or [`Input::Down`].
    Start {
        /// Which.
        child: u32,
        /// Whether it is on probation: tell when its first piece of work is done.
        probe: bool,
        /// Whether its quarantine has just ended.
        released: bool,
    },
    /// Stop the child; it answers with [`Input::Stopped`] or [`Input::Down`].
    Stop {
        /// Which.
        child: u32,
    },
    /// The child did not stop in time; go on without it.
    Abandon {
        /// Which.
        child: u32,
    },
    /// All children have come up since the start, or are quarantined.
    Ready,
    /// All children have ended for good, as their restart type says.
    Extinct,
    /// All children have ended: tell whoever is above.
    Ended(Ending),
}

/// Why all children of a supervisor have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was told to stop.
    Stopped,
    /// It gave up.
    Meltdown {
        /// The child whose death was one too many.
        child: u32,
        /// The fingerprint of that death's cause.
        cause: u64,
    },
}

/// What becomes of a child that went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is started again at this time, after the others that are restarted with it have stopped.
    Restart {
        /// When.
        at: Timestamp,
    },
    /// It gets no work until then, and is started again on probation.
    Quarantine {
        /// When it is released.
        until: Timestamp,
    },
    /// It stays down: its restart type says so, or the supervisor is ending.
    Gone,
    /// Its siblings are being restarted, and it with them.
    Joined,
    /// The supervisor gives up and stops all children.
    Meltdown,
}
