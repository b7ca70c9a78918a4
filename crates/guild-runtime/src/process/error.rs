//! Why a process agent ended, or never began.

use std::io;
use std::time::Duration;

use guild_core::incident::Reason;

use super::ending::{Ending, signal_name};
use super::{ExecError, PROTOCOL};
use crate::agent::TaskError;

/// Why a process agent ended. Nothing of it runs any more in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It was not started.
    #[error(transparent)]
    NotStarted(#[from] ExecError),
    /// It speaks another version.
    #[error(
        "`{program}` speaks version {spoken} of the protocol, this guild speaks {PROTOCOL}; \
         answer `hello` by {{\"type\":\"ready\",\"protocol\":{PROTOCOL}}}"
    )]
    Version {
        /// The program.
        program: String,
        /// The version that it greeted with.
        spoken: u32,
    },
    /// It did not greet in time.
    #[error("`{program}` did not greet within {limit:?}")]
    NoHandshake {
        /// The program.
        program: String,
        /// How long it had.
        limit: Duration,
    },
    /// It ended with a status while it was needed.
    #[error("`{program}` ended with status {code} {when}")]
    Exited {
        /// The program.
        program: String,
        /// Its exit status.
        code: i32,
        /// What it was doing.
        when: &'static str,
        /// The end of its standard error output.
        last_words: String,
    },
    /// A signal killed it.
    #[error("`{program}` was killed by signal {signal}{}", signal_name(.signal))]
    Killed {
        /// The program.
        program: String,
        /// The number of the signal.
        signal: i32,
        /// The end of its standard error output.
        last_words: String,
    },
    /// It wrote a line that is no message.
    #[error("`{program}` wrote a line to its standard output that is no message: {why}: {line}")]
    Garbage {
        /// The program.
        program: String,
        /// What is wrong with it.
        why: String,
        /// The begin of the line.
        line: String,
    },
    /// It wrote a line that is too long.
    #[error(
        "`{program}` wrote a line of more than {bytes_max} bytes; raise line_max or write less"
    )]
    LineTooLong {
        /// The program.
        program: String,
        /// The bound.
        bytes_max: usize,
    },
    /// It answered for a lease that it does not hold.
    #[error("`{program}` sent `{kind}` with the token `{token}`, {instead}")]
    StaleToken {
        /// The program.
        program: String,
        /// The type of the message.
        kind: &'static str,
        /// The token that it named.
        token: String,
        /// What would have been right.
        instead: &'static str,
    },
    /// It sent a message that makes no sense at this time.
    #[error("`{program}` sent `{kind}` {when}")]
    Unexpected {
        /// The program.
        program: String,
        /// The type of the message.
        kind: &'static str,
        /// What it should have been doing.
        when: &'static str,
    },
    /// It closed a pipe and went on.
    #[error("`{program}` closed its standard {pipe} and went on")]
    Closed {
        /// The program.
        program: String,
        /// Which pipe.
        pipe: &'static str,
    },
    /// It did not end when it was asked to.
    #[error("`{program}` did not end within {grace:?} of SIGTERM, and was killed")]
    IgnoredSigterm {
        /// The program.
        program: String,
        /// How long it had.
        grace: Duration,
    },
    /// The system could not serve it.
    #[error("cannot talk to `{program}`: {source}")]
    System {
        /// The program.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl ProcessError {
    /// Returns what exactly went wrong.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotStarted(error) => error.reason(),
            Self::Version { .. } | Self::Unexpected { .. } => Reason::Protocol,
            Self::NoHandshake { .. } => Reason::NoHandshake,
            Self::Exited { code, last_words, .. } => Ending::Status(*code).reason(last_words),
            Self::Killed { signal, last_words, .. } => Ending::Signal(*signal).reason(last_words),
            Self::Garbage { .. } => Reason::Garbage,
            Self::LineTooLong { .. } => Reason::LineTooLong,
            Self::StaleToken { .. } => Reason::StaleToken,
            Self::Closed { .. } => Reason::OutputClosed,
            Self::IgnoredSigterm { .. } => Reason::IgnoredSigterm,
            Self::System { .. } => Reason::AgentLost,
        }
    }

    /// Returns the error of a process that ended before it had greeted.
    pub(super) fn before_greeting(mut self) -> Self {
        if let Self::Exited { when, .. } = &mut self {
            *when = "before it had greeted";
        }
        self
    }

    /// Tells whether the process could not even begin, so that no other attempt can end otherwise.
    fn is_hopeless(&self) -> bool {
        match self {
            Self::NotStarted(error) => !error.is_retryable(),
            Self::Version { .. } => true,
            _ => false,
        }
    }
}

impl From<ProcessError> for TaskError {
    fn from(error: ProcessError) -> Self {
        let failed = match &error {
            hopeless if hopeless.is_hopeless() => Self::fatal(hopeless),
            // Nothing has begun, so nothing has crashed.
            ProcessError::NotStarted(_) => Self::retryable(&error),
            crash => Self::crashed(crash),
        };
        let failed = failed.with_reason(error.reason());
        match error {
            ProcessError::Exited { last_words, .. } | ProcessError::Killed { last_words, .. }
                if !last_words.is_empty() =>
            {
                failed.with_cause(format_args!("its last words: {last_words}"))
            }
            _ => failed,
        }
    }
}
