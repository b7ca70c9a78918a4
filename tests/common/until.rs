//! Patience with what happens outside of the test.

use std::time::Duration;

/// Waits until something is so; panics after a minute.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        pause();
    }
    panic!("not within a minute: {what}");
}

#[expect(clippy::disallowed_methods, reason = "threads and processes of others are waited for")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
