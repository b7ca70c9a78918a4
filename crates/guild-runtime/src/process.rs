//! Real processes: one per attempt, or one that lives as long as its agent and talks to it.
//!
//! [`run`] runs a process for one attempt. [`ProcessAgent`] keeps one and gives it tasks by the
//! protocol of `docs/process-agents.md`, so that agents can be written in any language.
//!
//! A process leads a process group of its own. Whatever ends the attempt or the agent (exit, timeout,
//! cancellation, a crash, shutdown: all of them drop the future), the whole group is
//! killed, so children that outlive their parent or keep its pipes open cannot hang an attempt or
//! race a later one. The group is killed while its leader is still unreaped: its number cannot
//! have been given to a stranger. A process that has left its group (`setsid`) is looked for by the
//! mark in its environment when its ancestor ends badly. The observer exists so that a reaper outside
//! can also kill what a `kill -9` leaves.

use std::ffi::OsString;
use std::io;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use guild_core::incident::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;

mod agent;
mod ending;
mod error;
mod group;
mod keeper;
mod lines;
mod link;
mod protocol;
mod resources;
mod strays;

pub use agent::{ProcessAgent, ProcessSpec};
use ending::{Ending, last_words, signal_name};
pub use error::ProcessError;
use group::ExitWatch;
pub use group::Program;
pub use protocol::PROTOCOL;
pub use resources::Resources;

/// How long pipes are read on after their process and its group were killed: only a process that
/// left the group can still hold them.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// What is run.
    pub program: Program,
    /// What the process reads from its standard input; a process that does not read it is fine.
    pub stdin: Bytes,
    /// Bytes of standard output. Beyond: the group is killed, the attempt is not retried.
    pub stdout_bytes_max: usize,
    /// Bytes of standard error. Beyond: the group is killed, the attempt is not retried.
    pub stderr_bytes_max: usize,
}

impl ExecSpec {
    /// Returns the specification of a program without arguments and input, with bounds of 16 MiB
    /// for standard output and 1 MiB for standard error.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: Program::new(program),
            stdin: Bytes::new(),
            stdout_bytes_max: 16 << 20,
            stderr_bytes_max: 1 << 20,
        }
    }
}

/// What a process that ended with status 0 wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Learns which process groups exist, so that somebody can kill them when this process is killed.
pub trait ProcessObserver: Send + Sync {
    /// A group was started.
    fn started(&self, group: i32);
    /// The group was killed: nothing of it runs any more.
    fn ended(&self, group: i32);
}

/// The observer that does nothing.
impl ProcessObserver for () {
    fn started(&self, _group: i32) {}
    fn ended(&self, _group: i32) {}
}

/// Why a process did not end well. Nothing of it runs any more in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// No such program (or the interpreter in its first line does not exist).
    #[error("command not found: `{0}` is no program in PATH; install it or correct the name")]
    NotFound(String),
    /// The file cannot be executed.
    #[error("command `{0}` is not executable; check its permissions (chmod +x)")]
    NotExecutable(String),
    /// The working directory cannot be entered.
    #[error("working directory `{0}` does not exist or is no directory")]
    WorkingDirectory(String),
    /// The arguments and the environment exceed what the system takes, or contain a NUL byte.
    #[error("the arguments of `{0}` cannot be passed on ({1}); give large data by standard input")]
    Arguments(String, io::Error),
    /// The system could not start or serve the process now.
    #[error("cannot run `{program}`: {source}")]
    System {
        /// The program.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("`{program}` ended with status {code}{}", quoted(.stderr))]
    Status {
        /// The program.
        program: String,
        /// Its exit status.
        code: i32,
        /// The end of its standard error output.
        stderr: String,
    },
    /// A signal killed it.
    #[error("`{program}` was killed by signal {signal}{}{}", signal_name(.signal), quoted(.stderr))]
    Signal {
        /// The program.
        program: String,
        /// The number of the signal.
        signal: i32,
        /// The end of its standard error output.
        stderr: String,
    },
    /// It wrote more than it may.
    #[error(
        "`{program}` wrote more than {bytes_max} bytes to its {stream}; raise {key} or write less"
    )]
    TooMuchOutput {
        /// The program.
        program: String,
        /// Which output.
        stream: &'static str,
        /// The bound.
        bytes_max: usize,
        /// The name of the bound in a flow file.
        key: &'static str,
    },
}

