//! Reads tables of a flow file key by key and reports what does not fit.
//!
//! Every getter notes its key; [`Section::finish`] reports keys that nobody asked for, with the
//! nearest that exists.

use std::cell::{Cell, RefCell};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::problem::{Place, Problems, suggest};
use crate::flow::quantity;

/// A value of the file with its place and the path of its key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
}

impl<T> Located<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: f(self.value), span: self.span, key: self.key }
    }
}

/// A value of a flow file that has not been looked at yet.
pub(crate) type Raw<'a, 'i> = Located<&'a DeValue<'i>>;

/// One table of the file.
pub(crate) struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    path: String,
    problems: &'a Problems,
    asked: RefCell<Vec<&'static str>>,
    accepts_all: Cell<bool>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(crate) fn root(table: &'a Spanned<DeTable<'i>>, problems: &'a Problems) -> Self {
        Self {
            table: table.get_ref(),
            path: String::new(),
            problems,
            asked: RefCell::default(),
            accepts_all: Cell::default(),
        }
    }

    /// Returns the value of a key, if the table has it.
    pub(crate) fn raw(&self, key: &'static str) -> Option<Raw<'a, 'i>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(self.locate(name.get_ref(), value))
    }

    fn locate(&self, key: &str, value: &'a Spanned<DeValue<'i>>) -> Raw<'a, 'i> {
        let key = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Located { value: value.get_ref(), span: value.span(), key }
    }

    /// Returns all entries with free names, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<(Located<String>, Raw<'a, 'i>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(name, value)| {
                let raw = self.locate(name.get_ref(), value);
                let (value, span) = (name.get_ref().to_string(), name.span());
                (Located { value, span, key: raw.key.clone() }, raw)
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.span.start);
        entries
    }

    pub(crate) fn wrong<T>(&self, at: &Located<T>, message: impl Into<String>) {
        self.problems.add(at.span.clone(), &at.key, message);
    }

    fn expect<T>(&self, raw: &Raw<'_, '_>, what: &str, found: Option<T>) -> Option<Located<T>> {
        if found.is_none() {
            let message = format!("must be {what}, not {}", article(raw.value.type_str()));
            self.wrong(raw, message);
        }
        found.map(|value| Located { value, span: raw.span.clone(), key: raw.key.clone() })
    }

    pub(crate) fn as_text(&self, raw: &Raw<'_, '_>) -> Option<Located<String>> {
        self.expect(raw, "a string", raw.value.as_str().map(str::to_owned))
    }

    /// Returns a table inside this one.
    pub(crate) fn as_section(&self, raw: &Raw<'a, 'i>) -> Option<Section<'a, 'i>> {
        let table = self.expect(raw, "a table", raw.value.as_table())?;
        Some(Section {
            table: table.value,
            path: raw.key.clone(),
            problems: self.problems,
            asked: RefCell::default(),
            accepts_all: Cell::default(),
        })
    }

    /// Returns the items of a list; their keys carry their number.
    pub(crate) fn as_list(&self, raw: &Raw<'a, 'i>) -> Option<Vec<Raw<'a, 'i>>> {
        let list = self.expect(raw, "a list", raw.value.as_array())?;
        let items = list.value.iter().enumerate().map(|(n, item)| Located {
            value: item.get_ref(),
            span: item.span(),
            key: format!("{}[{n}]", raw.key),
        });
        Some(items.collect())
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<Located<String>> {
        self.as_text(&self.raw(key)?)
    }

    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a, 'i>> {
        self.as_section(&self.raw(key)?)
    }

    pub(crate) fn list(&self, key: &'static str) -> Option<Vec<Raw<'a, 'i>>> {
        self.as_list(&self.raw(key)?)
    }

    /// Returns a string that one of the readers of `quantity` understands.
    pub(crate) fn quantity<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let text = self.text(key)?;
        match read(&text.value) {
            Ok(value) => Some(text.map(|_| value)),
            Err(message) => {
                self.wrong(&text, message);
                None
            }
        }
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        Some(self.quantity(key, quantity::duration)?.value)
    }

    /// Returns a duration that is not zero.
    pub(crate) fn duration_above_zero(&self, key: &'static str) -> Option<Duration> {
        let read = |text: &str| match quantity::duration(text)? {
            Duration::ZERO => Err("must be longer than zero".to_owned()),
            duration => Ok(duration),
        };
        Some(self.quantity(key, read)?.value)
    }

    pub(crate) fn integer(
        &self,
        key: &'static str,
        allowed: RangeInclusive<i64>,
    ) -> Option<Located<i64>> {
        self.as_integer(&self.raw(key)?, allowed)
    }

    pub(crate) fn as_integer(
        &self,
        raw: &Raw<'_, '_>,
        allowed: RangeInclusive<i64>,
    ) -> Option<Located<i64>> {
        let (from, to) = allowed.clone().into_inner();
        let number = self.expect(raw, "a whole number", raw.value.as_integer())?;
        let value = i64::from_str_radix(number.value.as_str(), number.value.radix()).ok();
        match value.filter(|value| allowed.contains(value)) {
            Some(value) => Some(number.map(|_| value)),
            None => {
                let message = format!("{} is not within {from} to {to}", number.value.as_str());
                self.wrong(raw, message);
                None
            }
        }
    }

    pub(crate) fn number(
        &self,
        key: &'static str,
        allowed: RangeInclusive<f64>,
    ) -> Option<Located<f64>> {
        let raw = self.raw(key)?;
        let float = raw.value.as_float().and_then(|float| float.as_str().parse::<f64>().ok());
        let integer = raw.value.as_integer().and_then(|int| int.as_str().parse::<f64>().ok());
        let number = self.expect(&raw, "a number", float.or(integer))?;
        if allowed.contains(&number.value) {
            return Some(number);
        }
        let (from, to) = allowed.into_inner();
        self.wrong(&raw, format!("{} is not within {from} to {to}", number.value));
        None
    }

    /// Returns any finite number.
    pub(crate) fn any_number(&self, key: &'static str) -> Option<Located<f64>> {
        self.number(key, f64::MIN..=f64::MAX)
    }

    /// Returns the line and column of a value.
    pub(crate) fn place<T>(&self, at: &Located<T>) -> Place {
        self.problems.place(at.span.start)
    }

    /// Returns the path of a file that is named relative to the flow file.
    pub(crate) fn beside_the_flow(&self, file: &str) -> PathBuf {
        self.problems
            .file()
            .parent()
            .map_or_else(|| PathBuf::from(file), |folder| folder.join(file))
    }

    /// Makes [`finish`](Self::finish) report nothing, where it is not known which keys belong here.
    pub(crate) fn accept_all(&self) {
        self.accepts_all.set(true);
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(&self) {
        if self.accepts_all.get() {
            return;
        }
        let asked = self.asked.borrow();
        for (name, raw) in self.entries() {
            if !asked.contains(&name.value.as_str()) {
                let hint = suggest(&name.value, asked.iter().copied());
                self.problems.add(name.span, &raw.key, format!("unknown key{hint}"));
            }
        }
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
