//! Patience with what happens outside of the test.

use std::time::Duration;

/// Waits until something is so; panics after a minute.
#[expect(clippy::disallowed_methods, reason = "threads and processes of others take real time")]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not within a minute: {what}");
}
