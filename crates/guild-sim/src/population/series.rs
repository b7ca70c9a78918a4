//! Keeps what was measured over time, as a table.

use std::io;

/// A table of numbers over time: one row for each time at which was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// What was measured at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Number of the time step, from 0: before the first one.
    pub tick: u64,
    /// Time of the model in seconds.
    pub time_s: f64,
    /// What was measured, in the order of the columns.
    pub values: Vec<f64>,
}

impl Series {
    pub(super) fn new(columns: Vec<String>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Returns the names of what was measured.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the rows, oldest first.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns what was measured under a name over time; none when nothing has this name.
    pub fn column(&self, name: &str) -> Option<Vec<f64>> {
        let place = self.columns.iter().position(|column| column == name)?;
        Some(self.rows.iter().map(|row| row.values[place]).collect())
    }

    /// Returns the newest value under a name.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.column(name)?.last().copied()
    }

    /// Writes the table as CSV: `tick,time_s` and a column for each measure.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write_csv(&self, writer: impl io::Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(writer);
        let heads = ["tick", "time_s"].into_iter().chain(self.columns.iter().map(String::as_str));
        csv.write_record(heads)?;
        for row in &self.rows {
            csv.write_record(row.cells())?;
        }
        csv.flush()
    }

    /// Returns the table as CSV.
    pub fn to_csv(&self) -> String {
        text(|bytes| self.write_csv(bytes))
    }
}

impl Row {
    pub(super) fn cells(&self) -> Vec<String> {
        let values = self.values.iter().map(f64::to_string);
        [self.tick.to_string(), self.time_s.to_string()].into_iter().chain(values).collect()
    }
}

/// Returns what is written into a buffer.
pub(super) fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).expect("a vector takes all that is written");
    String::from_utf8(bytes).expect("CSV of texts is a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_csv_with_whole_numbers_as_such_and_names_quoted() {
        let mut series = Series::new(vec!["trades".to_owned(), "gini, %".to_owned()]);
        series.push(Row { tick: 0, time_s: 0.0, values: vec![12.0, 0.5] });
        series.push(Row { tick: 1, time_s: 1.5, values: vec![7.0, 0.25] });

        assert_eq!(series.to_csv(), "tick,time_s,trades,\"gini, %\"\n0,0,12,0.5\n1,1.5,7,0.25\n");
        assert_eq!(series.column("trades"), Some(vec![12.0, 7.0]));
        assert_eq!(series.last("gini, %"), Some(0.25));
        assert_eq!(series.column("price"), None);
    }
}
