//! Changes a value without having read it.
//!
//! Any number of transactions may do this to one key at once: the commit applies the operation to
//! whatever is there, so nobody has to be right about what that is, and nobody conflicts. Where an
//! operation changes nothing (the set has the element already, say) nothing is written either.

mod patch;

use std::cmp::Ordering;

use bytes::Bytes;
use guild_core::payload::Payload;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::condition::{equal, integer, type_name, wrong_type};
use crate::transaction::{TransactionError, text};

/// An operation on whatever value a key has at the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Merge {
    /// Adds to an integer of 64 bits; an absent key counts as 0.
    Add {
        /// What is added; negative to subtract.
        amount: i64,
    },
    /// Adds as `Add` does if the sum is at least `floor`, and is refused otherwise (O'Neil, "The
    /// Escrow Transactional Method", 1986).
    AddAtLeast {
        /// What is added; negative to subtract.
        amount: i64,
        /// What must be left.
        floor: i64,
    },
    /// Keeps the greater of two numbers or of two strings.
    Max {
        /// The number or the string.
        value: Payload,
    },
    /// Keeps the smaller of two numbers or of two strings.
    Min {
        /// The number or the string.
        value: Payload,
    },
    /// Adds an element to a set: a list without repetition, in the order in which elements came.
    SetAdd {
        /// The element.
        element: Payload,
    },
    /// Removes an element from a set.
    SetRemove {
        /// The element.
        element: Payload,
    },
    /// Appends to a list and drops the oldest elements beyond a length.
    Append {
        /// The element.
        element: Payload,
        /// How many elements stay.
        len_max: usize,
    },
    /// Puts a value where there is none.
    PutIfAbsent {
        /// The value.
        value: Payload,
    },
    /// Changes members of an object, removes those that are null (RFC 7386).
    Patch {
        /// The patch; one that is no object replaces the value.
        patch: Payload,
    },
}

