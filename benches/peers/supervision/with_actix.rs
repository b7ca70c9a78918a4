//! actix without supervision, and with what isolates a panic: a catch around every poll.

use actix::Addr;

use crate::caught::{Bare, Ping, bare, caught};
use crate::measure::{self, Row};

/// Measures actix alone; it restarts nobody who panicked.
pub(crate) fn alone() -> Row {
    measure_with(|| bare(measure::lives))
}

/// Measures actix with a catch around every poll, and nobody who restarts.
pub(crate) fn guarded() -> Row {
    measure_with(|| caught(measure::lives))
}

fn measure_with<F: Fn() + Unpin + 'static>(spawn: impl Fn() -> Addr<Bare<F>>) -> Row {
    let mut row = Row::default();
    actix_rt::System::new().block_on(async {
        let spawned = async |count| -> Vec<Addr<Bare<F>>> { (0..count).map(|_| spawn()).collect() };
        let actors = measure::spawned(&mut row, spawned).await;
        let send = |place: usize| actors[place].try_send(Ping).expect("there is room");
        measure::sent(&mut row, send).await;
    });
    row
}
