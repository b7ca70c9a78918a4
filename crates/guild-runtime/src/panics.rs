//! Catches panics and keeps what they said.
//!
//! The standard hook prints a backtrace for every panic, which costs more than the restart of an
//! agent. The hook installed here records message and place for code that runs under [`caught`],
//! and the stack on threads that asked for it, and hands every other panic to the hook that was
//! there before.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

/// What a panic said and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PanicReport {
    /// The panic's message.
    pub(crate) message: Box<str>,
    /// `file:line:column`, where known.
    pub(crate) location: Option<Box<str>>,
    /// The stack, on threads that capture it.
    pub(crate) backtrace: Option<Box<str>>,
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static CAPTURES: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen { location: None, backtrace: None }) };
}

/// What the hook saw of the last panic on this thread.
#[derive(Default)]
struct Seen {
    location: Option<Box<str>>,
    backtrace: Option<Box<str>>,
}

/// Says whether panics on this thread have their stack captured, which takes milliseconds each.
pub(crate) fn capture_backtraces(captures: bool) {
    CAPTURES.set(captures);
}

/// Installs the recording hook, once per process.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if GUARDED.get() {
                let location = info.location().map(|location| location.to_string().into());
                let backtrace =
                    CAPTURES.get().then(|| Backtrace::force_capture().to_string().into());
                SEEN.with(|seen| *seen.borrow_mut() = Seen { location, backtrace });
            } else {
                previous(info);
            }
        }));
    });
}

/// Runs `work` and turns its panic into a report.
pub(crate) fn caught<R>(work: impl FnOnce() -> R) -> Result<R, PanicReport> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    let result = result.map_err(|payload| {
        let message = message_of(payload.as_ref());
        drop_quietly(payload);
        let Seen { location, backtrace } = SEEN.take();
        PanicReport { message, location, backtrace }
    });
    GUARDED.set(before);
    result
}

/// Drops a value that may panic while it is dropped.
pub(crate) fn drop_caught<T>(value: T) -> Result<(), PanicReport> {
    caught(move || drop(value))
}

/// Polls a future and turns its panic into a report; a future that panicked is not polled again.
pub(crate) fn poll_caught<F: Future + ?Sized>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, PanicReport>> {
    match caught(|| future.poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(report) => Poll::Ready(Err(report)),
    }
}

/// Goes on with a panic that was caught on another thread.
pub(crate) fn rethrow(report: PanicReport) -> ! {
    let PanicReport { message, location, backtrace } = report;
    SEEN.with(|seen| *seen.borrow_mut() = Seen { location, backtrace });
    std::panic::resume_unwind(Box::new(String::from(message)))
}

fn message_of(payload: &(dyn Any + Send)) -> Box<str> {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str().into()
    } else {
        "a panic whose payload is no text".into()
    }
}

/// A payload may panic in its own `Drop`; what that throws is leaked rather than dropped again.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
    }
}
