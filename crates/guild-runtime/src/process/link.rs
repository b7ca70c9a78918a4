//! The agent's end of its process: greets it, gives it one task at a time, and serves its requests.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use guild_core::graph::Task;
use guild_core::payload::Payload;
use guild_core::retry::RetryPolicy;
use guild_memory::TransactionError;
use rustix::process::Pid;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::ProcessError;
use super::keeper::{Keeper, LastWords, Order, Told, judge_idle};
use super::lines::Lines;
use super::protocol::{FromProcess, PROTOCOL, Say, Spawn, ToProcess, Write, millis};
use super::{ExecError, PIPE_GRACE, ProcessObserver, ProcessSpec};
use crate::agent::TaskError;
use crate::context::TaskContext;
use crate::life::Life;

/// Messages of a process that wait for the agent; beyond, the process waits.
const WAITING_MAX: usize = 16;

/// A running process and the way to talk to it; it is killed when this is dropped.
pub(super) struct Link {
    spec: Arc<ProcessSpec>,
    life: Life,
    pid: Pid,
    stdin: ChildStdin,
    told: mpsc::Receiver<Told>,
    orders: oneshot::Sender<Order>,
    is_busy: Rc<Cell<bool>>,
    has_greeted: bool,
    /// Token of the task that was assigned last.
    token: String,
    /// Whether the process has said anything of that task.
    has_begun: bool,
    /// Whether it has answered for a task before.
    has_served: bool,
}

/// How a task did not complete.
pub(super) enum Failed {
    /// The process lives on.
    Task(TaskError),
    /// The process has ended.
    Process(ProcessError),
}

impl From<ProcessError> for Failed {
    fn from(error: ProcessError) -> Self {
        Self::Process(error)
    }
}

impl Link {
    /// Starts a process.
    pub(super) fn start(
        spec: Arc<ProcessSpec>,
        observer: Arc<dyn ProcessObserver>,
        life: Life,
    ) -> Result<Self, ProcessError> {
        let ended = Arc::clone(&observer);
        let (mut child, group) = spec.program.start(
            true,
            |group| observer.started(group),
            move |group| ended.ended(group),
        )?;
        let missing = || ExecError::System {
            program: spec.program.name(),
            source: std::io::Error::other("it has no pipes"),
        };
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let (tell, told) = mpsc::channel(WAITING_MAX);
        let (orders, obey) = oneshot::channel();
        let is_busy = Rc::new(Cell::new(false));
        let pid = group.pid;
        let keeper = Keeper {
            child,
            group,
            lines: Lines::new(stdout, spec.line_bytes_max),
            last_words: LastWords::of(stderr),
            told: tell,
            orders: obey,
            is_busy: Rc::clone(&is_busy),
            life: life.clone(),
            spec: Arc::clone(&spec),
        };
        actix_rt::spawn(keeper.keep());
        Ok(Self {
            spec,
            life,
            pid,
            stdin,
            told,
            orders,
            is_busy,
            has_greeted: false,
            token: String::new(),
            has_begun: false,
            has_served: false,
        })
    }

    /// Has the process perform one task; greets it before the first.
    pub(super) async fn perform(
        &mut self,
        input: &RawValue,
        context: &mut TaskContext,
    ) -> Result<Box<RawValue>, Failed> {
        self.is_busy.set(true);
        let result = self.attempt(input, context).await;
        self.is_busy.set(false);
        if !matches!(result, Err(Failed::Process(_))) {
            self.has_served = true;
            self.judge_rest();
        }
        result
    }

    /// Tells whether the process has recycled itself after its last task, and never heard of the
    /// one that it was given then.
    pub(super) fn has_recycled(&self, error: &ProcessError) -> bool {
        let ended_well = matches!(error, ProcessError::Exited { code: 0, .. });
        ended_well && self.has_served && !self.has_begun
    }

    /// What the process said after its answer came too late to be heard within the task.
    fn judge_rest(&mut self) {
        while let Ok(told) = self.told.try_recv() {
            let error = match told {
                Told::Ended(ProcessError::Exited { code: 0, .. }) => {
                    return self.life.end_after_task(None);
                }
                Told::Ended(error) => Some(error),
                Told::Message(message) => judge_idle(self.spec.program.name(), message),
            };
            if let Some(error) = error {
                return self.life.end_after_task(Some(error.into()));
            }
        }
    }

