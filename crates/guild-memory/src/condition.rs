//! States what a commit requires of one key, whoever has written it.
//!
//! A condition is not a read: other transactions may change the key as they like while it stays
//! true. It is looked at when it is stated, so that the caller learns of it at once, and again at
//! the commit, where only it decides.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use guild_core::payload::Payload;
use serde_json::Value;

use crate::transaction::{TransactionError, text};

/// What must be true of a key at the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// There is a value.
    Exists,
    /// There is none.
    Absent,
    /// The value is this one, compared as JSON.
    Equals(Payload),
    /// The value is an integer of at least this; an absent key counts as 0.
    AtLeast(i64),
    /// The value is an integer of at most this; an absent key counts as 0.
    AtMost(i64),
}

impl Condition {
    /// Returns whether the condition holds for a value.
    ///
    /// # Errors
    /// `WrongType`: the condition is about integers and the value is none.
    pub(crate) fn holds(
        &self,
        key: &[u8],
        value: Option<&Bytes>,
    ) -> Result<bool, TransactionError> {
        Ok(match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Equals(wanted) => value.is_some_and(|value| equal(value, wanted.as_json())),
            Self::AtLeast(bound) => integer(key, "compare", value)?.cmp(bound) != Ordering::Less,
            Self::AtMost(bound) => integer(key, "compare", value)?.cmp(bound) != Ordering::Greater,
        })
    }

    /// Returns the error that says what was found instead.
    pub(crate) fn unmet(&self, key: &[u8], value: Option<&Bytes>) -> TransactionError {
        let found = match value {
            None => "is absent".to_owned(),
            Some(value) => format!("holds {}", shortened(value)),
        };
        TransactionError::Unmet { key: text(key), condition: self.clone(), found }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("exist"),
            Self::Absent => f.write_str("be absent"),
            Self::Equals(value) => write!(f, "equal {}", shortened(value.as_json())),
            Self::AtLeast(bound) => write!(f, "be at least {bound}"),
            Self::AtMost(bound) => write!(f, "be at most {bound}"),
        }
    }
}

/// Reads the integer of a key; absent counts as 0.
pub(crate) fn integer(
    key: &[u8],
    operation: &'static str,
    value: Option<&Bytes>,
) -> Result<i64, TransactionError> {
    let Some(value) = value else {
        return Ok(0);
    };
    serde_json::from_slice(value)
        .map_err(|_| wrong_type(key, operation, "an integer of 64 bits", value))
}

pub(crate) fn wrong_type(
    key: &[u8],
    operation: &'static str,
    needs: &'static str,
    value: &[u8],
) -> TransactionError {
    TransactionError::WrongType { key: text(key), operation, needs, found: type_name(value) }
}

/// Returns what a value is, with its article.
pub(crate) fn type_name(value: &[u8]) -> &'static str {
    match serde_json::from_slice::<Value>(value) {
        Ok(Value::Null) => "null",
        Ok(Value::Bool(_)) => "a boolean",
        Ok(Value::Number(number)) if number.is_f64() => "a number that is no such integer",
        Ok(Value::Number(_)) => "an integer",
        Ok(Value::String(_)) => "a string",
        Ok(Value::Array(_)) => "a list",
        Ok(Value::Object(_)) => "an object",
        Err(_) => "bytes that are no JSON",
    }
}

/// Returns whether two texts are the same JSON value; other bytes are compared as they are.
pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    one == other
        || match (serde_json::from_slice::<Value>(one), serde_json::from_slice::<Value>(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

fn shortened(value: &[u8]) -> String {
    const CHARS_MAX: usize = 64;
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(CHARS_MAX) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
