//! Shows a value that changes to whoever waits for it.
//!
//! Who began to wait first is woken first. Tokio's `watch` wakes several receivers in random order,
//! which no seed repeats: a simulation with two readers of one log would differ from run to run.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A value that changes; every clone is the same value.
pub(crate) struct Signal<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    value: T,
    /// Those who wait, by the order in which they began to.
    waiting: BTreeMap<u64, Waker>,
    began: u64,
}

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Signal<T> {
    /// Returns a signal that shows this value.
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(State { value, waiting: BTreeMap::new(), began: 0 })))
    }

    /// Looks at the value.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.state().value)
    }

    /// Changes the value; those who wait look at it when `change` says that it matters to them.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        let woken: Vec<Waker> = {
            let mut state = self.state();
            if !change(&mut state.value) {
                return;
            }
            state.waiting.values().cloned().collect()
        };
        // Outside of the lock: whoever is woken may look at once.
        woken.into_iter().for_each(Waker::wake);
    }

    /// Waits until `find` finds something in the value.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn find<R>(&self, mut find: impl FnMut(&T) -> Option<R>) -> R {
        let mut place = Place { signal: self, number: None };
        poll_fn(|cx| {
            let mut state = self.state();
            if let Some(found) = find(&state.value) {
                return Poll::Ready(found);
            }
            let number = *place.number.get_or_insert(state.began);
            state.began = state.began.max(number + 1);
            state.waiting.insert(number, cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // `change` and `find` are our own and do not panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one who waits; given up when the wait ends, however it ends.
struct Place<'a, T> {
    signal: &'a Signal<T>,
    number: Option<u64>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.signal.state().waiting.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::Future;
    use std::rc::Rc;

    use super::*;

    fn on_one_thread(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, work);
    }

    #[test]
    fn watchers_are_woken_in_the_order_in_which_they_began_to_wait() {
        on_one_thread(async {
            let signal = Signal::new(0);
            let woken = Rc::new(RefCell::new(Vec::new()));
            for number in 0..50 {
                let (signal, woken) = (signal.clone(), Rc::clone(&woken));
                tokio::task::spawn_local(async move {
                    signal.find(|value| (*value > 1).then_some(())).await;
                    woken.borrow_mut().push(number);
                });
            }
            // A change that is not what they wait for costs nobody his place.
            for value in [0, 1, 2] {
                tokio::task::yield_now().await;
                signal.change(|shown| {
                    *shown = value;
                    true
                });
            }
            tokio::task::yield_now().await;

            assert_eq!(*woken.borrow(), (0..50).collect::<Vec<_>>());
            assert!(signal.state().waiting.is_empty());
        });
    }

    #[test]
    fn wait_that_is_given_up_leaves_nothing_behind() {
        let signal = Signal::new(0);
        {
            let mut wait = std::pin::pin!(signal.find(|value| (*value > 0).then_some(())));
            let mut cx = std::task::Context::from_waker(Waker::noop());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert_eq!(signal.state().waiting.len(), 1);
        }

        assert!(signal.state().waiting.is_empty());
    }
}
