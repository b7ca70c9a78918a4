//! What a user writes: an agent that performs tasks of one role.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use guild_core::event::Cause;
use guild_core::incident::Reason;
use guild_core::payload::Payload;
use guild_memory::TransactionError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::TaskContext;
use crate::life::Life;

/// Performs tasks of one role, one at a time.
///
/// A factory builds an agent for each of its lives (incarnations). When it panics, hangs beyond its
/// task's timeout or is cancelled, this value is dropped together with the future that was
/// performing, and the factory builds a fresh one: torn state never survives.
pub trait Agent: 'static {
    /// What the agent needs to know.
    type Input: DeserializeOwned + 'static;
    /// What the agent finds out.
    type Output: Serialize + 'static;

    /// Performs one task.
    ///
    /// Memory writes and spawned tasks are committed together with the output, or not at all.
    ///
    /// # Cancel safety
    /// The future is dropped at an await when the attempt times out or is cancelled; nothing it
    /// wrote is committed then. Code that blocks without an await cannot be interrupted.
    fn perform(
        &mut self,
        input: Self::Input,
        context: &mut TaskContext,
    ) -> impl Future<Output = Result<Self::Output, TaskError>>;

    /// Ends this life of the agent in good order; it is dropped afterwards.
    ///
    /// Called when the agent's task was taken away (timeout, lost heartbeat, cancellation) and when
    /// the guild shuts down, not after a panic: then it is only dropped. The next life begins when
    /// this has returned, or after [`Limits::end_time_max`](guild_core::limits::Limits).
    fn end(&mut self) -> impl Future<Output = Result<(), TaskError>> {
        std::future::ready(Ok(()))
    }
}

/// Why an attempt failed, and whether trying again may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    message: String,
    kind: Kind,
    retry_after: Option<Duration>,
    reason: Option<Reason>,
    causes: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Retryable,
    Fatal,
    Crashed,
    Gone,
}

impl TaskError {
    /// The attempt failed; another one may succeed.
    pub fn retryable(message: impl fmt::Display) -> Self {
        Self::new(message, Kind::Retryable)
    }

    /// The task cannot succeed, however often it is tried.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self::new(message, Kind::Fatal)
    }

    /// The agent can no longer be trusted (its child process died, say): its life ends as if it
    /// had panicked, and the task goes to another agent.
    pub fn crashed(message: impl fmt::Display) -> Self {
        Self::new(message, Kind::Crashed)
    }

    /// Asks for at least this delay before the next attempt (an API said "try again in 30 s").
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Says what exactly went wrong, for the incident.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Adds what was behind it, for the incident; the nearest first.
    #[must_use]
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string().into());
        self
    }

    /// Adds an error and all of its sources as what was behind it.
    #[must_use]
    pub fn with_source(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self = self.with_cause(error);
            next = error.source();
        }
        self
    }

    /// Returns whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        self.kind != Kind::Fatal
    }

    /// The agent has ended, and nobody knows why.
    pub(crate) fn gone(message: impl fmt::Display) -> Self {
        Self::new(message, Kind::Gone)
    }

    /// Returns the same error as one that ends the agent's life.
    pub(crate) fn into_crash(mut self) -> Self {
        if !self.is_crash() {
            self.kind = Kind::Crashed;
        }
        self
    }

    pub(crate) fn is_crash(&self) -> bool {
        matches!(self.kind, Kind::Crashed | Kind::Gone)
    }

    pub(crate) fn cause(&self) -> Cause {
        match self.kind {
            Kind::Crashed => Cause::Panic,
            Kind::Gone => Cause::AgentLost,
            Kind::Retryable | Kind::Fatal => Cause::Error,
        }
    }

    pub(crate) fn reason(&self) -> Reason {
        self.reason.unwrap_or_else(|| self.cause().into())
    }

    pub(crate) fn causes(&self) -> &[Box<str>] {
        &self.causes
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn new(message: impl fmt::Display, kind: Kind) -> Self {
        let (retry_after, reason, causes) = (None, None, Vec::new());
        Self { message: message.to_string(), kind, retry_after, reason, causes }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TaskError {}

impl From<std::io::Error> for TaskError {
    fn from(error: std::io::Error) -> Self {
        Self::retryable(error)
    }
}

/// A value of another type stays one, so trying again cannot help; a condition that does not hold
/// may hold later.
impl From<TransactionError> for TaskError {
    fn from(error: TransactionError) -> Self {
        if error.depends_on_others() { Self::retryable(error) } else { Self::fatal(error) }
    }
}

/// An agent whose input and output types are erased.
pub(crate) trait Behaviour {
    fn perform<'a>(
        &'a mut self,
        input: Payload,
        context: &'a mut TaskContext,
    ) -> LocalBoxFuture<'a, Result<Payload, TaskError>>;

    fn end(&mut self) -> LocalBoxFuture<'_, Result<(), TaskError>>;
}

struct Typed<A>(A);

impl<A: Agent> Behaviour for Typed<A> {
    fn perform<'a>(
        &'a mut self,
        input: Payload,
        context: &'a mut TaskContext,
    ) -> LocalBoxFuture<'a, Result<Payload, TaskError>> {
        Box::pin(async move {
            let input = input.decode().map_err(|error| {
                TaskError::fatal(format_args!("the input is not of the agent's type: {error}"))
            })?;
            let output = self.0.perform(input, context).await?;
            Payload::encode(&output)
                .map_err(|error| TaskError::fatal(format_args!("the output is no JSON: {error}")))
        })
    }

    fn end(&mut self) -> LocalBoxFuture<'_, Result<(), TaskError>> {
        // Also what it does before its first await is polled, under the catch that polls it.
        Box::pin(async move { self.0.end().await })
    }
}

/// Builds the behaviour of each incarnation, on the arbiter where the agent lives.
#[derive(Clone)]
pub(crate) struct Factory(Arc<dyn Fn(Life) -> Box<dyn Behaviour> + Send + Sync>);

impl Factory {
    pub(crate) fn new<A: Agent>(make: impl Fn(Life) -> A + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |life| Box::new(Typed(make(life)))))
    }

    pub(crate) fn make(&self, life: Life) -> Box<dyn Behaviour> {
        (self.0)(life)
    }
}
