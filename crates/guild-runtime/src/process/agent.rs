//! An agent that is a process of its own, in any language.
//!
//! The process is started with the first task of a life and lives as long as that life. What it
//! does wrong ends both; the supervisor decides about the next life, as for every other agent.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::link::{Failed, Link};
use super::{ProcessObserver, Program};
use crate::agent::{Agent, TaskError};
use crate::context::TaskContext;
use crate::life::Life;

/// What is started for each life of an agent, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// What is run.
    pub program: Program,
    /// How long the process may take to greet. Beyond: it is killed.
    pub handshake: Duration,
    /// How long the process may take to end by itself, and again after SIGTERM. Beyond: it is
    /// killed. Both together stay within `Limits::end_time_max`.
    pub grace: Duration,
    /// Bytes of one line that it writes. Beyond: it is killed.
    pub line_bytes_max: usize,
}

impl ProcessSpec {
    /// Returns the specification of a program without arguments: 10 s to greet, 500 ms to end,
    /// lines of 16 MiB, and nothing else bounded.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: Program::new(program),
            handshake: Duration::from_secs(10),
            grace: Duration::from_millis(500),
            line_bytes_max: 16 << 20,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.program.args.push(arg.into());
        self
    }
}

/// An agent whose tasks are performed by a process that speaks the protocol of
/// `docs/process-agents.md`.
pub struct ProcessAgent {
    spec: Arc<ProcessSpec>,
    observer: Arc<dyn ProcessObserver>,
    life: Life,
    link: Option<Link>,
}

impl fmt::Debug for ProcessAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessAgent")
            .field("program", &self.spec.program.path)
            .field("life", &self.life)
            .field("is_running", &self.link.is_some())
            .finish_non_exhaustive()
    }
}

impl ProcessAgent {
    /// Returns the agent of this life; its process starts with its first task.
    pub fn new(spec: impl Into<Arc<ProcessSpec>>, life: Life) -> Self {
        Self { spec: spec.into(), observer: Arc::new(()), life, link: None }
    }

    /// Lets somebody know of its process groups.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn ProcessObserver>) -> Self {
        self.observer = observer;
        self
    }
}

impl Agent for ProcessAgent {
    type Input = Box<RawValue>;
    type Output = Box<RawValue>;

    async fn perform(
        &mut self,
        input: Box<RawValue>,
        context: &mut TaskContext,
    ) -> Result<Box<RawValue>, TaskError> {
        loop {
            let link = match &mut self.link {
                Some(link) => link,
                None => {
                    let (spec, observer) = (Arc::clone(&self.spec), Arc::clone(&self.observer));
                    self.link.insert(Link::start(spec, observer, self.life.clone())?)
                }
            };
            match link.perform(&input, context).await {
                Ok(output) => return Ok(output),
                Err(Failed::Task(error)) => return Err(error),
                Err(Failed::Process(error)) => {
                    let has_recycled = link.has_recycled(&error);
                    if let Some(link) = self.link.take() {
                        link.kill().await;
                    }
                    // The next process has served nobody yet, so this happens once.
                    if !has_recycled {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    async fn end(&mut self) -> Result<(), TaskError> {
        let Some(link) = self.link.take() else {
            return Ok(());
        };
        match link.stop().await {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }
}
