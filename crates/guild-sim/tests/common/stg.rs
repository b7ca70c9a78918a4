//! Reads graphs of the Standard Task Graph Set: a line per task with its number, its time, how many
//! tasks come before it, and which. The first and the last task are dummies of no time.

use std::path::Path;
use std::time::Duration;

use guild_sim::workload::{Durations, WorkTask, Workload};

pub(crate) fn read(path: &Path) -> Workload {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let count: usize = lines.next().unwrap().trim().parse().unwrap();
    let mut workload = Workload::new(path.file_stem().unwrap().to_string_lossy(), "processor");
    for line in lines.take(count + 2) {
        let numbers: Vec<usize> =
            line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers[0], workload.tasks.len(), "tasks are numbered in order");
        assert_eq!(numbers.len(), 3 + numbers[2], "as many predecessors as announced");
        let duration = Durations::Fixed(Duration::from_secs(numbers[1] as u64));
        let task = WorkTask::new(format!("t{}", numbers[0]), duration);
        workload.add(task.after(numbers[3..].iter().copied()));
    }
    assert_eq!(workload.tasks.len(), count + 2);
    workload
}

/// Returns the number of processors, the file and the proved optimum of every graph.
pub(crate) fn optima(folder: &Path) -> Vec<(u32, String, f64)> {
    let mut optima = Vec::new();
    for processors in [2, 4, 8, 16] {
        let table =
            std::fs::read_to_string(folder.join(format!("Case50_{processors}_OPT.csv"))).unwrap();
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            assert_eq!(fields[1], processors.to_string());
            let name = fields[0].strip_prefix("50/").unwrap().to_owned();
            optima.push((processors, name, fields[2].parse().unwrap()));
        }
    }
    optima
}
