//! Makes workloads of a given size and shape.

use super::{Durations, WorkTask, Workload};

impl Workload {
    /// Returns tasks in layers of this width; each task waits for up to three of the layer before.
    pub fn layers(name: &str, tasks: usize, width: usize, duration: &Durations) -> Self {
        let width = width.max(1);
        let mut workload = Self::new(name, "worker");
        for place in 0..tasks {
            let layer = place / width * width;
            let above = |step: usize| layer - width + (place + step * 7) % width;
            let mut before: Vec<usize> =
                if layer == 0 { Vec::new() } else { (0..3.min(width)).map(above).collect() };
            before.sort_unstable();
            before.dedup();
            workload.add(WorkTask::new(format!("t{place}"), duration.clone()).after(before));
        }
        workload
    }

    /// Returns chains of ten tasks side by side, all of them between one first and one last task.
    pub fn chain_and_fan(name: &str, tasks: usize, duration: &Durations) -> Self {
        let mut workload = Self::new(name, "worker");
        let task = |name: String| WorkTask::new(name, duration.clone());
        let first = workload.add(task("first".into()));
        let mut ends = Vec::new();
        for place in 0..tasks.saturating_sub(2) {
            let is_head = place % CHAIN == 0;
            let before = if is_head { first } else { place };
            workload.add(task(format!("t{place}")).after([before]));
            if place % CHAIN == CHAIN - 1 {
                ends.push(place + 1);
            }
        }
        workload.add(task("last".into()).after(ends));
        workload
    }
}

/// Tasks of one chain.
const CHAIN: usize = 10;
