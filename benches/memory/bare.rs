//! What the disk takes for the least that a commit has to write.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use super::open::{Scale, folder, micros, percentile};

/// What two writes are as rows, roughly.
const ROWS_BYTES: usize = 600;

/// Times of things that were done one after the other, in ascending order.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(times: usize, mut work: impl FnMut()) -> Self {
        let mut latencies: Vec<Duration> = (0..times)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed()
            })
            .collect();
        latencies.sort_unstable();
        Self(latencies)
    }

    pub(crate) fn per_second(&self) -> f64 {
        let seconds: f64 = self.0.iter().map(Duration::as_secs_f64).sum();
        self.0.len() as f64 / seconds
    }

    pub(crate) fn percentile_us(&self, percent: usize) -> f64 {
        micros(percentile(&self.0, percent))
    }
}

/// Writes 600 bytes to the end of a file and waits until they are on the disk, over and over.
pub(crate) fn write_and_sync(scale: Scale) -> Times {
    let folder = folder();
    let mut file = File::create(folder.path().join("file")).unwrap();
    let rows = [7; ROWS_BYTES];
    Times::of(scale.of(2_000), || {
        file.write_all(&rows).unwrap();
        file.sync_data().unwrap();
    })
}
