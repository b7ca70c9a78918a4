//! A number that changes over time, as steps.

use serde::Serialize;

/// Steps that a page carries of one number; more are thinned out, their extremes kept.
const STEPS_MAX: usize = 12_000;

/// The values of a number from time 0 on; each holds until the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    steps: Vec<(u64, u64)>,
}

/// The same with columns, as a page carries it; times are differences.
#[derive(Debug, Serialize)]
pub(super) struct Columns {
    at: Vec<u64>,
    value: Vec<u64>,
}

impl Series {
    /// Returns the value now.
    pub(super) fn value(&self) -> u64 {
        self.steps.last().map_or(0, |(_, value)| *value)
    }

    /// Returns the greatest value of all.
    pub(super) fn peak(&self) -> u64 {
        self.steps.iter().map(|(_, value)| *value).max().unwrap_or(0)
    }

    pub(super) fn add(&mut self, at: u64, amount: u64) {
        self.set(at, self.value() + amount);
    }

    pub(super) fn subtract(&mut self, at: u64, amount: u64) {
        self.set(at, self.value().saturating_sub(amount));
    }

    /// Sets the value from this time on; of several values at one time the last counts.
    pub(super) fn set(&mut self, at: u64, value: u64) {
        match self.steps.last_mut() {
            Some((last, old)) if *last == at => *old = value,
            Some((_, old)) if *old == value => {}
            _ => self.steps.push((at, value)),
        }
    }

    /// Returns the steps as columns, not more than a page can carry.
    pub(super) fn columns(&self) -> Columns {
        let steps = thin_out(&self.steps);
        let mut last = 0;
        let at = steps.iter().map(|(at, _)| at - std::mem::replace(&mut last, *at)).collect();
        Columns { at, value: steps.iter().map(|(_, value)| *value).collect() }
    }
}

/// Keeps the lowest and the highest step of each stretch, and the last step of all.
fn thin_out(steps: &[(u64, u64)]) -> Vec<(u64, u64)> {
    if steps.len() <= STEPS_MAX {
        return steps.to_vec();
    }
    let stretch = steps.len().div_ceil(STEPS_MAX / 3);
    let mut kept = Vec::with_capacity(STEPS_MAX);
    for part in steps.chunks(stretch) {
        let low = part.iter().min_by_key(|(_, value)| *value);
        let high = part.iter().max_by_key(|(_, value)| *value);
        let mut three: Vec<_> = [low, high, part.last()].into_iter().flatten().copied().collect();
        three.sort_unstable();
        three.dedup();
        kept.extend(three);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_value_of_an_instant_counts_and_no_change_is_no_step() {
        let mut series = Series::default();
        series.add(0, 2);
        series.add(5, 1);
        series.subtract(5, 2);
        series.set(9, 1);
        series.subtract(9, 5);

        assert_eq!(series.steps, [(0, 2), (5, 1), (9, 0)]);
        assert_eq!((series.peak(), series.value()), (2, 0));
    }

    #[test]
    fn a_long_series_keeps_its_extremes_and_its_end() {
        let mut series = Series::default();
        for at in 0..100_000 {
            series.set(at, if at == 77_777 { 9_999 } else { at % 7 });
        }

        let columns = series.columns();

        assert!(columns.at.len() <= STEPS_MAX, "{}", columns.at.len());
        assert!(columns.value.contains(&9_999));
        assert_eq!(columns.at.iter().sum::<u64>(), 99_999);
    }
}
