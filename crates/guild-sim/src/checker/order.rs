//! I4: a task starts only after its parents completed, and reads what they committed.
//!
//! "Parents" are the tasks that it comes after, with everything that these spawned. It reads what
//! they committed if its snapshot is no older than their commits; that is seen where histories are
//! recorded. In any case its own commit comes after theirs.

use guild_core::event::LineEvent;

use super::board::{Board, Status, Task};
use super::check::{Check, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I4;

/// Judges the order of tasks.
#[derive(Debug)]
pub(super) struct Order;

impl Check for Order {
    fn see(&mut self, seen: &Seen<'_>, _: &Board, findings: &mut Findings) {
        let Some(task) = seen.task().filter(|task| !task.is_over()) else {
            return;
        };
        match seen.event {
            LineEvent::TaskReady { .. } => starts(seen, task, "is ready", findings),
            LineEvent::TaskAssigned { .. } => {
                starts(seen, task, "starts", findings);
                if task.lease.is_none() && (task.status != Status::Ready || task.is_recovered) {
                    findings
                        .violate(I4, || format!("{} starts and is not ready", seen.task_name()));
                }
            }
            LineEvent::TaskCompleted { version, .. } => {
                let needs = task.needs_version;
                if *version <= needs {
                    findings.violate(I4, || {
                        let task = seen.task_name();
                        format!("{task} commits version {version}, before version {needs} that it waits for")
                    });
                }
            }
            LineEvent::MemoryCommitted { history: Some(history), .. } => {
                let has_ranges = !(history.ranges.is_empty() && history.spans.is_empty());
                if history.reads.is_empty() && !has_ranges {
                    return;
                }
                let (snapshot, needs) = (history.snapshot, task.needs_version);
                findings.expect(I4, snapshot >= needs, || {
                    let task = seen.task_name();
                    format!("{task} reads version {snapshot}, which lacks what its parents committed at {needs}")
                });
            }
            _ => {}
        }
    }
}

fn starts(seen: &Seen<'_>, task: &Task, what: &str, findings: &mut Findings) {
    findings.check(I4);
    if task.pending > 0 {
        findings.violate(I4, || {
            let (task_name, open) = (seen.task_name(), task.pending);
            format!("{task_name} {what} while {open} of the tasks that it waits for are not done")
        });
    } else if task.is_doomed {
        findings.violate(I4, || {
            format!(
                "{} {what} although a task that it waits for did not complete",
                seen.task_name()
            )
        });
    }
}
