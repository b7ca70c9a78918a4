//! The operations of a transaction that need no read: merges and conditions.
//!
//! An operation that may be refused is tried on the snapshot as soon as it is stated, so that the
//! caller can decide what to do instead; that it was refused is then remembered as something the
//! caller has seen. What was not refused is looked at again by the commit, without being a read.

use guild_core::payload::Payload;
use serde::Serialize;

use super::{Step, Transaction, TransactionError, Tried, Write, run};
use crate::condition::Condition;
use crate::merge::Merge;
use crate::snapshot::Key;

impl Transaction {
    /// Changes a key by an operation on whatever is there at the commit. It reads nothing, so any
    /// number of transactions may do this to one key without conflict.
    ///
    /// # Errors
    /// `WrongOperand`; as [`add_at_least`](Self::add_at_least) where the operation may be refused;
    /// `WrongType` and `Overflow` when this transaction itself has put a value that does not fit.
    /// It is unchanged then. For a value that others have put the commit answers.
    pub fn merge(&mut self, key: impl AsRef<str>, merge: Merge) -> Result<(), TransactionError> {
        let key = key.as_ref();
        merge.check(key.as_bytes())?;
        match merge {
            Merge::Add { amount } => self.step(key, Step::Add(i128::from(amount))),
            merge if merge.can_be_refused() => self.try_step(key, Step::Merge(merge)),
            merge => self.step(key, Step::Merge(merge)),
        }
    }

    /// Adds to the integer of a key; an absent key counts as 0.
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn add(&mut self, key: impl AsRef<str>, amount: i64) -> Result<(), TransactionError> {
        self.merge(key, Merge::Add { amount })
    }

    /// Adds to the integer of a key if the sum is at least `floor`; an absent key counts as 0.
    ///
    /// This is how many tasks take from one account or stock without waiting for each other: it is
    /// no read, and commits conflict neither with other additions nor with each other. When too
    /// little is there, the caller is told at once; what it commits instead (a refusal of the order,
    /// say) holds only if there is still too little then. When too little is left at the commit,
    /// because others were faster, the work is run again and told so.
    ///
    /// # Errors
    /// `BelowFloor`: too little is there. Also as [`merge`](Self::merge).
    ///
    /// # Examples
    /// ```
    /// use guild_memory::{Snapshots, Transaction, TransactionError};
    ///
    /// let mut transaction = Transaction::begin(Snapshots::default());
    /// transaction.add("stock", 3)?;
    /// transaction.add_at_least("stock", -2, 0)?;
    /// let refused = transaction.add_at_least("stock", -2, 0);
    /// assert!(matches!(refused, Err(TransactionError::BelowFloor { value: 1, .. })));
    /// # Ok::<(), TransactionError>(())
    /// ```
    pub fn add_at_least(
        &mut self,
        key: impl AsRef<str>,
        amount: i64,
        floor: i64,
    ) -> Result<(), TransactionError> {
        self.merge(key, Merge::AddAtLeast { amount, floor })
    }

    /// Keeps the greater of what is there and a value, both numbers or both strings.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn max<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        value: &T,
    ) -> Result<(), TransactionError> {
        let value = operand(&key, value)?;
        self.merge(key, Merge::Max { value })
    }

    /// Keeps the smaller of what is there and a value, both numbers or both strings.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn min<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        value: &T,
    ) -> Result<(), TransactionError> {
        let value = operand(&key, value)?;
        self.merge(key, Merge::Min { value })
    }

    /// Adds an element to a set: a list without repetition.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn set_add<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        element: &T,
    ) -> Result<(), TransactionError> {
        let element = operand(&key, element)?;
        self.merge(key, Merge::SetAdd { element })
    }

    /// Removes an element from a set; no error when it is not there.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn set_remove<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        element: &T,
    ) -> Result<(), TransactionError> {
        let element = operand(&key, element)?;
        self.merge(key, Merge::SetRemove { element })
    }

    /// Appends to a list; beyond `len_max` elements the oldest are dropped.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn append<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        element: &T,
        len_max: usize,
    ) -> Result<(), TransactionError> {
        let element = operand(&key, element)?;
        self.merge(key, Merge::Append { element, len_max })
    }

    /// Puts a value unless there is one.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn put_if_absent<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        value: &T,
    ) -> Result<(), TransactionError> {
        let value = operand(&key, value)?;
        self.merge(key, Merge::PutIfAbsent { value })
    }

    /// Changes members of an object as a JSON merge patch does (RFC 7386): members that are null in
    /// the patch are removed, objects are patched member by member, anything else is replaced.
    ///
    /// # Errors
    /// `Encode`; as [`merge`](Self::merge).
    pub fn patch<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<str>,
        patch: &T,
    ) -> Result<(), TransactionError> {
        let patch = operand(&key, patch)?;
        self.merge(key, Merge::Patch { patch })
    }

    /// Requires a condition of a key, as this transaction leaves it so far, to hold at the commit.
    /// It is no read: others may change the key as long as the condition holds.
    ///
    /// # Errors
    /// `Unmet` when it does not hold now; what the caller commits instead holds only if it still
    /// does not then. `WrongType` when an integer is asked for and the value is none.
    pub fn check(
        &mut self,
        key: impl AsRef<str>,
        condition: Condition,
    ) -> Result<(), TransactionError> {
        let key = key.as_ref();
        self.check_key(key.as_bytes())?;
        self.try_step(key, Step::Check(condition))
    }

    /// Adds a step that may be refused after it was tried on the snapshot.
    fn try_step(&mut self, key: &str, step: Step) -> Result<(), TransactionError> {
        let snapshot = self.snapshot().clone();
        let bytes = key.as_bytes();
        let before = match self.parts.writes.get(bytes) {
            Some(Write::Put(_) | Write::Delete) => return self.step(key, step),
            Some(Write::Steps(steps)) => &**steps,
            None if self.parts.cleared.contains(bytes) => return self.step(key, step),
            None => &[],
        };
        let entry = snapshot.get(bytes);
        let base = entry.as_ref().map(|entry| &entry.value);
        match run(bytes, base, before).and_then(|value| step.run(bytes, value)) {
            Ok(_) => self.step(key, step),
            Err(error) if error.depends_on_others() => {
                let steps = before.iter().cloned().chain([step]).collect();
                self.parts.tried.push(Tried { key: Key::from(bytes), steps, refused: true });
                Err(error)
            }
            // What is there is of another type, and now the caller knows.
            Err(error) => {
                self.track(&Key::from(bytes));
                Err(error)
            }
        }
    }
}

fn operand<T: Serialize + ?Sized>(
    key: &impl AsRef<str>,
    value: &T,
) -> Result<Payload, TransactionError> {
    Payload::encode(value).map_err(|error| TransactionError::encode(key.as_ref(), &error))
}
