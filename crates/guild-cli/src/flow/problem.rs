//! Says what is wrong with a flow file: where, under which key, and what to do about it.
//!
//! All problems of a file are collected before anything is started, so that one reading of the
//! message is enough to mend the file.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Problems shown at once; more only hide the first.
const SHOWN_MAX: usize = 20;

/// A place in a flow file, for people: both numbers count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) place: Option<Place>,
    /// Dotted path of the key, empty for the file as a whole.
    pub(crate) key: String,
    pub(crate) message: String,
}

/// All that is wrong with one flow file; the file is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct FlowError {
    pub(crate) file: PathBuf,
    pub(crate) problems: Vec<Problem>,
}

impl fmt::Display for FlowError {
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

/// Collects the problems of one file and knows its lines.
pub(crate) struct Problems {
    file: PathBuf,
    /// Byte offset at which each line starts.
    lines: Vec<usize>,
    text: String,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(crate) fn new(file: &Path, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
        Self {
            file: file.to_owned(),
            lines: std::iter::once(0).chain(ends.map(|end| end + 1)).collect(),
            text: text.to_owned(),
            found: RefCell::default(),
        }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the line and column of a byte offset.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// Adds a problem at a span of the file.
    pub(crate) fn add(&self, span: Range<usize>, key: &str, message: impl Into<String>) {
        self.add_at(Some(self.place(span.start)), key, message);
    }

    /// Adds a problem at a place, or about the file as a whole.
    pub(crate) fn add_at(&self, place: Option<Place>, key: &str, message: impl Into<String>) {
        let problem = Problem { place, key: key.to_owned(), message: message.into() };
        self.found.borrow_mut().push(problem);
    }

    /// Tells whether a problem was found at this key or below it.
    pub(crate) fn is_about(&self, key: &str) -> bool {
        let below = |problem: &Problem| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.found.borrow().iter().any(below)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Returns the value when there was no problem, otherwise all problems in the file's order.
    pub(crate) fn finish<T>(&self, value: Option<T>) -> Result<T, FlowError> {
        let mut problems = self.found.take();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                problems.sort();
                problems.dedup();
                Err(FlowError { file: self.file.clone(), problems })
            }
        }
    }
}

/// Returns ` (did you mean ...)` or the list of what there is.
pub(crate) fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
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
    fn suggestion_names_the_nearest_or_all() {
        assert_eq!(suggest("comand", ["command", "role"]), "; did you mean `command`?");
        assert_eq!(suggest("zzz", ["command", "role"]), "; there are: command, role");
        assert_eq!(suggest("zzz", []), "; there is none");
    }
}