impl ExecError {
    /// Tells whether another attempt can end otherwise.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::System { .. } | Self::Status { .. } | Self::Signal { .. })
    }

    /// Returns what exactly went wrong.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_)
            | Self::NotExecutable(_)
            | Self::WorkingDirectory(_)
            | Self::Arguments(..)
            | Self::System { .. } => Reason::NotStarted,
            Self::Status { code, stderr, .. } => Ending::Status(*code).reason(stderr),
            Self::Signal { signal, stderr, .. } => Ending::Signal(*signal).reason(stderr),
            Self::TooMuchOutput { .. } => Reason::TooMuchOutput,
        }
    }
}

fn quoted(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// Runs a process to its end.
///
/// # Errors
/// Each variant of [`ExecError`]; the whole process group is gone by then.
///
/// # Cancel safety
/// Dropping the future kills the whole process group at once.
pub async fn run(spec: &ExecSpec, observer: &dyn ProcessObserver) -> Result<ExecOutput, ExecError> {
    let (mut child, group) = spec.program.start(
        !spec.stdin.is_empty(),
        |group| observer.started(group),
        |group| observer.ended(group),
    )?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut output = ExecOutput::default();

    let pipes = async {
        let out = read(stdout, &mut output.stdout, spec.stdout_bytes_max);
        let err = read(stderr, &mut output.stderr, spec.stderr_bytes_max);
        let outputs = async {
            let (mut out, mut err) = (pin!(out), pin!(err));
            match select(&mut out, &mut err).await {
                Either::Left((Ok(()), _)) => err.await.map_err(|end| (end, "stderr")),
                Either::Left((Err(end), _)) => Err((end, "stdout")),
                Either::Right((Ok(()), _)) => out.await.map_err(|end| (end, "stdout")),
                Either::Right((Err(end), _)) => Err((end, "stderr")),
            }
        };
        match select(pin!(outputs), pin!(write(stdin, &spec.stdin))).await {
            Either::Left((Ok(()), written)) => {
                written.await;
                Ok(())
            }
            Either::Left((end, _)) => end,
            Either::Right(((), outputs)) => outputs.await,
        }
    };
    let read = {
        let mut pipes = pin!(pipes);
        let watch = ExitWatch::new(group.pid);
        match select(pin!(watch.exited(&mut child)), &mut pipes).await {
            Either::Right((Ok(()), exit)) => {
                exit.await;
                Ok(())
            }
            Either::Right((Err(end), _)) => Err(end),
            Either::Left(_) => {
                group.kill();
                drain(pipes).await
            }
        }
    };
    group.kill();
    let system = |source| ExecError::System { program: spec.program.name(), source };
    let status = child.wait().await.map_err(system)?;
    group.was_reaped();
    if status.success() && read.is_ok() {
        group.ended_well();
    }
    drop(group);
    judge(spec, read, status, output)
}

/// Reads what is left in the pipes; gives up on pipes that a runaway process holds open.
async fn drain<T>(pipes: Pin<&mut impl Future<Output = Result<(), T>>>) -> Result<(), T> {
    tokio::time::timeout(PIPE_GRACE, pipes).await.unwrap_or(Ok(()))
}

fn judge(
    spec: &ExecSpec,
    read: Result<(), (ReadEnd, &'static str)>,
    status: ExitStatus,
    output: ExecOutput,
) -> Result<ExecOutput, ExecError> {
    let program = spec.program.name();
    match read {
        Err((ReadEnd::TooMuch, "stdout")) => {
            let (bytes_max, key) = (spec.stdout_bytes_max, "stdout_max");
            Err(ExecError::TooMuchOutput { program, stream: "standard output", bytes_max, key })
        }
        Err((ReadEnd::TooMuch, _)) => {
            let (bytes_max, key) = (spec.stderr_bytes_max, "stderr_max");
            Err(ExecError::TooMuchOutput { program, stream: "standard error", bytes_max, key })
        }
        Err((ReadEnd::Failed(source), _)) => Err(ExecError::System { program, source }),
        Ok(()) if status.success() => Ok(output),
        Ok(()) => {
            let stderr = last_words(&output.stderr);
            Err(match Ending::of(status) {
                Ending::Status(code) => ExecError::Status { program, code, stderr },
                Ending::Signal(signal) => ExecError::Signal { program, signal, stderr },
            })
        }
    }
}

enum ReadEnd {
    TooMuch,
    Failed(io::Error),
}

async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), ReadEnd> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut pipe = pipe.take(bytes_max as u64 + 1);
    pipe.read_to_end(into).await.map_err(ReadEnd::Failed)?;
    if into.len() > bytes_max { Err(ReadEnd::TooMuch) } else { Ok(()) }
}

async fn write(pipe: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut pipe) = pipe {
        // A process that does not read its input to the end is no error (`head`).
        pipe.write_all(bytes).await.ok();
        pipe.shutdown().await.ok();
    }
}

#[cfg(test)]
mod tests;
