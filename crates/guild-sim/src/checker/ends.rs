//! I1: no task is lost, each ends exactly once. I2: what has ended stays ended.
//!
//! I1 counts: every task that was added ends by one `task_completed` or `task_ended` before its run
//! ends, and `run_ended` tells the sums. I2 looks at everything that happens to a task or run that
//! has ended; a late answer (`stale_result`) may come, as nothing is done with it.

use guild_core::event::{LineEvent, Outcome, Tally};

use super::board::{Board, Known, Run};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::{I1, I2};

/// Judges ends.
#[derive(Debug)]
pub(super) struct Ends;

impl Check for Ends {
    fn see(&mut self, seen: &Seen<'_>, _: &Board, findings: &mut Findings) {
        match seen.event {
            LineEvent::TaskAdded { .. }
            | LineEvent::TaskReady { .. }
            | LineEvent::TaskAssigned { .. }
            | LineEvent::TaskReturned { .. }
            | LineEvent::TaskCompleted { .. }
            | LineEvent::TaskFailed { .. }
            | LineEvent::TaskEnded { .. } => see_task(seen, findings),
            LineEvent::RunEnded { run, outcome, tally, .. } => match seen.subject.run {
                Some(Known::Live(run)) => end_run(run, *outcome, *tally, findings),
                Some(Known::Over) => {
                    findings.violate(I2, || format!("run `{run}` ends a second time"));
                }
                _ => findings.violate(I1, || format!("run `{run}` ends and never began")),
            },
            LineEvent::RunCancelled { run } if matches!(seen.subject.run, Some(Known::Over)) => {
                findings.violate(I2, || format!("run `{run}` is cancelled after its end"));
            }
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>, board: &Board, findings: &mut Findings) {
        for run in board.runs() {
            let open = run.open_tasks().count();
            let (name, tasks) = (&run.name, run.tasks().len());
            if end.knowledge.is_complete && end.is_whole {
                findings.violate(I1, || {
                    format!("run `{name}` never ends: {open} of its {tasks} tasks have not ended")
                });
            } else {
                let reason =
                    format!("run `{name}` has not ended: {open} of {tasks} tasks are open");
                findings.cannot_judge(I1, reason);
            }
        }
    }
}

fn see_task(seen: &Seen<'_>, findings: &mut Findings) {
    let is_end =
        matches!(seen.event, LineEvent::TaskCompleted { .. } | LineEvent::TaskEnded { .. });
    let is_added = matches!(seen.event, LineEvent::TaskAdded { .. });
    findings.check(I2);
    match (seen.subject.run, seen.task()) {
        (Some(Known::Over), _) => {
            let name =
                || format!("{}: something happens after the end of its run", seen.task_name());
            findings.violate(I2, name);
        }
        (Some(Known::Live(_)), None) if is_added => {}
        (Some(Known::Live(_)), None) => {
            findings.violate(I1, || format!("{} was never added", seen.task_name()));
        }
        (Some(Known::Live(_)), Some(task)) => {
            if is_added {
                findings.violate(I1, || format!("{} is added a second time", seen.task_name()));
            } else if task.is_over() {
                let name = seen.task_name();
                findings.violate(I2, || format!("{name}: something happens after its end"));
                if is_end {
                    findings.violate(I1, || format!("{name} ends a second time"));
                }
            } else if is_end {
                findings.check(I1);
            }
        }
        _ => findings.violate(I1, || format!("{}: the run was never submitted", seen.task_name())),
    }
}

fn end_run(run: &Run, outcome: Outcome, tally: Tally, findings: &mut Findings) {
    let name = &run.name;
    if let Some(lost) = run.open_tasks().next() {
        let (open, tasks) = (run.open_tasks().count(), run.tasks().len());
        findings.violate(I1, || {
            let lost = &lost.name;
            format!("run `{name}` ends, and {open} of its {tasks} tasks have not: `{lost}` is lost")
        });
    }
    if run.added != run.announced {
        let (added, announced) = (run.added, run.announced);
        findings.violate(I1, || {
            format!("run `{name}` has {added} tasks of the {announced} that were submitted")
        });
    }
    if run.tally != tally {
        let counted = run.tally;
        findings.violate(I1, || {
            format!("run `{name}` tells of {}, and {} ended", told(tally), told(counted))
        });
    }
    let expected = match (run.is_cancelled, run.tally.failed) {
        (true, _) => Outcome::Cancelled,
        (false, 0) => Outcome::Completed,
        (false, _) => Outcome::Failed,
    };
    if outcome != expected {
        findings.violate(I1, || {
            format!("run `{name}` is said to be {outcome:?} and is {expected:?}").to_lowercase()
        });
    }
}

fn told(tally: Tally) -> String {
    let Tally { completed, failed, skipped, cancelled } = tally;
    format!("{completed} completed, {failed} failed, {skipped} skipped, {cancelled} cancelled")
}
