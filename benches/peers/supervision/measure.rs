//! How things are counted and told, for all systems alike.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::status::kib;

/// Crashes of which each is waited for.
pub(crate) fn crashes() -> u64 {
    scaled(20_000)
}

/// Actors that crash at once.
pub(crate) const STORMY: u64 = 100;

/// Messages to a hundred actors.
pub(crate) fn messages() -> u64 {
    scaled(2_000_000)
}

/// Actors that do nothing.
pub(crate) fn idle() -> u64 {
    scaled(100_000)
}

/// Without `--bench` everything runs once, small.
fn scaled(count: u64) -> u64 {
    let measures = std::env::args().any(|argument| argument == "--bench");
    if measures { count } else { (count / 1_000).max(STORMY) }
}

/// What one system was seen to do; none: it does not have that.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) crash_to_ready: Vec<u64>,
    pub(crate) restarts_per_s: Option<f64>,
    pub(crate) messages_per_s: Option<f64>,
    pub(crate) idle_bytes: u64,
    pub(crate) spawned_per_s: f64,
}

impl Row {
    pub(crate) const HEADER: &str = "                     crash to ready, us          \
        restarts     messages        idle      spawned\n                       \
        p50       p99          a second     a second       bytes     a second";

    /// Returns the row as a line of the table.
    pub(crate) fn to_line(&self) -> String {
        let mut sorted = self.crash_to_ready.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let place = sorted.len().max(1) - 1;
            let ns = sorted.get(place * percent / 100).map(|ns| *ns as f64 / 1e3);
            ns.map_or("-".to_owned(), |us| format!("{us:.1}"))
        };
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        format!(
            "{:>6} {:>9} {:>17} {:>12} {:>11} {:>12}",
            at(50),
            at(99),
            rate(self.restarts_per_s),
            rate(self.messages_per_s),
            self.idle_bytes,
            rate(Some(self.spawned_per_s)),
        )
    }
}

/// Lives that have begun.
pub(crate) static LIVES: AtomicU64 = AtomicU64::new(0);
/// Crashes that are still to come.
static TO_COME: AtomicU64 = AtomicU64::new(0);
static CRASH: Mutex<(Option<Instant>, Vec<u64>)> = Mutex::new((None, Vec::new()));

/// Notes that a life begins; the last crash was its cause.
pub(crate) fn lives() {
    LIVES.fetch_add(1, Ordering::Relaxed);
    let mut crash = CRASH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = crash.0.take() {
        let took = at.elapsed().as_nanos() as u64;
        crash.1.push(took);
    }
}

/// Begins a storm of this many crashes.
pub(crate) fn storm(crashes: u64) {
    TO_COME.store(crashes, Ordering::Relaxed);
    LIVES.store(0, Ordering::Relaxed);
    *CRASH.lock().unwrap_or_else(PoisonError::into_inner) = (None, Vec::new());
}

/// Returns whether whoever lives now has to crash.
pub(crate) fn has_to_crash() -> bool {
    let less = |left: u64| left.checked_sub(1);
    TO_COME.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

/// Panics, and notes when.
pub(crate) fn crash() -> ! {
    CRASH.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(Instant::now());
    panic!("it crashes as often as it is told");
}

/// Returns the times from crashes to the lives that followed them, in nanoseconds.
pub(crate) fn crash_to_ready() -> Vec<u64> {
    std::mem::take(&mut CRASH.lock().unwrap_or_else(PoisonError::into_inner).1)
}

/// Waits until so many lives have begun.
pub(crate) async fn until_lives(count: u64) {
    while LIVES.load(Ordering::Relaxed) < count {
        tokio::task::yield_now().await;
    }
}

/// Measures how fast idle actors are spawned, and how many bytes are resident for each.
pub(crate) async fn spawned<T>(row: &mut Row, spawn: impl AsyncFnOnce(u64) -> T) -> T {
    let (count, before) = (idle(), kib("VmRSS"));
    storm(0);
    let start = Instant::now();
    let actors = spawn(count).await;
    until_lives(count).await;
    row.spawned_per_s = count as f64 / start.elapsed().as_secs_f64();
    row.idle_bytes = kib("VmRSS").saturating_sub(before) * 1_024 / count;
    actors
}

/// Measures messages to a hundred actors, a round to all of them at a time.
pub(crate) async fn sent(row: &mut Row, mut send: impl FnMut(usize)) {
    let rounds = messages() / STORMY;
    let start = Instant::now();
    for _ in 0..rounds {
        (0..STORMY as usize).for_each(&mut send);
        tokio::task::yield_now().await;
    }
    row.messages_per_s = Some((rounds * STORMY) as f64 / start.elapsed().as_secs_f64());
}

/// Measures one crash after the other, and then many at once: `begin` begins the lives of so many
/// actors that are restarted until the storm is over.
pub(crate) async fn crashed<T>(row: &mut Row, begin: impl AsyncFn(u64) -> T) {
    for actors in [1, STORMY] {
        storm(crashes());
        let start = Instant::now();
        let stormy = begin(actors).await;
        until_lives(crashes() + actors).await;
        let took = start.elapsed();
        drop(stormy);
        match actors {
            1 => row.crash_to_ready = crash_to_ready(),
            _ => row.restarts_per_s = Some(crashes() as f64 / took.as_secs_f64()),
        }
    }
}
