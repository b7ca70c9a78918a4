//! A process that leads a group of its own, and nothing of which survives its group.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::strays::{self, Mark};
use super::{ExecError, Resources};

/// What is started, where, and within which bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub path: OsString,
    /// Its arguments; no shell sees them.
    pub args: Vec<OsString>,
    /// Variables that are added to the environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; none: that of this process.
    pub cwd: Option<PathBuf>,
    /// What the process may use.
    pub resources: Resources,
}

impl Program {
    /// Returns a program without arguments that is bounded by nothing.
    pub fn new(path: impl Into<OsString>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    pub(super) fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Starts the process as the leader of a new group, within its bounds.
    pub(super) fn start<F: Fn(i32)>(
        &self,
        has_input: bool,
        started: impl FnOnce(i32),
        ended: F,
    ) -> Result<(Child, Group<F>), ExecError> {
        let mark = Mark::new();
        let child = self.spawn(has_input, &mark)?;
        let system = |source| ExecError::System { program: self.name(), source };
        let group = Group::of(&child, mark, started, ended).map_err(system)?;
        Ok((child, group))
    }

    /// Checks that there is something to run, which a shell in between would tell less well.
    fn check(&self) -> Result<(), ExecError> {
        let program = Path::new(&self.path);
        let found: Vec<PathBuf> = if program.components().count() > 1 {
            vec![self.cwd.as_ref().map_or_else(|| program.into(), |cwd| cwd.join(program))]
        } else {
            let of_child = self.env.iter().rev().find(|(name, _)| name == "PATH");
            let path = of_child.map(|(_, path)| path.clone()).or_else(|| std::env::var_os("PATH"));
            let folders = path.iter().flat_map(std::env::split_paths);
            folders.map(|folder| folder.join(program)).collect()
        };
        let mut found = found.iter().filter_map(|path| path.metadata().ok()).peekable();
        if found.peek().is_none() {
            return Err(ExecError::NotFound(self.name()));
        }
        let is_executable =
            |file: Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
        match found.any(is_executable) {
            true => Ok(()),
            false => Err(ExecError::NotExecutable(self.name())),
        }
    }

    fn spawn(&self, has_input: bool, mark: &Mark) -> Result<Child, ExecError> {
        let mut command = match self.resources.script() {
            None => Command::new(&self.path),
            Some(script) => {
                self.check()?;
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(script).arg("sh").arg(&self.path);
                shell
            }
        };
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(strays::VARIABLE, mark.value())
            .process_group(0)
            .stdin(if has_input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(cwd) = &self.cwd {
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

/// A live process group; it is killed when this is dropped, before its leader can be reaped, and
/// what has left it as well, unless the process ended well.
pub(super) struct Group<F: Fn(i32)> {
    pub(super) pid: Pid,
    /// Whether the leader was waited for, so that its number may be a stranger's by now.
    reaped: Cell<bool>,
    /// What carries it has to end with the group; none: a daemon was left behind on purpose.
    mark: Cell<Option<Mark>>,
    ended: F,
}

impl<F: Fn(i32)> Group<F> {
    fn of(child: &Child, mark: Mark, started: impl FnOnce(i32), ended: F) -> io::Result<Self> {
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| io::Error::other("the process has no number"))?;
        started(pid.as_raw_nonzero().get());
        Ok(Self { pid, reaped: Cell::new(false), mark: Cell::new(Some(mark)), ended })
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

    /// Notes that the process did what it should: what has left its group may go on.
    pub(super) fn ended_well(&self) {
        self.mark.set(None);
    }
}

impl<F: Fn(i32)> Drop for Group<F> {
    fn drop(&mut self) {
        self.kill();
        if let Some(mark) = self.mark.take() {
            mark.kill_strays();
        }
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
