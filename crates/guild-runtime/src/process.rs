//! Runs one real process per attempt, and leaves nothing of it behind.
//!
//! The process leads a process group of its own. Whatever ends the attempt (exit, timeout,
//! cancellation, a crash of the agent, shutdown: all of them drop the future), the whole group is
//! killed, so children that outlive their parent or keep its pipes open cannot hang an attempt or
//! race a later one. The group is killed while its leader is still unreaped: its number cannot
//! have been given to a stranger. A process that leaves its group (`setsid`) is out of reach here;
//! the observer exists so that a reaper outside can also kill what a `kill -9` leaves.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

/// How long pipes are read on after their process and its group were killed: only a process that
/// left the group can still hold them.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// Bytes of the standard error output that an error quotes.
const STDERR_QUOTE_BYTES: usize = 2_048;

/// What to run.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: OsString,
    /// Its arguments; no shell sees them.
    pub args: Vec<OsString>,
    /// Variables that are added to the environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; none: that of this process.
    pub cwd: Option<PathBuf>,
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
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
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
    #[error("`{program}` was killed by signal {signal}{}", quoted(.stderr))]
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
    let mut child = spawn(spec)?;
    let system = |source| ExecError::System { program: name_of(spec), source };
    let group = Group::of(&child, observer).map_err(system)?;
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
        match select(pin!(exited(&mut child, group.pid)), &mut pipes).await {
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
    let status = child.wait().await.map_err(system)?;
    group.reaped.set(true);
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
    let program = name_of(spec);
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
            let stderr = tail(&output.stderr);
            Err(match (status.code(), status.signal()) {
                (Some(code), _) => ExecError::Status { program, code, stderr },
                (None, signal) => {
                    ExecError::Signal { program, signal: signal.unwrap_or(0), stderr }
                }
            })
        }
    }
}

fn spawn(spec: &ExecSpec) -> Result<Child, ExecError> {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdin(if spec.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(cwd) = &spec.cwd {
        // Otherwise a missing directory would be reported as a missing program.
        if !cwd.is_dir() {
            return Err(ExecError::WorkingDirectory(cwd.display().to_string()));
        }
        command.current_dir(cwd);
    }
    let program = name_of(spec);
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ExecError::NotFound(program),
        io::ErrorKind::PermissionDenied => ExecError::NotExecutable(program),
        io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => {
            ExecError::Arguments(program, source)
        }
        _ if source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            ExecError::NotExecutable(program)
        }
        _ => ExecError::System { program, source },
    })
}

fn name_of(spec: &ExecSpec) -> String {
    spec.program.to_string_lossy().into_owned()
}

/// A live process group; it is killed when this is dropped, before its leader can be reaped.
struct Group<'a> {
    pid: Pid,
    /// Whether the leader was waited for, so that its number may be a stranger's by now.
    reaped: Cell<bool>,
    observer: &'a dyn ProcessObserver,
}

impl<'a> Group<'a> {
    fn of(child: &Child, observer: &'a dyn ProcessObserver) -> io::Result<Self> {
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| io::Error::other("the process has no number"))?;
        observer.started(pid.as_raw_nonzero().get());
        Ok(Self { pid, reaped: Cell::new(false), observer })
    }

    fn kill(&self) {
        // No process left in the group is the one possible error, and what is wanted.
        kill_process_group(self.pid, Signal::KILL).ok();
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        if !self.reaped.get() {
            self.kill();
        }
        self.observer.ended(self.pid.as_raw_nonzero().get());
    }
}

/// Waits until the process has ended, without reaping it where the system can tell (Linux): the
/// group's number stays taken until the group has been killed.
async fn exited(child: &mut Child, pid: Pid) {
    #[cfg(target_os = "linux")]
    if let Ok(end) = end_of(pid)
        && end.readable().await.is_ok()
    {
        return;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pid;
    // An error of `wait` shows up again in the caller's own `wait`.
    child.wait().await.ok();
}

/// Returns what becomes readable when the process ends.
#[cfg(target_os = "linux")]
#[expect(deprecated, reason = "an `OwnedFd` keeps the promise that the new function is unsafe for")]
fn end_of(pid: Pid) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)?;
    tokio::io::unix::AsyncFd::new(fd)
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

/// Returns the last lines, as text.
fn tail(stderr: &[u8]) -> String {
    let text = stderr.trim_ascii_end();
    let from = text.len().saturating_sub(STDERR_QUOTE_BYTES);
    let cut = String::from_utf8_lossy(&text[from..]).into_owned();
    if from == 0 { cut } else { format!("...{cut}") }
}

#[cfg(test)]
mod tests;
