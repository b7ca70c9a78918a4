//! Watches one process from its start to its end: reads what it says, and sees how it dies.
//!
//! A task of its own on the agent's arbiter, so that a process that fails while its agent has no
//! task is noticed at once. While the agent performs a task everything goes to [`super::link::Link`];
//! otherwise the keeper judges by itself and ends the agent's life. When the link is dropped the
//! process group is killed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::ending::{Ending, LAST_WORDS_BYTES, last_words};
use super::error::ProcessError;
use super::group::{ExitWatch, Group};
use super::lines::{LineError, Lines};
use super::protocol::FromProcess;
use super::{PIPE_GRACE, ProcessSpec};
use crate::life::Life;

/// Characters of a wrong line that an error quotes.
const QUOTE_CHARS: usize = 200;

/// What a keeper tells the link while a task is under way.
#[derive(Debug)]
pub(super) enum Told {
    /// The process said something.
    Message(FromProcess),
    /// Nothing of it runs any more.
    Ended(ProcessError),
}

/// How the link ends the process.
pub(super) struct Order {
    /// Whether it is given time to end by itself.
    pub(super) graceful: bool,
    /// Told when nothing of it runs any more, with what went wrong.
    pub(super) done: oneshot::Sender<Option<ProcessError>>,
}

/// What a keeper is made of.
pub(super) struct Keeper<F: Fn(i32)> {
    pub(super) child: Child,
    pub(super) group: Group<F>,
    pub(super) lines: Lines<ChildStdout>,
    pub(super) last_words: LastWords,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) orders: oneshot::Receiver<Order>,
    /// Whether the agent performs a task.
    pub(super) is_busy: Rc<Cell<bool>>,
    pub(super) life: Life,
    pub(super) spec: Arc<ProcessSpec>,
}

enum Event {
    Order(Option<Order>),
    Line(Result<Option<Vec<u8>>, LineError>),
    Exited,
}

impl<F: Fn(i32)> Keeper<F> {
    /// Keeps the process until it has ended.
    pub(super) async fn keep(mut self) {
        let watch = ExitWatch::new(self.group.pid);
        loop {
            let event = tokio::select! {
                biased;
                order = &mut self.orders => Event::Order(order.ok()),
                line = self.lines.next() => Event::Line(line),
                () = watch.exited(&mut self.child) => Event::Exited,
            };
            let end = match event {
                Event::Order(order) => return self.obey(order, &watch).await,
                Event::Line(Ok(Some(line))) => match self.hear(&line).await {
                    None => continue,
                    Some(End::Order(order)) => return self.obey(order, &watch).await,
                    Some(End::Error(error)) => error,
                },
                Event::Line(Ok(None)) => self.closed(&watch).await,
                Event::Line(Err(LineError::TooLong)) => {
                    let (program, bytes_max) = (self.spec.program.name(), self.spec.line_bytes_max);
                    ProcessError::LineTooLong { program, bytes_max }
                }
                Event::Line(Err(LineError::Failed(source))) => {
                    ProcessError::System { program: self.spec.program.name(), source }
                }
                Event::Exited => match self.exited().await {
                    Some(End::Order(order)) => return self.obey(order, &watch).await,
                    Some(End::Error(error)) => error,
                    None => self.ended().await,
                },
            };
            return self.give_up(end, &watch).await;
        }
    }

    /// Takes a line.
    async fn hear(&mut self, line: &[u8]) -> Option<End> {
        let message = match FromProcess::read(line) {
            Ok(message) => message,
            Err(why) => {
                let text = String::from_utf8_lossy(line);
                let quote: String = text.chars().take(QUOTE_CHARS).collect();
                let (program, line) = (self.spec.program.name(), format!("{quote:?}"));
                return Some(End::Error(ProcessError::Garbage { program, why, line }));
            }
        };
        if self.is_busy.get() {
            return self.tell(Told::Message(message)).await.map(End::Order);
        }
        judge_idle(self.spec.program.name(), message).map(End::Error)
    }

    /// Tells the link something, unless it has an order instead.
    async fn tell(&mut self, told: Told) -> Option<Option<Order>> {
        tokio::select! {
            biased;
            order = &mut self.orders => Some(order.ok()),
            // A link that is gone has dropped its orders as well.
            _ = self.told.send(told) => None,
        }
    }

    /// The standard output has ended: what about the process?
    async fn closed(&mut self, watch: &ExitWatch) -> ProcessError {
        if tokio::time::timeout(PIPE_GRACE, watch.exited(&mut self.child)).await.is_ok() {
            return self.ended().await;
        }
        ProcessError::Closed { program: self.spec.program.name(), pipe: "output" }
    }

    /// The process has exited: hears what it had said before.
    async fn exited(&mut self) -> Option<End> {
        // Whoever in the group holds the pipe open dies with it.
        self.group.kill();
        let rest = async {
            while let Ok(Some(line)) = self.lines.next().await {
                if let Some(end) = self.hear(&line).await {
                    return Some(end);
                }
            }
            None
        };
        tokio::time::timeout(PIPE_GRACE, rest).await.unwrap_or(None)
    }

