//! Bounds what a process may use, by the limits of the operating system.
//!
//! A shell imposes them on itself and becomes the program: the process has them from its first
//! instruction on, and nothing unsafe has to run between fork and exec. A process that forks hands
//! them down.

use std::io;
use std::time::Duration;

use rustix::process::Pid;

/// What a process may use; nothing is bounded that is none.
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
    /// Returns the script that bounds itself and becomes the program that is its first argument;
    /// none where nothing is bounded.
    pub(super) fn script(&self) -> Option<String> {
        let kib = self.memory_bytes_max.map(|bytes| system::within(Limit::Memory, bytes) / 1_024);
        let files = self.open_files_max.map(|files| system::within(Limit::OpenFiles, files));
        let cpu = self.cpu_time_max.map(|time| {
            let seconds = time.as_secs_f64().ceil() as u64;
            system::within(Limit::CpuTime, seconds)
        });
        // Of the processor time only the soft limit: the next task raises it again.
        let bounds = [("-n", files), ("-S -t", cpu), ("-v", kib)];
        let bounds = bounds.into_iter().filter_map(|(option, bound)| Some((option, bound?)));
        let script: String =
            bounds.map(|(option, bound)| format!("ulimit {option} {bound} && ")).collect();
        (!script.is_empty()).then(|| script + "exec \"$@\"")
    }

    /// Lets a process that lives on use its processor time again, from what it has used until now.
    pub(super) fn grant_cpu_time(&self, pid: Pid) -> io::Result<()> {
        match self.cpu_time_max {
            None => Ok(()),
            Some(limit) => system::grant_cpu_time(pid, limit),
        }
    }
}

/// What can be bounded.
#[derive(Clone, Copy)]
enum Limit {
    Memory,
    OpenFiles,
    CpuTime,
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::time::Duration;

    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    use super::Limit;

    /// Nobody can raise a hard limit again, so a bound stays within the one that is handed down.
    pub(super) fn within(limit: Limit, bound: u64) -> u64 {
        let resource = match limit {
            Limit::Memory => Resource::As,
            Limit::OpenFiles => Resource::Nofile,
            Limit::CpuTime => Resource::Cpu,
        };
        getrlimit(resource).maximum.map_or(bound, |hard| hard.min(bound))
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

    use super::Limit;

    /// The shell says what its system cannot do.
    pub(super) fn within(_: Limit, bound: u64) -> u64 {
        bound
    }

    pub(super) fn grant_cpu_time(_: Pid, _: Duration) -> io::Result<()> {
        let why = "cpu_time_max for processes that live longer than a task needs Linux";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }
}
