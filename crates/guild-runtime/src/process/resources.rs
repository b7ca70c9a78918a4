//! Bounds what a process may use, by the limits of the operating system.
//!
//! The parent imposes them with `prlimit` as soon as the process exists: setting them in the child
//! would need unsafe code between fork and exec. A process that forks hands them down.

use std::io;
use std::time::Duration;

use rustix::process::Pid;

/// What a process may use; nothing is bounded that is none. Needs Linux.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of address space (`RLIMIT_AS`). Beyond: allocations fail. A runtime that reserves much
    /// more than it uses (JVM, Go, Node.js) needs a generous bound.
    pub memory_bytes_max: Option<u64>,
    /// Processor time, in whole seconds: of the process, or of each task for a process that lives
    /// longer (`RLIMIT_CPU`). Beyond: SIGXCPU, which ends a process that does not handle it.
    pub cpu_time_max: Option<Duration>,
    /// Open files (`RLIMIT_NOFILE`). Beyond: opening fails.
    pub open_files_max: Option<u64>,
}

impl Resources {
    /// Imposes the bounds on a process that has just been started.
    pub(super) fn impose(&self, pid: Pid) -> io::Result<()> {
        system::bound(pid, system::MEMORY, self.memory_bytes_max)?;
        system::bound(pid, system::OPEN_FILES, self.open_files_max)
    }

    /// Lets the process use its processor time, from what it has used until now.
    pub(super) fn grant_cpu_time(&self, pid: Pid) -> io::Result<()> {
        match self.cpu_time_max {
            None => Ok(()),
            Some(limit) => system::grant_cpu_time(pid, limit),
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::time::Duration;

    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    pub(super) const MEMORY: Resource = Resource::As;
    pub(super) const OPEN_FILES: Resource = Resource::Nofile;

    pub(super) fn bound(pid: Pid, resource: Resource, bound: Option<u64>) -> io::Result<()> {
        let Some(bound) = bound else { return Ok(()) };
        // Nobody can raise a hard limit again, so it stays within the one that is handed down.
        let bound = getrlimit(resource).maximum.map_or(bound, |hard| hard.min(bound));
        let limit = Rlimit { current: Some(bound), maximum: Some(bound) };
        unless_ended(prlimit(Some(pid), resource, limit))
    }

    /// Only the soft limit: the next task raises it again.
    pub(super) fn grant_cpu_time(pid: Pid, limit: Duration) -> io::Result<()> {
        let until = (used_cpu_time(pid) + limit).as_secs_f64().ceil() as u64;
        let maximum = getrlimit(Resource::Cpu).maximum;
        let current = Some(maximum.map_or(until, |hard| hard.min(until)));
        unless_ended(prlimit(Some(pid), Resource::Cpu, Rlimit { current, maximum }))
    }

    /// A process that has ended already is told by its end.
    fn unless_ended<T>(result: rustix::io::Result<T>) -> io::Result<()> {
        match result {
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The processor time of a process in user and kernel mode; zero when it cannot be read.
    fn used_cpu_time(pid: Pid) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        let stat = stat.unwrap_or_default();
        // The name in the second field may contain anything, the fields after its `)` do not.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        Duration::from_secs_f64(ticks.sum::<u64>() as f64 / ticks_per_second as f64)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::time::Duration;

    use rustix::process::Pid;

    pub(super) const MEMORY: () = ();
    pub(super) const OPEN_FILES: () = ();

    pub(super) fn bound(_: Pid, (): (), bound: Option<u64>) -> io::Result<()> {
        bound.map_or(Ok(()), |_| unsupported())
    }

    pub(super) fn grant_cpu_time(_: Pid, _: Duration) -> io::Result<()> {
        unsupported()
    }

    fn unsupported() -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "limits on processes need Linux"))
    }
}
