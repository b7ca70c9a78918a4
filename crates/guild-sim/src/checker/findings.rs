//! Collects what the checks find: the first violation of each invariant, and counts.

use super::verdict::{Invariant, Ruling, Violation};

/// What was found so far. It keeps one violation per invariant, so that a log that breaks
/// everything costs no more than one that breaks nothing.
#[derive(Debug, Default)]
pub(super) struct Findings {
    rows: [Row; Invariant::ALL.len()],
    line: u64,
    seq: u64,
}

#[derive(Debug, Default)]
struct Row {
    checked: u64,
    first: Option<Violation>,
    violations: u64,
    /// What could not be judged.
    unjudged: Option<String>,
}

impl Findings {
    /// Says at which line what is found from now on is found.
    pub(super) fn at(&mut self, line: u64, seq: u64) {
        self.line = line;
        self.seq = seq;
    }

    /// Counts one thing that was checked.
    pub(super) fn check(&mut self, invariant: Invariant) {
        self.rows[invariant as usize].checked += 1;
    }

    /// Takes note of a violation at the current line.
    pub(super) fn violate(&mut self, invariant: Invariant, message: impl FnOnce() -> String) {
        let row = &mut self.rows[invariant as usize];
        row.violations += 1;
        if row.first.is_none() {
            let message = message();
            row.first = Some(Violation { line: self.line, seq: self.seq, message });
        }
    }

    /// Returns a violation at the current line, to be judged later.
    pub(super) fn suspect(&self, message: String) -> Violation {
        Violation { line: self.line, seq: self.seq, message }
    }

    /// Takes note of a violation that was suspected before.
    pub(super) fn violate_at(&mut self, invariant: Invariant, violation: Violation) {
        let row = &mut self.rows[invariant as usize];
        row.violations += 1;
        if row.first.as_ref().is_none_or(|first| violation.line < first.line) {
            row.first = Some(violation);
        }
    }

    /// Counts one thing that was checked, and takes note of a violation unless it is so.
    pub(super) fn expect(
        &mut self,
        invariant: Invariant,
        is_so: bool,
        message: impl FnOnce() -> String,
    ) {
        self.check(invariant);
        if !is_so {
            self.violate(invariant, message);
        }
    }

    /// Takes note of what cannot be judged; the first reason stays.
    pub(super) fn cannot_judge(&mut self, invariant: Invariant, reason: impl Into<String>) {
        self.rows[invariant as usize].unjudged.get_or_insert_with(|| reason.into());
    }

    /// Takes note of why nothing was checked, unless something was.
    pub(super) fn cannot_judge_unchecked(&mut self, invariant: Invariant, reason: &str) {
        if self.rows[invariant as usize].checked == 0 {
            self.cannot_judge(invariant, reason);
        }
    }

    /// Forgets what was counted, as it cannot be judged after all.
    pub(super) fn forget(&mut self, invariant: Invariant) {
        self.rows[invariant as usize].checked = 0;
    }

    /// Returns the ruling of every invariant.
    pub(super) fn into_rulings(self) -> Vec<(Invariant, Ruling)> {
        Invariant::ALL.into_iter().zip(self.rows.map(Row::into_ruling)).collect()
    }
}

impl Row {
    fn into_ruling(self) -> Ruling {
        match (self.first, self.unjudged) {
            (Some(first), _) => Ruling::Violated { first, count: self.violations },
            (None, Some(reason)) if self.checked == 0 => Ruling::NotJudged { reason },
            (None, note) => Ruling::Holds { checked: self.checked, note },
        }
    }
}
