//! Says what is wrong with a fault plan: where, under which key, and what to do about it.
//!
//! All problems of a plan are collected before anything is started, so that one reading of the
//! message is enough to mend it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Problems shown at once; more only hide the first.
const SHOWN_MAX: usize = 20;

/// A place in a plan, for people: both numbers count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One thing that is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is, unless it is about the plan as a whole.
    pub place: Option<Place>,
    /// Dotted path of the key, empty for the plan as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// All that is wrong with one plan; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// The plan's file.
    pub file: PathBuf,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().take(SHOWN_MAX).enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", self.file.display())?;
            if let Some(place) = problem.place {
                write!(f, ":{}:{}", place.line, place.column)?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        match self.problems.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

/// Where each key of a plan stands, so that what is found later can still name its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// Returns the place of a key, or of the nearest table around it that is known.
    pub(super) fn of(&self, key: &str) -> Option<Place> {
        let mut key = key;
        loop {
            if let Some(place) = self.0.get(key) {
                return Some(*place);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

/// Collects the problems of one plan and knows its lines.
pub(super) struct Problems {
    file: PathBuf,
    /// Byte offset at which each line starts.
    lines: Vec<usize>,
    text: String,
    found: RefCell<Vec<Problem>>,
    places: RefCell<Places>,
}

impl Problems {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
        Self {
            file: file.to_owned(),
            lines: std::iter::once(0).chain(ends.map(|end| end + 1)).collect(),
            text: text.to_owned(),
            found: RefCell::default(),
            places: RefCell::default(),
        }
    }

    /// Returns the line and column of a byte offset.
    fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// Notes where a key stands.
    pub(super) fn note(&self, key: &str, span: &Range<usize>) {
        self.places.borrow_mut().0.insert(key.to_owned(), self.place(span.start));
    }

    /// Adds a problem at a span of the file.
    pub(super) fn add(&self, span: &Range<usize>, key: &str, message: impl Into<String>) {
        self.add_at(Some(self.place(span.start)), key, message);
    }

    /// Adds a problem at a place, or about the plan as a whole.
    pub(super) fn add_at(&self, place: Option<Place>, key: &str, message: impl Into<String>) {
        let problem = Problem { place, key: key.to_owned(), message: message.into() };
        self.found.borrow_mut().push(problem);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Returns the places of all keys that were read.
    pub(super) fn places(&self) -> Places {
        self.places.borrow().clone()
    }

    /// Returns the value when there was no problem, otherwise all problems in the file's order.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, PlanError> {
        let mut problems = self.found.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                problems.sort();
                problems.dedup();
                Err(PlanError { file: self.file, problems })
            }
        }
    }
}

/// Returns `; did you mean ...?` or the list of what there is.
pub(super) fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        .filter(|(distance, name)| *distance <= 1.max(name.chars().count() / 3))
        .filter(|(distance, name)| *distance < name.chars().count())
        .min();
    match nearest {
        Some((_, name)) => format!("; did you mean `{name}`?"),
        None if known.is_empty() => "; there is none".to_owned(),
        None => format!("; there are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_counts_lines_and_characters_from_one() {
        let problems = Problems::new(Path::new("f"), "ab\nüx = 1\n");

        assert_eq!(problems.place(0), Place { line: 1, column: 1 });
        assert_eq!(problems.place(3), Place { line: 2, column: 1 });
        assert_eq!(problems.place(5), Place { line: 2, column: 2 });
        assert_eq!(problems.place(999), Place { line: 3, column: 1 });
    }

    #[test]
    fn key_without_a_place_has_that_of_the_table_around_it() {
        let problems = Problems::new(Path::new("f"), "a\nb\n");
        problems.note("method[1]", &(2..3));

        let places = problems.places();

        assert_eq!(places.of("method[1].select.mode"), Some(Place { line: 2, column: 1 }));
        assert_eq!(places.of("knobs.sync"), None);
    }
}
