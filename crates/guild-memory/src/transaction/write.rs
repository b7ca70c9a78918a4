//! Composes all that a transaction does to one key into what the commit has to do.
//!
//! After a put or a delete the value is known, and whatever follows is worked out at once. Before
//! that only the commit knows the value: the steps are kept in order and run there.

use bytes::Bytes;

use super::TransactionError;
use crate::condition::Condition;
use crate::merge::{Merge, sum};

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Bytes),
    Delete,
    /// To be run, in order, on whatever is there at the commit.
    Steps(Vec<Step>),
}

/// One thing that a transaction does to a key whose value it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Only after a step that may be refused; otherwise a put makes the steps before it pointless.
    Put(Bytes),
    /// As `Put`.
    Delete,
    /// Several additions as one; wide, so that only the result has to fit.
    Add(i128),
    Merge(Merge),
    Check(Condition),
}

impl Step {
    /// Returns the value after the step; none: the key is absent.
    pub(super) fn run(
        &self,
        key: &[u8],
        value: Option<Bytes>,
    ) -> Result<Option<Bytes>, TransactionError> {
        match self {
            Self::Put(value) => Ok(Some(value.clone())),
            Self::Delete => Ok(None),
            Self::Add(amount) => sum(key, value.as_ref(), *amount).map(Some),
            Self::Merge(merge) => merge.apply(key, value.as_ref()),
            Self::Check(condition) => match condition.holds(key, value.as_ref())? {
                true => Ok(value),
                false => Err(condition.unmet(key, value.as_ref())),
            },
        }
    }

    /// Returns whether what others have written may make the commit refuse the step.
    pub(super) fn can_be_refused(&self) -> bool {
        match self {
            Self::Merge(merge) => merge.can_be_refused(),
            Self::Check(_) => true,
            Self::Put(_) | Self::Delete | Self::Add(_) => false,
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Merge(merge) => merge.size_bytes(),
            Self::Delete | Self::Add(_) | Self::Check(_) => 0,
        }
    }
}

/// Runs steps in order.
pub(crate) fn run(
    key: &[u8],
    base: Option<&Bytes>,
    steps: &[Step],
) -> Result<Option<Bytes>, TransactionError> {
    steps.iter().try_fold(base.cloned(), |value, step| step.run(key, value))
}

impl Write {
    /// Returns the value of the key as the write would leave it.
    pub(super) fn view(
        &self,
        key: &[u8],
        base: Option<&Bytes>,
    ) -> Result<Option<Bytes>, TransactionError> {
        match self {
            Self::Put(value) => Ok(Some(value.clone())),
            Self::Delete => Ok(None),
            Self::Steps(steps) => run(key, base, steps),
        }
    }

    /// Returns whether what others have written may make the commit refuse the write.
    pub(super) fn can_be_refused(&self) -> bool {
        match self {
            Self::Put(_) | Self::Delete => false,
            Self::Steps(steps) => steps.iter().any(Step::can_be_refused),
        }
    }

    /// Returns whether the write leaves the same value whatever is there.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Delete)
    }

    /// Returns the write that does nothing but this step.
    pub(super) fn first(step: Step) -> Self {
        match step {
            Step::Put(value) => Self::Put(value),
            Step::Delete => Self::Delete,
            step => Self::Steps(vec![step]),
        }
    }

    /// Adds a step.
    ///
    /// # Errors
    /// The value is known and the step cannot be done to it; the write is unchanged then.
    pub(super) fn then(&mut self, key: &[u8], step: Step) -> Result<(), TransactionError> {
        let known = match (&mut *self, &step) {
            (Self::Steps(steps), Step::Put(_) | Step::Delete)
                if steps.iter().any(Step::can_be_refused) =>
            {
                steps.push(step);
                return Ok(());
            }
            (_, Step::Put(_) | Step::Delete) => {
                *self = Self::first(step);
                return Ok(());
            }
            (Self::Steps(steps), _) => {
                push(steps, step);
                return Ok(());
            }
            (Self::Put(value), _) => Some(value.clone()),
            (Self::Delete, _) => None,
        };
        *self = step.run(key, known)?.map_or(Self::Delete, Self::Put);
        Ok(())
    }

    /// Returns whether the write takes the place of whatever is there.
    pub(crate) fn overwrites(&self) -> bool {
        match self {
            Self::Put(_) | Self::Delete => true,
            Self::Steps(steps) => {
                steps.iter().any(|step| matches!(step, Step::Put(_) | Step::Delete))
            }
        }
    }

    /// Returns how many operations the write counts for.
    pub(crate) fn operations(&self) -> usize {
        match self {
            Self::Put(_) | Self::Delete => 1,
            Self::Steps(steps) => steps.len(),
        }
    }

    /// Returns the bytes that it carries to the commit.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Delete => 0,
            Self::Steps(steps) => steps.iter().map(Step::size_bytes).sum(),
        }
    }
}

/// Appends a step, or adds it to the one before.
fn push(steps: &mut Vec<Step>, step: Step) {
    match (steps.last_mut(), &step) {
        (Some(Step::Add(before)), Step::Add(amount)) => *before = before.saturating_add(*amount),
        _ => steps.push(step),
    }
}
