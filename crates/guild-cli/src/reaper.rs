//! Kills what a `kill -9` of guild leaves behind.
//!
//! Guild kills the process group of every attempt itself, but a killed guild cannot. So it starts
//! this second process once, and tells it over a pipe which groups exist (`+PGID`, `-PGID`). When
//! the pipe closes, guild is gone, and the reaper kills the groups that are left. A process that
//! was started in the very last moment, before its line was written, is found by the mark that all
//! processes of one guild carry in their environment (Linux).
//!
//! The reaper holds a lock on the store's directory until it is done: a resumed run waits for it,
//! so no orphan acts beside the new attempt of its task.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guild::process::ProcessObserver;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process_group};

/// Environment variable that marks the processes of one guild.
pub(crate) const MARK: &str = "GUILD_PROCESS_MARK";

/// Longest time that a resumed run waits for the reaper of the killed one.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Looks for marked processes until this many looks in a row found none: one may be between its
/// start and the moment when its environment can be seen.
const QUIET_LOOKS: u32 = 3;
const LOOKS_MAX: u32 = 200;
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// The reaper as guild sees it.
#[derive(Debug)]
pub(crate) struct Reaper {
    pipe: Mutex<ChildStdin>,
}

impl Reaper {
    /// Starts the reaper; it holds the lock, if there is one, until it is done.
    pub(crate) fn start(mark: &str, lock: Option<File>) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["__reaper", mark])
            .stdin(Stdio::piped())
            .stdout(lock.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::null())
            // Out of reach of the terminal's interrupts.
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the reaper"))?;
        Ok(Self { pipe: Mutex::new(pipe) })
    }

    fn tell(&self, line: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = pipe.write_all(line.as_bytes()) {
            tracing::warn!(%error, "reaper is gone");
        }
    }
}

impl ProcessObserver for Reaper {
    fn started(&self, group: i32) {
        self.tell(&format!("+{group}\n"));
    }

    fn ended(&self, group: i32) {
        self.tell(&format!("-{group}\n"));
    }
}

/// Locks the directory of a store; waits for the reaper of a killed guild.
///
/// `None` after that time: a living guild uses the store.
pub(crate) fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if waited < LOCK_WAIT => pause(LOCK_POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        waited += LOCK_POLL;
    }
}

/// The reaper process: obeys until its input ends, then kills what is left.
pub(crate) fn reap(mark: &str, orders: impl io::Read) {
    let mut groups = BTreeSet::new();
    for line in BufReader::new(orders).lines().map_while(Result::ok) {
        match line.split_at_checked(1).map(|(sign, group)| (sign, group.parse::<i32>())) {
            Some(("+", Ok(group))) => drop(groups.insert(group)),
            Some(("-", Ok(group))) => drop(groups.remove(&group)),
            _ => {}
        }
    }
    groups.into_iter().for_each(kill);
    let (mut quiet, mut looks) = (0, 0);
    while quiet < QUIET_LOOKS && looks < LOOKS_MAX {
        let found = marked(mark);
        quiet = if found.is_empty() { quiet + 1 } else { 0 };
        looks += 1;
        found.into_iter().for_each(kill);
        pause(LOOK_PAUSE);
    }
}

/// Kills a group; one that has ended meanwhile is no error.
fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group).filter(|group| !group.is_init()) {
        kill_process_group(group, Signal::KILL).ok();
    }
}

/// Returns the groups of all living processes that carry the mark; empty where the system has no
/// `/proc`.
fn marked(mark: &str) -> BTreeSet<i32> {
    let wanted = format!("{MARK}={mark}");
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    let group_of = |pid: i32| {
        let group = rustix::process::getpgid(Pid::from_raw(pid)).ok()?;
        Some(group.as_raw_nonzero().get())
    };
    numbers.filter(|pid| *pid != own).filter(is_marked).filter_map(group_of).collect()
}

#[expect(clippy::disallowed_methods, reason = "no runtime runs yet, or in this process at all")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