    async fn attempt(
        &mut self,
        input: &RawValue,
        context: &mut TaskContext,
    ) -> Result<Box<RawValue>, Failed> {
        if !self.has_greeted {
            self.greet().await?;
            self.has_greeted = true;
        }
        self.assign(input, context).await?;
        let mut wrong_write = None;
        loop {
            let message = self.next().await?;
            let kind = message.kind();
            let (token, say) = match message {
                FromProcess::OfTask { token, say } => (token, say),
                FromProcess::Heartbeat { token } => {
                    if token == self.token {
                        self.has_begun = true;
                        context.heartbeat();
                    }
                    continue;
                }
                FromProcess::Ready { .. } => {
                    let (program, when) = (self.spec.program.name(), "a second time");
                    return Err(ProcessError::Unexpected { program, kind, when }.into());
                }
            };
            if token != self.token {
                let (program, instead) =
                    (self.spec.program.name(), "which is not that of its task");
                return Err(ProcessError::StaleToken { program, kind, token, instead }.into());
            }
            self.has_begun = true;
            match say {
                Say::Result { output } => {
                    return match wrong_write {
                        None => Ok(output),
                        Some(error) => Err(Failed::Task(error)),
                    };
                }
                Say::Error { message, retryable, retry_after } => {
                    return Err(Failed::Task(told_error(message, retryable, retry_after)));
                }
                Say::Get { id, key } => self.get(id, &key, context).await?,
                Say::Scan { id, prefix, limit } => self.scan(id, &prefix, limit, context).await?,
                Say::Write { id, write: change } => {
                    let done = write(change, context);
                    self.acknowledge(id, done, &mut wrong_write).await?;
                }
                Say::Spawn { id, spawn } => {
                    context.spawn(task(*spawn));
                    self.acknowledge(id, Ok(()), &mut wrong_write).await?;
                }
            }
        }
    }

    async fn greet(&mut self) -> Result<(), ProcessError> {
        let (role, agent) = (self.life.role(), self.life.agent());
        let hello = ToProcess::Hello {
            protocol: PROTOCOL,
            guild: env!("CARGO_PKG_VERSION"),
            role: &role,
            agent: &agent,
            incarnation: self.life.incarnation().to_string(),
            line_bytes_max: self.spec.line_bytes_max,
        };
        let line = hello.line();
        let (program, limit) = (self.spec.program.name(), self.spec.handshake);
        let greeted = tokio::time::timeout(limit, async {
            self.write(&line).await?;
            self.next().await
        });
        match greeted.await {
            Err(_) => Err(ProcessError::NoHandshake { program, limit }),
            Ok(Err(error)) => Err(error.before_greeting()),
            Ok(Ok(FromProcess::Ready { protocol: PROTOCOL })) => Ok(()),
            Ok(Ok(FromProcess::Ready { protocol: spoken })) => {
                Err(ProcessError::Version { program, spoken })
            }
            Ok(Ok(message)) => {
                let (kind, when) = (message.kind(), "before it had greeted");
                Err(ProcessError::Unexpected { program, kind, when })
            }
        }
    }

    async fn assign(
        &mut self,
        input: &RawValue,
        context: &mut TaskContext,
    ) -> Result<(), ProcessError> {
        let system = |source| ProcessError::System { program: self.spec.program.name(), source };
        self.spec.program.resources.grant_cpu_time(self.pid).map_err(system)?;
        self.token = context.token().0.to_string();
        self.has_begun = false;
        let (run, name) = (context.run(), context.task());
        let timeout = context.deadline().saturating_duration_since(Instant::now());
        let heartbeat = context.heartbeat_interval();
        let assign = ToProcess::Assign {
            token: &self.token,
            run: &run,
            task: &name,
            attempt: context.attempt(),
            input,
            idempotency_key: context.idempotency_key(),
            timeout_ms: millis(timeout),
            heartbeat_ms: heartbeat.map(millis),
        };
        let line = assign.line();
        self.write(&line).await
    }

    async fn get(
        &mut self,
        id: u64,
        key: &str,
        context: &mut TaskContext,
    ) -> Result<(), ProcessError> {
        let value = context.memory().get_bytes(key).map_err(|error| error.to_string());
        match value.and_then(|value| value.as_ref().map(raw).transpose()) {
            Ok(value) => {
                let found = value.is_some();
                self.say(&ToProcess::Value { id, found, value: value.as_deref() }).await
            }
            Err(message) => self.say(&ToProcess::Refused { id, message }).await,
        }
    }

    async fn scan(
        &mut self,
        id: u64,
        prefix: &str,
        limit: usize,
        context: &mut TaskContext,
    ) -> Result<(), ProcessError> {
        let rows = context.memory().scan_prefix_bytes(prefix, limit);
        let rows = rows.map_err(|error| error.to_string()).and_then(|rows| {
            let row = |(key, value)| raw(&value).map(|value| (key, value));
            rows.into_iter().map(row).collect::<Result<Vec<_>, _>>()
        });
        let line = match rows {
            Ok(rows) => ToProcess::Rows { id, rows }.line(),
            Err(message) => ToProcess::Refused { id, message }.line(),
        };
        if line.len() <= self.spec.line_bytes_max {
            return self.write(&line).await;
        }
        let message = format!(
            "the rows have {} bytes, more than a line may have ({}); ask for fewer of them",
            line.len(),
            self.spec.line_bytes_max
        );
        self.say(&ToProcess::Refused { id, message }).await
    }

