//! Names what exactly went wrong.
//!
//! [`Cause`] is what retries and restarts are decided by, and stays coarse. A reason is for the
//! person who has to find the mistake, and for counting which of them happens most.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Cause;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What exactly went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons with their names in the event log.
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$variant)),+];

            /// Returns the reason's name in the event log.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// The agent answered with an error.
    Error = "error",
    /// The agent's code panicked.
    Panic = "panic",
    /// The attempt took longer than its task allows.
    Timeout = "timeout",
    /// The agent did not renew its lease in time.
    Heartbeat = "heartbeat",
    /// The agent was gone before it answered.
    AgentLost = "agent_lost",
    /// What the task had read changed before it could commit.
    Conflict = "conflict",
    /// A process touched memory that it does not have.
    Segfault = "segfault",
    /// A process gave up by itself (SIGABRT).
    Abort = "abort",
    /// A process was killed by another signal.
    Signal = "signal",
    /// A process ended where it should not have.
    Exit = "exit",
    /// A process needed more memory than it may have.
    OutOfMemory = "out_of_memory",
    /// A process used more processor time than it may.
    CpuTime = "cpu_time",
    /// A process wrote more than it may.
    TooMuchOutput = "too_much_output",
    /// A process wrote something to its standard output that is no message.
    Garbage = "garbage",
    /// A process wrote a line that is longer than allowed.
    LineTooLong = "line_too_long",
    /// A process sent a message that makes no sense at this time.
    Protocol = "protocol",
    /// A process answered for a lease that it does not hold.
    StaleToken = "stale_token",
    /// A process did not greet in time.
    NoHandshake = "no_handshake",
    /// A process closed its standard output and went on.
    OutputClosed = "output_closed",
    /// A process did not end when it was asked to, and was killed.
    IgnoredSigterm = "ignored_sigterm",
    /// A program could not be started.
    NotStarted = "not_started",
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Error => Self::Error,
            Cause::Panic => Self::Panic,
            Cause::Timeout => Self::Timeout,
            Cause::Heartbeat => Self::Heartbeat,
            Cause::AgentLost => Self::AgentLost,
            Cause::Conflict => Self::Conflict,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