impl Merge {
    /// Returns what is done, as words before "memory key".
    fn operation(&self) -> &'static str {
        match self {
            Self::Add { .. } | Self::AddAtLeast { .. } => "add to",
            Self::Max { .. } => "raise",
            Self::Min { .. } => "lower",
            Self::SetAdd { .. } => "add an element to",
            Self::SetRemove { .. } => "remove an element from",
            Self::Append { .. } => "append to",
            Self::PutIfAbsent { .. } => "put",
            Self::Patch { .. } => "patch",
        }
    }

    fn operand(&self) -> Option<&Payload> {
        match self {
            Self::Add { .. } | Self::AddAtLeast { .. } => None,
            Self::Max { value: operand }
            | Self::Min { value: operand }
            | Self::SetAdd { element: operand }
            | Self::SetRemove { element: operand }
            | Self::Append { element: operand, .. }
            | Self::PutIfAbsent { value: operand }
            | Self::Patch { patch: operand } => Some(operand),
        }
    }

    /// Returns the bytes that the operation carries.
    pub(crate) fn size_bytes(&self) -> usize {
        self.operand().map_or(0, Payload::size_bytes)
    }

    /// Returns whether the operation may be refused because of what is there.
    pub(crate) fn can_be_refused(&self) -> bool {
        matches!(self, Self::AddAtLeast { .. })
    }

    /// Checks what the operation was given.
    ///
    /// # Errors
    /// `WrongOperand`.
    pub(crate) fn check(&self, key: &[u8]) -> Result<(), TransactionError> {
        let Some(operand) = self.operand() else {
            return Ok(());
        };
        let needs = match (self, serde_json::from_str::<Value>(operand.as_str())) {
            (_, Err(_)) => "one JSON text, nested at most 127 deep,",
            (Self::Max { .. } | Self::Min { .. }, Ok(Value::Number(_) | Value::String(_))) => {
                return Ok(());
            }
            (Self::Max { .. } | Self::Min { .. }, Ok(_)) => "a number or a string",
            (_, Ok(_)) => return Ok(()),
        };
        Err(TransactionError::WrongOperand {
            key: text(key),
            operation: self.operation(),
            needs,
            found: type_name(operand.as_json()),
        })
    }

    /// Returns the value after the operation; none: the key stays absent.
    ///
    /// # Errors
    /// `WrongType`, `Overflow` and `BelowFloor`.
    pub(crate) fn apply(
        &self,
        key: &[u8],
        base: Option<&Bytes>,
    ) -> Result<Option<Bytes>, TransactionError> {
        match self {
            Self::Add { amount } => sum(key, base, i128::from(*amount)).map(Some),
            Self::AddAtLeast { amount, floor } => {
                add_at_least(key, base, *amount, *floor).map(Some)
            }
            Self::Max { value } => self.keep(key, base, value, Ordering::Less),
            Self::Min { value } => self.keep(key, base, value, Ordering::Greater),
            Self::PutIfAbsent { value } => {
                Ok(Some(base.cloned().unwrap_or_else(|| value.as_json().to_vec().into())))
            }
            Self::SetAdd { element } => {
                let mut set = self.list(key, base)?;
                if set.iter().any(|other| equal(other.get().as_bytes(), element.as_json())) {
                    return Ok(base.cloned());
                }
                set.push(self.raw(key, element)?);
                Ok(Some(joined(&set)))
            }
            Self::SetRemove { element } => {
                let mut set = self.list(key, base)?;
                let before = set.len();
                set.retain(|other| !equal(other.get().as_bytes(), element.as_json()));
                Ok(if set.len() == before { base.cloned() } else { Some(joined(&set)) })
            }
            Self::Append { element, len_max } => {
                let mut list = self.list(key, base)?;
                list.push(self.raw(key, element)?);
                let excess = list.len().saturating_sub(*len_max);
                Ok(Some(joined(&list[excess..])))
            }
            Self::Patch { patch } => {
                let base =
                    match base {
                        None => None,
                        Some(base) => Some(serde_json::from_slice(base).map_err(|_| {
                            wrong_type(key, self.operation(), "a value in JSON", base)
                        })?),
                    };
                Ok(Some(patch::patched(base, self.raw(key, patch)?).into()))
            }
        }
    }

    /// Keeps the base unless it compares to the value as `gives_way` says.
    fn keep(
        &self,
        key: &[u8],
        base: Option<&Bytes>,
        value: &Payload,
        gives_way: Ordering,
    ) -> Result<Option<Bytes>, TransactionError> {
        let new = || Some(value.as_json().to_vec().into());
        let Some(base) = base else {
            return Ok(new());
        };
        let parsed = serde_json::from_slice::<Value>(value.as_json());
        let order = match (serde_json::from_slice::<Value>(base), parsed) {
            (Ok(Value::Number(base)), Ok(Value::Number(value))) => Some(compare(&base, &value)),
            (Ok(Value::String(base)), Ok(Value::String(value))) => Some(base.cmp(&value)),
            (_, Ok(Value::String(_))) => {
                return Err(wrong_type(key, self.operation(), "a string", base));
            }
            _ => None,
        };
        match order {
            Some(order) if order == gives_way => Ok(new()),
            Some(_) => Ok(Some(base.clone())),
            None => Err(wrong_type(key, self.operation(), "a number", base)),
        }
    }

    /// Reads a list whose elements stay as they were written.
    fn list<'a>(
        &self,
        key: &[u8],
        base: Option<&'a Bytes>,
    ) -> Result<Vec<&'a RawValue>, TransactionError> {
        base.map_or(Ok(Vec::new()), |base| {
            serde_json::from_slice(base)
                .map_err(|_| wrong_type(key, self.operation(), "a list", base))
        })
    }

    fn raw<'a>(&self, key: &[u8], operand: &'a Payload) -> Result<&'a RawValue, TransactionError> {
        serde_json::from_str(operand.as_str())
            .map_err(|error| TransactionError::encode(&text(key), &error))
    }
}

/// Returns the integer `base + amount` as JSON.
pub(crate) fn sum(
    key: &[u8],
    base: Option<&Bytes>,
    amount: i128,
) -> Result<Bytes, TransactionError> {
    let total = i128::from(integer(key, "add to", base)?).checked_add(amount);
    let total = total.and_then(|total| i64::try_from(total).ok());
    let total = total.ok_or_else(|| TransactionError::Overflow { key: text(key) })?;
    Ok(total.to_string().into())
}

fn add_at_least(
    key: &[u8],
    base: Option<&Bytes>,
    amount: i64,
    floor: i64,
) -> Result<Bytes, TransactionError> {
    let value = integer(key, "add to", base)?;
    if i128::from(value) + i128::from(amount) < i128::from(floor) {
        return Err(TransactionError::BelowFloor { key: text(key), value, amount, floor });
    }
    sum(key, base, i128::from(amount))
}

/// Compares integers exactly, and with a fraction as far as 64-bit floats can tell.
fn compare(one: &serde_json::Number, other: &serde_json::Number) -> Ordering {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let float = |number: &serde_json::Number| number.as_f64().unwrap_or(f64::NAN);
            float(one).total_cmp(&float(other))
        }
    }
}

fn joined(list: &[&RawValue]) -> Bytes {
    let texts: Vec<&str> = list.iter().map(|element| element.get()).collect();
    format!("[{}]", texts.join(",")).into()
}
