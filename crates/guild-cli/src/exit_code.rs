//! The exit codes of `guild`, and the errors that lead to them.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::flow::problem::FlowError;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// The run ended, but some task failed.
    Failed = 1,
    /// Bad input or usage; nothing was started and nothing was written.
    BadInput = 2,
    /// An invariant is violated, or a fault plan has not shown what it says.
    Violated = 3,
    /// The store cannot be used.
    Store = 4,
    /// Interrupted; the run can be resumed.
    Interrupted = 130,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The flow file is wrong.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// An argument is wrong, or names what does not exist.
    #[error("{0}")]
    BadInput(String),
    /// An invariant is violated.
    #[error("{0}")]
    Violated(String),
    /// The store cannot be used.
    #[error("{0}")]
    Store(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// The file of the event log cannot be written.
    #[error("--events: cannot write {}: {error}; the run can be resumed if it has a store", .path.display())]
    EventLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

impl CommandError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Flow(_) | Self::BadInput(_) => Exit::BadInput,
            Self::Violated(_) => Exit::Violated,
            Self::Store(_) => Exit::Store,
            Self::Output(_) | Self::EventLog { .. } => Exit::Failed,
        }
    }
}

impl From<guild::StoreError> for CommandError {
    fn from(error: guild::StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<guild_memory::OpenError> for CommandError {
    fn from(error: guild_memory::OpenError) -> Self {
        Self::Store(error.to_string())
    }
}
