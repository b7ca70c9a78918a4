//! Says why a transaction cannot read or write what it was asked to.

use crate::condition::Condition;
use crate::namespace::Denied;

/// Why a transaction cannot read or write what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The value of the key has another type.
    #[error("memory key `{key}` holds a value of another type: {message}")]
    Decode {
        /// The key.
        key: String,
        /// What the decoder said.
        message: String,
    },
    /// The value has no JSON form.
    #[error("value for memory key `{key}` has no JSON form: {message}")]
    Encode {
        /// The key.
        key: String,
        /// What the encoder said.
        message: String,
    },
    /// A merge operation met a value of another type.
    #[error("cannot {operation} memory key `{key}`: it holds {found}; {needs} is needed")]
    WrongType {
        /// The key.
        key: String,
        /// What was to be done with it, as words before "memory key".
        operation: &'static str,
        /// What the operation works on.
        needs: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A merge operation was given something that it cannot work with.
    #[error("cannot {operation} memory key `{key}`: it was given {found}; {needs} is needed")]
    WrongOperand {
        /// The key.
        key: String,
        /// What was to be done with it, as words before "memory key".
        operation: &'static str,
        /// What the operation works with.
        needs: &'static str,
        /// What it was given.
        found: &'static str,
    },
    /// The sum does not fit.
    #[error("cannot add to memory key `{key}`: the sum does not fit 64 bits")]
    Overflow {
        /// The key.
        key: String,
    },
    /// The sum would be too small, so nothing is added.
    #[error("memory key `{key}` holds {value}: adding {amount} would leave less than {floor}")]
    BelowFloor {
        /// The key.
        key: String,
        /// What the transaction sees there; an absent key counts as 0. It is for messages: whoever
        /// decides by the amount has to `get` it, or the commit does not watch over it.
        value: i64,
        /// What was to be added.
        amount: i64,
        /// What must be left.
        floor: i64,
    },
    /// A condition does not hold.
    #[error("memory key `{key}` {found}, but it must {condition}")]
    Unmet {
        /// The key.
        key: String,
        /// What was asked for.
        condition: Condition,
        /// What the transaction sees there, as words after the key; long values are cut.
        found: String,
    },
    /// The role of the agent may not read there.
    #[error("{0}")]
    Denied(Box<Denied>),
    /// A savepoint is gone.
    #[error("the savepoint is gone: the transaction was taken back to an earlier one")]
    NoSavepoint,
}

impl TransactionError {
    pub(crate) fn encode(key: &str, error: &serde_json::Error) -> Self {
        Self::Encode { key: key.to_owned(), message: error.to_string() }
    }

    /// Returns whether the same work may succeed when others have changed the memory: a condition
    /// does not hold, or there is too little of something.
    pub fn depends_on_others(&self) -> bool {
        matches!(self, Self::BelowFloor { .. } | Self::Unmet { .. })
    }
}
