//! Sums up very many attempts to shares of busy time: lanes of agents by stretches of time.

use serde::Serialize;

/// Lanes and columns that a page can show.
const LANES_MAX: usize = 240;
const COLUMNS: usize = 800;

/// A cell is a character: how busy its agents were, from 0 to this.
const LEVELS: f64 = 35.0;

/// Shares of busy time.
#[derive(Debug, Serialize)]
pub(super) struct Heat {
    lanes: usize,
    columns: usize,
    /// For each lane from the first, for each column, a digit to the base 36.
    cells: String,
}

/// Sums up spans of busy time, each with its row, from time 0 to the end.
pub(super) fn sum_up(
    spans: impl Iterator<Item = (usize, u64, u64)>,
    rows: usize,
    end: u64,
) -> Heat {
    let lanes = rows.clamp(1, LANES_MAX);
    let width = end.max(1) as f64 / COLUMNS as f64;
    let mut busy = vec![0.0; lanes * COLUMNS];
    for (row, from, to) in spans {
        let lane = (row * lanes / rows.max(1)).min(lanes - 1);
        let cells = &mut busy[lane * COLUMNS..(lane + 1) * COLUMNS];
        let (from, to) = (from as f64 / width, to as f64 / width);
        let last = (to as usize).min(COLUMNS - 1);
        for (column, cell) in cells.iter_mut().enumerate().take(last + 1).skip(from as usize) {
            let left = column as f64;
            *cell += (to.min(left + 1.0) - from.max(left)).max(0.0);
        }
    }
    let rows_of_lane = rows.max(1) as f64 / lanes as f64;
    let digit = |busy: &f64| {
        let level = (busy / rows_of_lane * LEVELS).round().clamp(0.0, LEVELS);
        char::from_digit(level as u32, 36).unwrap_or('0')
    };
    Heat { lanes, columns: COLUMNS, cells: busy.iter().map(digit).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_holds_the_share_of_its_agents_that_was_busy() {
        let spans = [(0, 0, 400), (1, 200, 800), (999, 700, 800)];
        let heat = sum_up(spans.into_iter(), 2, 800);

        assert_eq!((heat.lanes, heat.columns, heat.cells.len()), (2, 800, 1_600));
        let lane = |n: usize| &heat.cells[n * 800..(n + 1) * 800];
        assert_eq!(
            (&lane(0)[..400], &lane(0)[400..]),
            ("z".repeat(400).as_str(), "0".repeat(400).as_str())
        );
        assert_eq!(&lane(1)[..200], "0".repeat(200));

        let many = sum_up((0..1_000).map(|row| (row, 0, 400)), 1_000, 800);
        assert_eq!((many.lanes, many.cells.len()), (240, 240 * 800));
        assert!(many.cells[..390].chars().all(|cell| cell > 'p'));
    }
}
