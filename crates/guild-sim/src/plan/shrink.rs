//! Makes a failing case small: fewer faults, fewer tasks, fewer agents.
//!
//! Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
//! 2002) over the faults of the plan, then over their single strikes; then the sizes are bisected;
//! and again, until nothing gets smaller. The shrinker knows nothing of guilds: the caller runs a
//! case and says what came of it.

use std::collections::BTreeSet;

use super::case::{Case, FaultId};

/// What came of one run of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It did not fail, or not in the way that is sought.
    Passed,
    /// It failed in that way.
    Failed {
        /// The strikes that happened in it.
        faults: Vec<FaultId>,
    },
}

/// The smallest failing case that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The case.
    pub case: Case,
    /// The strikes in it.
    pub faults: Vec<FaultId>,
    /// How many cases were run.
    pub trials: u32,
    /// Whether it is minimal as far as this way of shrinking sees; otherwise the trials ran out.
    pub complete: bool,
}

/// Shrinks a case that fails; `None` when it does not fail, so that it is not repeatable.
///
/// Runs at most `trials_max` cases. The same answers give the same result.
pub fn shrink(start: Case, trials_max: u32, test: impl FnMut(&Case) -> Trial) -> Option<Shrunk> {
    let mut shrinker = Shrinker {
        case: start.clone(),
        faults: Vec::new(),
        trials: 0,
        trials_max: trials_max.max(1),
        test,
    };
    if !shrinker.fails(start) {
        return None;
    }
    loop {
        let before = shrinker.case.clone();
        shrinker.methods();
        shrinker.strikes();
        shrinker.tasks();
        shrinker.agents();
        if shrinker.case == before || shrinker.exhausted() {
            break;
        }
    }
    let complete = !shrinker.exhausted();
    let Shrinker { case, faults, trials, .. } = shrinker;
    Some(Shrunk { case, faults, trials, complete })
}

struct Shrinker<F> {
    /// The smallest case that failed.
    case: Case,
    /// The strikes in it.
    faults: Vec<FaultId>,
    trials: u32,
    trials_max: u32,
    test: F,
}

impl<F: FnMut(&Case) -> Trial> Shrinker<F> {
    fn exhausted(&self) -> bool {
        self.trials >= self.trials_max
    }

    /// Runs a case and keeps it when it fails.
    fn fails(&mut self, case: Case) -> bool {
        if self.exhausted() {
            return false;
        }
        self.trials += 1;
        match (self.test)(&case) {
            Trial::Passed => false,
            Trial::Failed { faults } => {
                (self.case, self.faults) = (case, faults);
                true
            }
        }
    }

    fn methods(&mut self) {
        let methods = self.case.methods.iter().copied().collect();
        ddmin(methods, |kept| {
            let methods: BTreeSet<usize> = kept.iter().copied().collect();
            let faults = self.case.faults.as_ref().map(|faults| {
                faults.iter().copied().filter(|fault| methods.contains(&fault.method)).collect()
            });
            self.fails(Case { methods, faults, ..self.case.clone() })
        });
    }

    fn strikes(&mut self) {
        ddmin(self.faults.clone(), |kept| {
            let faults: BTreeSet<FaultId> = kept.iter().copied().collect();
            let methods = faults.iter().map(|fault| fault.method).collect();
            self.fails(Case { methods, faults: Some(faults), ..self.case.clone() })
        });
    }

    fn tasks(&mut self) {
        if let Some(tasks) = self.case.tasks {
            least(tasks, |tasks| self.fails(Case { tasks: Some(tasks), ..self.case.clone() }));
        }
    }

    fn agents(&mut self) {
        if let Some(agents) = self.case.agents {
            least(agents, |agents| self.fails(Case { agents: Some(agents), ..self.case.clone() }));
        }
    }
}

