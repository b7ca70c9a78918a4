//! I3: no effect happens twice.
//!
//! Effects on the memory are judged from the log: each `memory_committed` of a task is followed by
//! the completion of that task with the same version, so that an effect without its completion, or
//! a second one, is seen. Effects outside of Guild are in a ledger that the harness keeps.

use guild_core::event::{LineEvent, TaskText};

use super::board::{Board, Known};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I3;

/// Judges effects.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// The effect of the line before: its run, its task, its version.
    open: Option<(String, String, u64)>,
}

impl Check for Effects {
    fn see(&mut self, seen: &Seen<'_>, _: &Board, findings: &mut Findings) {
        let open = self.open.take();
        if let Some((run, task, version)) = &open {
            let is_completed = matches!(seen.event, LineEvent::TaskCompleted { task: of, version: at, .. }
                if *of.task == *task && *of.run == *run && at == version);
            if !is_completed {
                findings.violate(I3, || {
                    format!(
                        "task `{task}` of run `{run}` wrote version {version} without completing"
                    )
                });
            }
        }
        if let LineEvent::MemoryCommitted { task: Some(of), version, .. } = seen.event {
            findings.check(I3);
            self.open = Some((of.run.to_string(), of.task.to_string(), *version));
            let is_over = matches!(seen.subject.run, Some(Known::Over))
                || seen.task().is_some_and(super::board::Task::is_over);
            if is_over {
                let TaskText { run, task } = of;
                findings.violate(I3, || {
                    format!("task `{task}` of run `{run}` writes again after its end")
                });
            }
        }
    }

    fn end(&mut self, end: &End<'_>, _: &Board, findings: &mut Findings) {
        for (key, times) in end.knowledge.ledger.iter().flatten() {
            findings.expect(I3, *times <= 1, || {
                format!("the effect of `{key}` outside of Guild happened {times} times")
            });
        }
        if end.knowledge.ledger.is_none() {
            findings.cannot_judge(I3, "nobody kept a ledger of effects outside of the memory");
        }
    }
}
