//! Reads how long tasks take, and how many items lists have, when a flow is simulated.
//!
//! A real run takes no notice of either: it finds out. A file of samples is read only when the flow
//! is simulated, so that a flow runs on a machine that does not have it.

use std::path::PathBuf;
use std::time::Duration;

use guild_sim::workload::{DurationError, Durations, Items};

use crate::flow::problem::{Place, suggest};
use crate::flow::reader::{Raw, Section};

/// The names of all distributions.
const DISTRIBUTIONS: [&str; 6] =
    ["uniform", "normal", "log-normal", "exponential", "pareto", "empirical"];

/// Most items that a list of a simulation has.
const ITEMS_MAX: i64 = 2_000_000;

/// How long the tasks of a simulation take.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TaskDuration {
    /// As the flow file says.
    Drawn(Durations),
    /// One of the samples in a file, each as likely as the others.
    Samples(Samples),
}

/// A column of a CSV file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Samples {
    file: PathBuf,
    column: String,
    /// What a 1 in the column stands for.
    unit: Duration,
    /// Where the flow file names it.
    pub(crate) place: Place,
    /// Dotted path of the key that names it.
    pub(crate) key: String,
}

impl Samples {
    /// Reads the file.
    pub(crate) fn read(&self) -> Result<Durations, DurationError> {
        Durations::from_csv(&self.file, &self.column, self.unit)
    }
}

/// Reads the `duration` of a task or role: a time, or a table that names a distribution.
pub(crate) fn duration(table: &Section<'_, '_>) -> Option<TaskDuration> {
    let raw = table.raw("duration")?;
    if raw.value.is_str() {
        return Some(TaskDuration::Drawn(Durations::Fixed(table.duration("duration")?)));
    }
    let section = table.as_section(&raw)?;
    let read = distribution(&section, &raw);
    section.finish();
    read
}

fn distribution(section: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Option<TaskDuration> {
    let name = required(section, raw, "distribution", Section::text)?;
    let time = |key| required(section, raw, key, Section::duration);
    let number = |key| Some(required(section, raw, key, Section::any_number)?.value);
    let drawn = match name.value.as_str() {
        "uniform" => time("min").zip(time("max")).map(|(min, max)| Durations::Uniform { min, max }),
        "normal" => time("mean").zip(time("sd")).map(|(mean, sd)| Durations::Normal { mean, sd }),
        "log-normal" => time("median")
            .zip(number("sigma"))
            .map(|(median, sigma)| Durations::LogNormal { median, sigma }),
        "exponential" => time("mean").map(|mean| Durations::Exponential { mean }),
        "pareto" => {
            time("min").zip(number("shape")).map(|(min, shape)| Durations::Pareto { min, shape })
        }
        "empirical" => return samples(section, raw).map(TaskDuration::Samples),
        other => {
            let hint = suggest(other, DISTRIBUTIONS);
            section.wrong(&name, format!("unknown distribution `{other}`{hint}"));
            // What the other keys mean is not known.
            section.accept_all();
            None
        }
    };
    let drawn = drawn?;
    match drawn.check() {
        Ok(()) => Some(TaskDuration::Drawn(drawn)),
        Err(error) => {
            section.wrong(raw, error.to_string());
            None
        }
    }
}

fn samples(section: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Option<Samples> {
    let file = required(section, raw, "file", Section::text);
    let column = required(section, raw, "column", Section::text);
    let unit = section.quantity("unit", |text| match text {
        "us" => Ok(Duration::from_micros(1)),
        "ms" => Ok(Duration::from_millis(1)),
        "s" => Ok(Duration::from_secs(1)),
        "m" => Ok(Duration::from_secs(60)),
        "h" => Ok(Duration::from_secs(3_600)),
        _ => Err(format!("`{text}` is no unit of time; write us, ms, s, m or h")),
    });
    let (file, column) = (file?, column?);
    Some(Samples {
        place: section.place(&file),
        key: file.key,
        file: section.beside_the_flow(&file.value),
        column: column.value,
        unit: unit.map_or(Duration::from_secs(1), |unit| unit.value),
    })
}

/// Reads a key that the table must have.
fn required<'a, 'i, T>(
    section: &Section<'a, 'i>,
    raw: &Raw<'_, '_>,
    key: &'static str,
    read: impl Fn(&Section<'a, 'i>, &'static str) -> Option<T>,
) -> Option<T> {
    if section.raw(key).is_none() {
        section.wrong(raw, format!("has no `{key}`"));
        return None;
    }
    read(section, key)
}

/// Reads `items`: how many items a simulation takes a list to have that it does not know.
pub(crate) fn items(table: &Section<'_, '_>) -> Option<Items> {
    let raw = table.raw("items")?;
    if raw.value.is_table() {
        let section = table.as_section(&raw)?;
        let count = |key| {
            let read = |section: &Section<'_, '_>, key| section.integer(key, 0..=ITEMS_MAX);
            let count = required(&section, &raw, key, read)?;
            u32::try_from(count.value).ok()
        };
        let (min, max) = (count("min"), count("max"));
        section.finish();
        let (min, max) = (min?, max?);
        if min > max {
            table.wrong(
                &raw,
                format!("`min` is {min} and `max` is {max}: the one is above the other"),
            );
            return None;
        }
        return Some(Items::Uniform { min, max });
    }
    let count = table.as_integer(&raw, 0..=ITEMS_MAX)?;
    Some(Items::Fixed(u32::try_from(count.value).ok()?))
}