/// Finds a small part of `items` that still fails; `items` as a whole is known to fail.
fn ddmin<T: Clone>(items: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) {
    if items.is_empty() || fails(&[]) {
        return;
    }
    let mut items = items;
    let mut parts = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(parts);
        let chunks: Vec<&[T]> = items.chunks(size).collect();
        let count = chunks.len();
        if let Some(chunk) = chunks.iter().find(|chunk| fails(chunk)) {
            (items, parts) = (chunk.to_vec(), 2);
            continue;
        }
        let without = |n: usize| [chunks[..n].concat(), chunks[n + 1..].concat()].concat();
        // With two parts each rest is the other part, which has been tried.
        let rests = if count > 2 { 0..count } else { 0..0 };
        if let Some(rest) = rests.map(without).find(|rest| fails(rest)) {
            (items, parts) = (rest, (count - 1).max(2));
            continue;
        }
        if size == 1 {
            return;
        }
        parts = (count * 2).min(items.len());
    }
}

/// Bisects for a least number above zero that fails; `from` is known to.
fn least(from: u32, mut fails: impl FnMut(u32) -> bool) {
    let (mut passes, mut failing) = (0, from);
    while failing - passes > 1 {
        let middle = passes + (failing - passes) / 2;
        if fails(middle) {
            failing = middle;
        } else {
            passes = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(method: usize, strike: u64) -> FaultId {
        FaultId { method, strike }
    }

    /// A run in which each of five faults strikes ten times, where the case lets it.
    fn strikes(case: &Case) -> Vec<FaultId> {
        let all = (0..5).flat_map(|method| (1..=10).map(move |strike| fault(method, strike)));
        all.filter(|fault| case.admits(*fault)).collect()
    }

    fn whole() -> Case {
        Case { methods: (0..5).collect(), faults: None, tasks: Some(200), agents: Some(16) }
    }

    fn shrink_until(trials_max: u32, fails: impl Fn(&Case, &[FaultId]) -> bool) -> Option<Shrunk> {
        shrink(whole(), trials_max, |case| {
            let faults = strikes(case);
            if fails(case, &faults) { Trial::Failed { faults } } else { Trial::Passed }
        })
    }

    #[test]
    fn failure_by_two_strikes_is_shrunk_to_these_two() {
        let (one, two) = (fault(1, 7), fault(4, 2));

        let shrunk = shrink_until(1_000, |case, faults| {
            faults.contains(&one)
                && faults.contains(&two)
                && case.tasks >= Some(9)
                && case.agents >= Some(3)
        });

        let shrunk = shrunk.unwrap();
        assert_eq!(shrunk.case.to_string(), "methods=1,4;faults=1:7,4:2;tasks=9;agents=3");
        assert_eq!(shrunk.faults, [one, two]);
        assert!(shrunk.complete && shrunk.trials < 120, "{} trials", shrunk.trials);
    }

    #[test]
    fn failure_that_needs_no_fault_is_shrunk_to_none() {
        let shrunk = shrink_until(100, |_, _| true).unwrap();

        assert_eq!(shrunk.case.to_string(), "methods=;tasks=1;agents=1");
        assert!(shrunk.complete);
    }

    #[test]
    fn failure_by_many_strikes_keeps_as_many_as_it_needs() {
        let shrunk = shrink_until(1_000, |_, faults| faults.len() >= 4).unwrap();

        assert_eq!(shrunk.faults.len(), 4);
        assert_eq!(shrunk.case.faults.unwrap().len(), 4);
    }

    #[test]
    fn case_that_does_not_fail_is_not_shrunk() {
        assert_eq!(shrink_until(100, |_, _| false), None);
    }

    #[test]
    fn shrinking_ends_when_its_trials_are_used_up() {
        let shrunk = shrink_until(7, |_, faults| faults.contains(&fault(3, 3))).unwrap();

        assert_eq!((shrunk.trials, shrunk.complete), (7, false));
        assert!(shrunk.faults.contains(&fault(3, 3)));
    }

    #[test]
    fn failure_that_comes_and_goes_still_gives_a_case_that_failed() {
        let odd = |case: &Case, _: &[FaultId]| case.tasks.unwrap() % 3 == 2;

        let shrunk = shrink_until(1_000, odd).unwrap();

        assert_eq!(shrunk.case.tasks.unwrap() % 3, 2);
    }

    #[test]
    fn the_same_answers_give_the_same_case() {
        let run = || shrink_until(50, |_, faults| faults.len() % 7 == 1 || faults.len() == 50);

        assert_eq!(run(), run());
    }
}
