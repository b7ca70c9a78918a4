//! Names a part of a drawn plan: some of its faults, on fewer tasks and agents.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names one strike of a run: which fault of the plan, and which of its strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultId {
    /// The place of the fault in the plan, from 0.
    pub method: usize,
    /// Which strike of that fault, from 1; strikes that a case leaves out are counted.
    pub strike: u64,
}

/// What of a drawn plan is run. Its text form is what the command line takes:
/// `methods=0,2;faults=0:1-4,2:1;tasks=5;agents=2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The faults of the plan that may strike, by place.
    pub methods: BTreeSet<usize>,
    /// The strikes that happen; all when absent.
    pub faults: Option<BTreeSet<FaultId>>,
    /// How many tasks a generated workload has; as drawn when absent.
    pub tasks: Option<u32>,
    /// How many agents there are; as drawn when absent.
    pub agents: Option<u32>,
}

/// A text that names no case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no part of a case: write methods=0,2;faults=0:1-4,2:1;tasks=5;agents=2")]
pub struct CaseError(String);

impl Case {
    /// Tells whether a strike is part of the case.
    pub fn admits(&self, fault: FaultId) -> bool {
        self.methods.contains(&fault.method)
            && self.faults.as_ref().is_none_or(|faults| faults.contains(&fault))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<String> = self.methods.iter().map(ToString::to_string).collect();
        write!(f, "methods={}", methods.join(","))?;
        if let Some(faults) = &self.faults {
            let ranges: Vec<String> = ranges(faults).iter().map(ToString::to_string).collect();
            write!(f, ";faults={}", ranges.join(","))?;
        }
        for (name, number) in [("tasks", self.tasks), ("agents", self.agents)] {
            if let Some(number) = number {
                write!(f, ";{name}={number}")?;
            }
        }
        Ok(())
    }
}

/// Most strikes that the text of a case may name.
const FAULTS_MAX: u64 = 1_000_000;

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut case = Self::default();
        for part in text.split(';') {
            let wrong = || CaseError(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let items = || value.split(',').filter(|item| !item.is_empty());
            let number = || value.parse().ok().filter(|n| *n > 0).ok_or_else(wrong);
            match name {
                "methods" => {
                    let methods: Result<_, _> = items().map(str::parse).collect();
                    case.methods = methods.map_err(|_| wrong())?;
                }
                "faults" => {
                    let mut faults = BTreeSet::new();
                    for item in items() {
                        faults.extend(strikes(item).ok_or_else(wrong)?);
                    }
                    case.faults = Some(faults);
                }
                "tasks" => case.tasks = Some(number()?),
                "agents" => case.agents = Some(number()?),
                _ => return Err(wrong()),
            }
        }
        Ok(case)
    }
}

/// Strikes of one fault in a row.
struct Run {
    method: usize,
    first: u64,
    last: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.method, self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

fn ranges(faults: &BTreeSet<FaultId>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for FaultId { method, strike } in faults {
        match runs.last_mut() {
            Some(run) if run.method == *method && run.last + 1 == *strike => run.last = *strike,
            _ => runs.push(Run { method: *method, first: *strike, last: *strike }),
        }
    }
    runs
}

/// Reads `2:5` or `2:5-9`.
fn strikes(item: &str) -> Option<impl Iterator<Item = FaultId> + use<>> {
    let (method, strikes) = item.split_once(':')?;
    let (first, last) = strikes.split_once('-').unwrap_or((strikes, strikes));
    let (method, first, last) = (method.parse().ok()?, first.parse().ok()?, last.parse().ok()?);
    let fits = 0 < first && first <= last && last - first < FAULTS_MAX;
    fits.then(|| (first..=last).map(move |strike| FaultId { method, strike }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_read_as_it_was_written() {
        let fault = |method, strike| FaultId { method, strike };
        let some = [fault(0, 1), fault(0, 2), fault(0, 3), fault(2, 1), fault(2, 7)];
        let mut case = Case {
            methods: BTreeSet::from([0, 2]),
            faults: Some(BTreeSet::from(some)),
            tasks: Some(5),
            agents: None,
        };

        assert_eq!(case.to_string(), "methods=0,2;faults=0:1-3,2:1,2:7;tasks=5");
        assert_eq!(case.to_string().parse(), Ok(case.clone()));

        case = Case { faults: Some(BTreeSet::new()), agents: Some(1), ..Case::default() };
        assert_eq!(case.to_string(), "methods=;faults=;agents=1");
        assert_eq!(case.to_string().parse(), Ok(case));
    }

    #[test]
    fn text_that_is_no_case_is_refused() {
        for wrong in [
            "",
            "methods",
            "methods=x",
            "faults=1",
            "faults=0:0",
            "faults=0:5-3",
            "tasks=0",
            "x=1",
            "methods=0;faults=0:1-18446744073709551615",
        ] {
            assert!(wrong.parse::<Case>().is_err(), "{wrong}");
        }
    }
}