    /// Returns how a process ended that has exited.
    async fn ended(&mut self) -> ProcessError {
        self.group.kill();
        let program = self.spec.program.name();
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(source) => return ProcessError::System { program, source },
        };
        self.group.was_reaped();
        let last_words = self.last_words.hear().await;
        let when = if self.is_busy.get() { "in the middle of a task" } else { "without a task" };
        match Ending::of(status) {
            Ending::Status(code) => ProcessError::Exited { program, code, when, last_words },
            Ending::Signal(signal) => ProcessError::Killed { program, signal, last_words },
        }
    }

    /// Ends the process for what it did, and tells whom it concerns.
    async fn give_up(mut self, error: ProcessError, watch: &ExitWatch) {
        self.reap(watch).await;
        if self.is_busy.get() {
            if let Some(Some(order)) = self.tell(Told::Ended(error)).await {
                answer(order.done, None);
            }
        } else if matches!(error, ProcessError::Exited { code: 0, .. }) {
            // It may recycle itself between two tasks. Should the agent have been given one just now,
            // the link has to know.
            self.group.ended_well();
            if self.told.try_send(Told::Ended(error)).is_err() {
                tracing::debug!("nobody uses the process any more");
            }
            self.life.retire();
        } else {
            self.life.end(error.into());
        }
    }

    /// Ends the process as the link wants it; at once, when the link is gone.
    async fn obey(mut self, order: Option<Order>, watch: &ExitWatch) {
        let mut wrong = None;
        if order.as_ref().is_some_and(|order| order.graceful) && !self.ends(watch).await {
            self.group.signal(Signal::TERM);
            if !self.ends(watch).await {
                let (program, grace) = (self.spec.program.name(), self.spec.grace);
                wrong = Some(ProcessError::IgnoredSigterm { program, grace });
            }
        } else if order.is_some() && !self.is_busy.get() {
            self.group.ended_well();
        }
        self.reap(watch).await;
        if let Some(order) = order {
            answer(order.done, wrong);
        }
    }

    /// Waits a while for the process to end by itself; what it still says is not heard.
    async fn ends(&mut self, watch: &ExitWatch) -> bool {
        let (child, lines) = (&mut self.child, &mut self.lines);
        let end = async {
            tokio::select! {
                biased;
                () = watch.exited(child) => {}
                () = async { lines.discard().await; std::future::pending().await } => {}
            }
        };
        tokio::time::timeout(self.spec.grace, end).await.is_ok()
    }

    /// Kills the whole group and waits for its leader.
    async fn reap(&mut self, watch: &ExitWatch) {
        self.group.kill();
        watch.exited(&mut self.child).await;
        if let Err(error) = self.child.wait().await {
            tracing::debug!(%error, "a process cannot be waited for");
        }
        self.group.was_reaped();
    }
}

enum End {
    Order(Option<Order>),
    Error(ProcessError),
}

/// Judges what a process says that has no task; a heartbeat may have crossed its result.
pub(super) fn judge_idle(program: String, message: FromProcess) -> Option<ProcessError> {
    let kind = message.kind();
    match message {
        FromProcess::Heartbeat { .. } => None,
        FromProcess::Ready { .. } => {
            Some(ProcessError::Unexpected { program, kind, when: "a second time" })
        }
        FromProcess::OfTask { token, .. } => {
            let instead = "but it has no task: that one is over";
            Some(ProcessError::StaleToken { program, kind, token, instead })
        }
    }
}

/// Whoever asked may have stopped waiting.
fn answer(done: oneshot::Sender<Option<ProcessError>>, wrong: Option<ProcessError>) {
    if done.send(wrong).is_err() {
        tracing::debug!("nobody waits for the end of a process any more");
    }
}

/// Remembers the end of what a process writes to its standard error output.
pub(super) struct LastWords {
    text: Rc<RefCell<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl LastWords {
    /// Reads to the end of the pipe, in a task of its own.
    pub(super) fn of(mut pipe: ChildStderr) -> Self {
        let text = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&text);
        let reader = actix_rt::spawn(async move {
            let mut piece = vec![0; LAST_WORDS_BYTES];
            while let Ok(count @ 1..) = pipe.read(&mut piece).await {
                let mut text = heard.borrow_mut();
                text.extend_from_slice(&piece[..count]);
                // More than is quoted tells that there was more, also when blank lines are cut off.
                let surplus = text.len().saturating_sub(2 * LAST_WORDS_BYTES);
                text.drain(..surplus);
            }
        });
        Self { text, reader }
    }

    /// Returns the last words of a process that has ended.
    async fn hear(&mut self) -> String {
        let limit = Duration::from_millis(200).min(PIPE_GRACE);
        if tokio::time::timeout(limit, &mut self.reader).await.is_err() {
            tracing::debug!("a process outside of the group holds the standard error output");
        }
        last_words(&self.text.borrow())
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn of_what_a_process_writes_to_its_standard_error_only_the_end_is_kept() {
        actix_rt::System::new().block_on(async {
            let script = "head -c 5000000 /dev/zero | tr '\\0' x >&2; echo the end >&2";
            let mut shell = tokio::process::Command::new("sh");
            let mut child =
                shell.args(["-c", script]).stderr(Stdio::piped()).spawn().expect("a shell");
            let mut heard = LastWords::of(child.stderr.take().expect("a pipe"));
            child.wait().await.expect("it ends");

            let words = heard.hear().await;
            assert!(words.starts_with("...x") && words.ends_with("xthe end"), "{words}");
            assert!(heard.text.borrow().capacity() < 5 * LAST_WORDS_BYTES);
        });
    }
}