    /// Answers a write that asked for it; otherwise the task fails in the end if it was refused.
    async fn acknowledge(
        &mut self,
        id: Option<u64>,
        done: Result<(), TransactionError>,
        wrong_write: &mut Option<TaskError>,
    ) -> Result<(), ProcessError> {
        match (id, done) {
            (Some(id), Ok(())) => self.say(&ToProcess::Done { id }).await,
            (Some(id), Err(error)) => {
                let message = error.to_string();
                self.say(&ToProcess::Refused { id, message }).await
            }
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => {
                wrong_write.get_or_insert(error.into());
                Ok(())
            }
        }
    }

    async fn say(&mut self, message: &ToProcess<'_>) -> Result<(), ProcessError> {
        self.write(&message.line()).await
    }

    async fn write(&mut self, line: &[u8]) -> Result<(), ProcessError> {
        let Err(error) = self.stdin.write_all(line).await else {
            return Ok(());
        };
        // It has most likely died, and how it died says more.
        let ended = async {
            loop {
                match self.told.recv().await {
                    Some(Told::Ended(error)) => return Some(error),
                    Some(Told::Message(_)) => {}
                    None => return None,
                }
            }
        };
        let program = self.spec.program.name();
        match tokio::time::timeout(PIPE_GRACE, ended).await {
            Ok(Some(ended)) => Err(ended),
            Ok(None) => Err(ProcessError::System { program, source: error }),
            Err(_) => Err(ProcessError::Closed { program, pipe: "input" }),
        }
    }

    async fn next(&mut self) -> Result<FromProcess, ProcessError> {
        match self.told.recv().await {
            Some(Told::Message(message)) => Ok(message),
            Some(Told::Ended(error)) => Err(error),
            None => {
                let source = std::io::Error::other("nobody watches it any more");
                Err(ProcessError::System { program: self.spec.program.name(), source })
            }
        }
    }

    /// Ends the process in good order: tells it that its task is not wanted any more, closes its
    /// input, waits, asks by SIGTERM, waits, kills. Returns what went wrong.
    pub(super) async fn stop(mut self) -> Option<ProcessError> {
        if self.is_busy.get() && self.has_greeted {
            let cancel = ToProcess::Cancel { token: &self.token }.line();
            let told = tokio::time::timeout(self.spec.grace, self.stdin.write_all(&cancel)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::debug!("a process did not take its cancellation");
            }
        }
        self.end(true).await
    }

    /// Ends the process at once, with its whole group.
    pub(super) async fn kill(self) {
        self.end(false).await;
    }

    async fn end(self, graceful: bool) -> Option<ProcessError> {
        let Self { stdin, told, orders, .. } = self;
        // The receiver stays until the end: a keeper that has just ended tells it in vain.
        drop(stdin);
        let (done, ended) = oneshot::channel();
        if orders.send(Order { graceful, done }).is_err() {
            return None;
        }
        let wrong = ended.await.unwrap_or(None);
        drop(told);
        wrong
    }
}

fn told_error(
    message: String,
    retryable: bool,
    retry_after: Option<std::time::Duration>,
) -> TaskError {
    let error = if retryable { TaskError::retryable(message) } else { TaskError::fatal(message) };
    match retry_after {
        Some(delay) => error.with_retry_after(delay),
        None => error,
    }
}

fn write(write: Write, context: &mut TaskContext) -> Result<(), TransactionError> {
    let memory = context.memory();
    match write {
        Write::Put { key, value } => memory.put_bytes(key, value.get().as_bytes().to_vec()),
        Write::Delete { key } => memory.delete(key),
        Write::Merge { key, merge } => memory.merge(key, merge)?,
    }
    Ok(())
}

fn task(spawn: Spawn) -> Task {
    let input = Payload::from_json(spawn.input.get());
    let mut task = Task::new(&spawn.name, spawn.role)
        .input_expr(guild_core::graph::Expr::Value(input))
        .priority(spawn.priority);
    for before in spawn.after {
        task = task.after(before);
    }
    if let Some(attempts_max) = spawn.attempts {
        task = task.retry(RetryPolicy { attempts_max, ..RetryPolicy::default() });
    }
    if let Some(timeout) = spawn.timeout {
        task = task.timeout(timeout);
    }
    match spawn.heartbeat {
        Some(interval) => task.heartbeat(interval),
        None => task,
    }
}

/// Returns a value of the memory as JSON.
fn raw(value: &Bytes) -> Result<Box<RawValue>, String> {
    serde_json::from_slice(value).map_err(|_| "the value of the key is no JSON".to_owned())
}
