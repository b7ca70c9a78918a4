//! Finds what has left the process group of a process that ended badly.
//!
//! A process that makes a session of its own (`setsid`, a daemon) is out of reach of a signal to its
//! group. It still carries the environment that it was started with, and in there a mark that
//! nothing else has. Linux only; whoever wipes their environment stays out of reach.

use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that carries the mark.
pub(super) const VARIABLE: &str = "GUILD_PROCESS";

/// Marks a process and all that descend from it.
#[derive(Clone, Debug)]
pub(super) struct Mark(String);

impl Mark {
    /// Returns a mark that no other process of this guild carries.
    pub(super) fn new() -> Self {
        static MARKS: AtomicU64 = AtomicU64::new(1);
        Self(format!("{}.{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed)))
    }

    pub(super) fn value(&self) -> &str {
        &self.0
    }

    /// Kills whatever carries the mark, from a task of its own where a runtime runs.
    pub(super) fn kill_strays(self) {
        #[cfg(target_os = "linux")]
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(system::kill_all(format!("{VARIABLE}={}", self.0))));
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    /// Looks until nothing is found, this often at most: what is killed may just have forked.
    const LOOKS_MAX: u32 = 20;

    /// Processes that are looked at before others of the thread have their turn.
    const PROCESSES_AT_ONCE: usize = 32;

    pub(super) async fn kill_all(entry: String) {
        for _ in 0..LOOKS_MAX {
            let killed = kill_once(entry.as_bytes()).await;
            if killed == 0 {
                return;
            }
            tracing::info!(killed, "processes that had left their group were killed");
        }
    }

    async fn kill_once(entry: &[u8]) -> usize {
        let own = std::process::id().to_string();
        let mut killed = 0;
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for (number, process) in processes.enumerate() {
            if number % PROCESSES_AT_ONCE == PROCESSES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let name = process.file_name();
            let name = name.to_str().filter(|name| *name != own);
            if let Some(pid) = name.and_then(|name| Pid::from_raw(name.parse().ok()?)) {
                killed += usize::from(carries(pid, entry) && kill(pid, entry));
            }
        }
        killed
    }

    /// A process that has ended carries nothing any more.
    fn carries(pid: Pid, entry: &[u8]) -> bool {
        let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
        environment.is_ok_and(|all| all.split(|byte| *byte == 0).any(|found| found == entry))
    }

    /// Kills a process that still is the one that carries the entry: its number may be a stranger's
    /// by now, but not that of an open descriptor.
    fn kill(pid: Pid, entry: &[u8]) -> bool {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        carries(pid, entry) && pidfd_send_signal(&process, Signal::KILL).is_ok()
    }
}
