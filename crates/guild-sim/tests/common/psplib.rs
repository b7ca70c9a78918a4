//! Reads projects of PSPLIB (single mode): jobs with successors, and what each takes of four
//! renewable resources, which become quotas.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guild_core::event::{Event, EventRecord};
use guild_core::quota::QuotaSpec;
use guild_sim::workload::{Durations, WorkTask, Workload};
use guild_sim::world::LogReader;

pub(crate) fn read(path: &Path) -> (Workload, Vec<u32>) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let section = |head: &str, skip: usize| {
        let from = lines.iter().position(|line| line.starts_with(head)).unwrap() + skip;
        lines[from..].iter().take_while(|line| !line.starts_with('*')).map(|line| {
            let number = |word: &str| word.parse::<usize>().unwrap();
            line.split_whitespace().map(number).collect::<Vec<_>>()
        })
    };
    let limits: Vec<u32> =
        section("RESOURCEAVAILABILITIES", 2).next().unwrap().iter().map(|n| *n as u32).collect();
    let jobs: Vec<Vec<usize>> = section("REQUESTS/DURATIONS", 3).collect();
    let mut before = vec![Vec::new(); jobs.len()];
    for row in section("PRECEDENCE RELATIONS", 2) {
        assert_eq!(row.len(), 3 + row[2], "as many successors as announced");
        row[3..].iter().for_each(|successor| before[successor - 1].push(row[0] - 1));
    }
    let mut workload = Workload::new(path.file_stem().unwrap().to_string_lossy(), "crew");
    workload.roles[0].agents = Some(jobs.len() as u32);
    workload.quotas = (1..)
        .zip(&limits)
        .map(|(n, limit)| (format!("R{n}"), QuotaSpec::Permits(*limit)))
        .collect();
    for (row, before) in jobs.iter().zip(before) {
        let duration = Durations::Fixed(Duration::from_secs(row[2] as u64));
        let mut task = WorkTask::new(format!("job{}", row[0]), duration).after(before);
        let takes = row[3..].iter().enumerate().filter(|(_, amount)| **amount > 0);
        task.quotas = takes.map(|(place, amount)| (place, *amount as u32)).collect();
        workload.add(task);
    }
    (workload, limits)
}

pub(crate) fn best_known(folder: &Path) -> BTreeMap<String, f64> {
    let table = std::fs::read_to_string(folder.join("best_known_j30.csv")).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[1].to_owned(), fields[2].parse().unwrap())
    };
    table.lines().skip(1).filter(|line| !line.trim().is_empty()).map(row).collect()
}

/// Watches the quotas in a log: what the log says of them, and what the attempts that are under way
/// need of them in all.
#[derive(Clone)]
pub(crate) struct Watch {
    limits: Arc<Vec<u32>>,
    /// What each task needs.
    needs: Arc<Vec<Vec<(usize, u32)>>>,
    in_use: Vec<u32>,
    checked: Arc<AtomicU64>,
}

impl Watch {
    pub(crate) fn new(workload: &Workload, limits: Vec<u32>) -> Self {
        let needs = workload.tasks.iter().map(|task| task.quotas.clone()).collect();
        let in_use = vec![0; limits.len()];
        Self { limits: Arc::new(limits), needs: Arc::new(needs), in_use, checked: Arc::default() }
    }

    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }
}

impl LogReader for Watch {
    fn record(&mut self, record: &EventRecord, line: &str) {
        let needs = Arc::clone(&self.needs);
        match &record.event {
            Event::QuotaChanged { quota, in_use, limit } => {
                assert_eq!(*limit, self.limits[usize::from(quota.0)], "{line}");
                assert!(in_use <= limit, "{line}");
                self.checked.fetch_add(1, Ordering::Relaxed);
            }
            Event::TaskAssigned { task, .. } => {
                for (quota, amount) in &needs[task.index.at()] {
                    self.in_use[*quota] += amount;
                    assert!(self.in_use[*quota] <= self.limits[*quota], "{line}");
                }
            }
            Event::TaskCompleted { task, .. } | Event::TaskFailed { task, .. } => {
                for (quota, amount) in &needs[task.index.at()] {
                    self.in_use[*quota] -= amount;
                }
            }
            _ => {}
        }
    }
}
