//! Tells from a status and last words how a process ended, and why.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use guild_core::incident::Reason;
use rustix::process::Signal;

/// Bytes of the standard error output that an error quotes.
pub(super) const LAST_WORDS_BYTES: usize = 2_048;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Ending {
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Status(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }

    /// Returns why, as far as status and last words tell.
    pub(super) fn reason(self, last_words: &str) -> Reason {
        let is_failure = self != Self::Status(0);
        if is_failure && says_out_of_memory(last_words) {
            return Reason::OutOfMemory;
        }
        match self {
            Self::Status(_) => Reason::Exit,
            Self::Signal(signal) => match signal {
                _ if signal == Signal::SEGV.as_raw() || signal == Signal::BUS.as_raw() => {
                    Reason::Segfault
                }
                _ if signal == Signal::XCPU.as_raw() => Reason::CpuTime,
                _ if signal == Signal::ABORT.as_raw() => Reason::Abort,
                _ => Reason::Signal,
            },
        }
    }
}

/// What runtimes say when they get no more memory: Rust, C++, coreutils, libc, Python, Go, Node.js, Java.
fn says_out_of_memory(last_words: &str) -> bool {
    const WORDS: [&str; 8] = [
        "memory allocation of ",
        "std::bad_alloc",
        "memory exhausted",
        "Cannot allocate memory",
        "MemoryError",
        "out of memory",
        "Out of memory",
        "OutOfMemoryError",
    ];
    WORDS.iter().any(|words| last_words.contains(words))
}

/// Returns the name of a signal in parentheses, with a hint; nothing for a rare one.
pub(super) fn signal_name(signal: &i32) -> &'static str {
    let known: [(Signal, &str); 10] = [
        (Signal::SEGV, " (SIGSEGV: it touched memory that it does not have)"),
        (Signal::BUS, " (SIGBUS: it touched memory that it does not have)"),
        (Signal::ABORT, " (SIGABRT: it gave up by itself)"),
        (Signal::KILL, " (SIGKILL: by a person, or by the system when memory ran out)"),
        (Signal::TERM, " (SIGTERM)"),
        (Signal::XCPU, " (SIGXCPU: it used more processor time than it may)"),
        (Signal::ILL, " (SIGILL: its code is not for this processor)"),
        (Signal::FPE, " (SIGFPE: it divided by zero, or the like)"),
        (Signal::PIPE, " (SIGPIPE: it wrote to a pipe that nobody reads)"),
        (Signal::XFSZ, " (SIGXFSZ: it wrote a larger file than it may)"),
    ];
    known.iter().find(|(known, _)| known.as_raw() == *signal).map_or("", |(_, name)| name)
}

/// Returns the last lines of a standard error output, as text.
pub(super) fn last_words(stderr: &[u8]) -> String {
    let text = stderr.trim_ascii_end();
    let from = text.len().saturating_sub(LAST_WORDS_BYTES);
    let cut = String::from_utf8_lossy(&text[from..]).into_owned();
    if from == 0 { cut } else { format!("...{cut}") }
}
