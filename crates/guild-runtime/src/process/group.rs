//! A process that leads a group of its own, and nothing of which survives its group.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::{ExecError, Resources};

/// What is started.
pub(super) struct Program<'a> {
    pub(super) program: &'a OsString,
    pub(super) args: &'a [OsString],
    pub(super) env: &'a [(OsString, OsString)],
    pub(super) cwd: Option<&'a PathBuf>,
    pub(super) resources: &'a Resources,
    pub(super) has_input: bool,
}

impl Program<'_> {
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Starts the process as the leader of a new group, within its bounds.
    pub(super) fn start<F: Fn(i32)>(
        &self,
        started: impl FnOnce(i32),
        ended: F,
    ) -> Result<(Child, Group<F>), ExecError> {
        let child = self.spawn()?;
        let system = |source| ExecError::System { program: self.name(), source };
        let group = Group::of(&child, started, ended).map_err(system)?;
        let bounded = self.resources.impose(group.pid);
        bounded.and_then(|()| self.resources.grant_cpu_time(group.pid)).map_err(system)?;
        Ok((child, group))
    }

    fn spawn(&self) -> Result<Child, ExecError> {
        let mut command = Command::new(self.program);
        command
            .args(self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(if self.has_input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(cwd) = self.cwd {
            // Otherwise a missing directory would be reported as a missing program.
            if !cwd.is_dir() {
                return Err(ExecError::WorkingDirectory(cwd.display().to_string()));
            }
            command.current_dir(cwd);
        }
        let program = self.name();
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
}

/// A live process group; it is killed when this is dropped, before its leader can be reaped.
pub(super) struct Group<F: Fn(i32)> {
    pub(super) pid: Pid,
    /// Whether the leader was waited for, so that its number may be a stranger's by now.
    reaped: Cell<bool>,
    ended: F,
}

impl<F: Fn(i32)> Group<F> {
    fn of(child: &Child, started: impl FnOnce(i32), ended: F) -> io::Result<Self> {
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| io::Error::other("the process has no number"))?;
        started(pid.as_raw_nonzero().get());
        Ok(Self { pid, reaped: Cell::new(false), ended })
    }

    /// Ends everything in the group at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends a signal to everything in the group, unless its leader was waited for.
    pub(super) fn signal(&self, signal: Signal) {
        if !self.reaped.get() {
            // No process left in the group is the one possible error, and no surprise.
            kill_process_group(self.pid, signal).ok();
        }
    }

    /// Notes that the leader was waited for, after the group was killed.
    pub(super) fn was_reaped(&self) {
        self.reaped.set(true);
    }
}

impl<F: Fn(i32)> Drop for Group<F> {
    fn drop(&mut self) {
        self.kill();
        (self.ended)(self.pid.as_raw_nonzero().get());
    }
}

/// Tells when a process has ended, without reaping it where the system can tell (Linux): the
/// group's number stays taken until the group has been killed.
pub(super) struct ExitWatch {
    #[cfg(target_os = "linux")]
    end: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

impl ExitWatch {
    pub(super) fn new(pid: Pid) -> Self {
        #[cfg(target_os = "linux")]
        return Self { end: end_of(pid).ok() };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = pid;
            Self {}
        }
    }

    /// Waits until the process has ended. Dropping the future and calling again is fine.
    pub(super) async fn exited(&self, child: &mut Child) {
        #[cfg(target_os = "linux")]
        if let Some(end) = &self.end
            && end.readable().await.is_ok()
        {
            return;
        }
        // An error of `wait` shows up again in the caller's own `wait`.
        child.wait().await.ok();
    }
}

/// Returns what becomes readable when the process ends.
#[cfg(target_os = "linux")]
#[expect(deprecated, reason = "an `OwnedFd` keeps the promise that the new function is unsafe for")]
fn end_of(pid: Pid) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)?;
    tokio::io::unix::AsyncFd::new(fd)
}
