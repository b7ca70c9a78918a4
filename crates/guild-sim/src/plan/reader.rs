//! Reads tables of a fault plan key by key and reports what does not fit.
//!
//! Every getter notes its key; [`Section::finish`] reports keys that nobody asked for, with the
//! nearest that exists.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_json::{Map, Value};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::knob::Knob;
use super::problem::{Problems, suggest};
use super::quantity;

/// A value of the plan with its place and the path of its key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    pub(super) key: String,
}

impl<T> Located<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: f(self.value), span: self.span, key: self.key }
    }
}

/// A value of a plan that has not been looked at yet.
pub(super) type Raw<'a, 'i> = Located<&'a DeValue<'i>>;

/// One table of the plan.
pub(super) struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    path: String,
    span: Range<usize>,
    problems: &'a Problems,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn root(table: &'a Spanned<DeTable<'i>>, problems: &'a Problems) -> Self {
        Self {
            table: table.get_ref(),
            path: String::new(),
            span: table.span(),
            problems,
            asked: RefCell::default(),
        }
    }

    /// Returns the value of a key, if the table has it.
    pub(super) fn raw(&self, key: &'static str) -> Option<Raw<'a, 'i>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(self.locate(name.get_ref(), value))
    }

    /// Tells whether the table has a key.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.raw(key).is_some()
    }

    fn locate(&self, key: &str, value: &'a Spanned<DeValue<'i>>) -> Raw<'a, 'i> {
        let key = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        self.problems.note(&key, &value.span());
        Located { value: value.get_ref(), span: value.span(), key }
    }

    pub(super) fn wrong<T>(&self, at: &Located<T>, message: impl Into<String>) {
        self.problems.add(&at.span, &at.key, message);
    }

    /// Reports a problem of the table as a whole.
    pub(super) fn wrong_here(&self, message: impl Into<String>) {
        self.problems.add(&self.span, &self.path, message);
    }

    fn expect<T>(&self, raw: &Raw<'_, '_>, what: &str, found: Option<T>) -> Option<Located<T>> {
        if found.is_none() {
            let message = format!("must be {what}, not {}", article(raw.value.type_str()));
            self.wrong(raw, message);
        }
        found.map(|value| Located { value, span: raw.span.clone(), key: raw.key.clone() })
    }

    pub(super) fn as_text(&self, raw: &Raw<'_, '_>) -> Option<Located<String>> {
        self.expect(raw, "a string", raw.value.as_str().map(str::to_owned))
    }

    /// Returns a table inside this one.
    pub(super) fn as_section(&self, raw: &Raw<'a, 'i>) -> Option<Section<'a, 'i>> {
        let table = self.expect(raw, "a table", raw.value.as_table())?;
        Some(Section {
            table: table.value,
            path: table.key,
            span: table.span,
            problems: self.problems,
            asked: RefCell::default(),
        })
    }

    /// Returns the items of a list; their keys carry their number.
    pub(super) fn list(&self, key: &'static str) -> Option<Vec<Raw<'a, 'i>>> {
        let raw = self.raw(key)?;
        let list = self.expect(&raw, "a list", raw.value.as_array())?;
        let item = |(n, item): (usize, &'a Spanned<DeValue<'i>>)| {
            let key = format!("{}[{n}]", raw.key);
            self.problems.note(&key, &item.span());
            Located { value: item.get_ref(), span: item.span(), key }
        };
        Some(list.value.iter().enumerate().map(item).collect())
    }

    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a, 'i>> {
        self.as_section(&self.raw(key)?)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Located<String>> {
        let text = self.as_text(&self.raw(key)?)?;
        if text.value.trim().is_empty() {
            self.wrong(&text, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// Returns what a text names; `known` lists all names.
    pub(super) fn name<T>(
        &self,
        key: &'static str,
        known: impl IntoIterator<Item = (&'static str, T)>,
    ) -> Option<Located<T>> {
        let text = self.text(key)?;
        let mut names = Vec::new();
        for (name, value) in known {
            if name == text.value {
                return Some(text.map(|_| value));
            }
            names.push(name);
        }
        let kind = key.replace('_', " ");
        self.wrong(
            &text,
            format!("unknown {kind} `{}`{}", text.value, suggest(&text.value, names)),
        );
        None
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        Some(self.as_duration(&self.raw(key)?)?.value)
    }

    pub(super) fn as_duration(&self, raw: &Raw<'_, '_>) -> Option<Located<Duration>> {
        let text = self.as_text(raw)?;
        match quantity::duration(&text.value) {
            Ok(duration) => Some(text.map(|_| duration)),
            Err(message) => {
                self.wrong(&text, message);
                None
            }
        }
    }

    pub(super) fn as_duration_above_zero(&self, raw: &Raw<'_, '_>) -> Option<Located<Duration>> {
        let duration = self.as_duration(raw)?;
        if duration.value.is_zero() {
            self.wrong(raw, "must be longer than zero");
            return None;
        }
        Some(duration)
    }

    pub(super) fn integer(
        &self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        self.as_integer(&self.raw(key)?, allowed)
    }

    pub(super) fn as_integer(
        &self,
        raw: &Raw<'_, '_>,
        allowed: RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        let (from, to) = allowed.clone().into_inner();
        let number = self.expect(raw, "a whole number", raw.value.as_integer())?;
        let value = u64::from_str_radix(number.value.as_str(), number.value.radix()).ok();
        match value.filter(|value| allowed.contains(value)) {
            Some(value) => Some(number.map(|_| value)),
            None => {
                let message = format!("{} is not within {from} to {to}", number.value.as_str());
                self.wrong(raw, message);
                None
            }
        }
    }

    /// Returns a number of the range, whose bounds fit into 32 bits.
    pub(super) fn as_count(
        &self,
        raw: &Raw<'_, '_>,
        allowed: RangeInclusive<u32>,
    ) -> Option<Located<u32>> {
        let (from, to) = allowed.into_inner();
        let number = self.as_integer(raw, from.into()..=to.into())?;
        Some(number.map(|number| u32::try_from(number).unwrap_or(to)))
    }

    /// Returns a number from 0 to 1.
    pub(super) fn as_probability(&self, raw: &Raw<'_, '_>) -> Option<Located<f64>> {
        let float = raw.value.as_float().and_then(|float| float.as_str().parse::<f64>().ok());
        let integer = raw.value.as_integer().and_then(|int| int.as_str().parse::<f64>().ok());
        let number = self.expect(raw, "a number", float.or(integer))?;
        if (0.0..=1.0).contains(&number.value) {
            return Some(number);
        }
        self.wrong(raw, format!("{} is no probability: write a number from 0 to 1", number.value));
        None
    }

    /// Returns a value that is fixed or `{ min, max }`.
    pub(super) fn knob<T: PartialOrd>(
        &self,
        key: &'static str,
        read: impl Fn(&Self, &Raw<'a, 'i>) -> Option<Located<T>>,
    ) -> Option<Knob<T>> {
        let raw = self.raw(key)?;
        if !raw.value.is_table() {
            return Some(Knob::Fixed(read(self, &raw)?.value));
        }
        let table = self.as_section(&raw)?;
        let [min, max] = ["min", "max"].map(|bound| table.raw(bound));
        table.finish();
        let (Some(min), Some(max)) = (min, max) else {
            table.wrong_here("needs both min and max, or one value");
            return None;
        };
        let (min, max) = (read(&table, &min), read(&table, &max));
        let (min, max) = (min?.value, max?.value);
        if min > max {
            table.wrong_here("has a min above its max");
            return None;
        }
        Some(Knob::Between { min, max })
    }

    /// Returns a table as JSON, unread; somebody else knows its keys.
    pub(super) fn as_json(&self, raw: &Raw<'_, '_>) -> Option<Value> {
        let json = to_json(raw.value);
        if json.is_none() {
            self.wrong(raw, "has a number that JSON cannot hold (nan, inf, beyond 64 bits)");
        }
        json
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(&self) {
        let mut asked = self.asked.borrow().clone();
        asked.sort_unstable();
        asked.dedup();
        for name in self.table.keys().filter(|name| !asked.contains(&name.get_ref().as_ref())) {
            let hint = suggest(name.get_ref(), asked.iter().copied());
            let dot = if self.path.is_empty() { "" } else { "." };
            let key = format!("{}{dot}{}", self.path, name.get_ref());
            self.problems.add(&name.span(), &key, format!("unknown key{hint}"));
        }
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

fn to_json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => {
            serde_json::Number::from_f64(number.as_str().parse().ok()?).map(Value::Number)?
        }
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(items) => {
            items.iter().map(|item| to_json(item.get_ref())).collect::<Option<Value>>()?
        }
        DeValue::Table(table) => {
            let mut map = Map::new();
            for (key, value) in table.iter() {
                map.insert(key.get_ref().to_string(), to_json(value.get_ref())?);
            }
            Value::Object(map)
        }
    })
}
