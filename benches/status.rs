//! What Linux says about the memory of this process.

/// Returns a row of `/proc/self/status` in KiB: `VmRSS` is what is resident now, `VmHWM` the most that
/// ever was; 0 where there is none.
pub(crate) fn kib(row: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.split(':').next() == Some(row));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
