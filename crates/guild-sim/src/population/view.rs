//! Shows a population between two times: what is measured is computed from this.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use guild_core::time::Timestamp;
use guild_memory::{Snapshot, TransactionError};
use serde::de::DeserializeOwned;

use super::{Individual, IndividualId, Member, PopulationError};

/// A population at one time, when nobody steps.
#[derive(Debug)]
pub struct View<'a, I> {
    pub(super) tick: u64,
    pub(super) at: Timestamp,
    pub(super) memory: Snapshot,
    pub(super) members: &'a BTreeMap<IndividualId, Member>,
    pub(super) individuals: OnceCell<BTreeMap<IndividualId, I>>,
}

impl<'a, I: Individual> View<'a, I> {
    pub(super) fn new(
        tick: u64,
        at: Timestamp,
        memory: Snapshot,
        members: &'a BTreeMap<IndividualId, Member>,
    ) -> Self {
        Self { tick, at, memory, members, individuals: OnceCell::new() }
    }

    /// Returns how many times somebody has stepped: 0 before the first time.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// Returns the time of the model.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.at.0)
    }

    /// Returns how many individuals there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Returns all individuals, by their ids.
    ///
    /// # Errors
    /// One of them is no longer what it was when it was written down: `State`.
    pub fn individuals(&self) -> Result<&BTreeMap<IndividualId, I>, PopulationError> {
        if let Some(individuals) = self.individuals.get() {
            return Ok(individuals);
        }
        let decoded = self.members.iter().map(|(id, member)| Ok((*id, member.decode(*id)?)));
        let decoded = decoded.collect::<Result<BTreeMap<_, _>, PopulationError>>()?;
        Ok(self.individuals.get_or_init(|| decoded))
    }

    /// Returns the value of a key of the shared memory; none when it is absent.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn shared<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, PopulationError> {
        Ok(self.memory.value(key)?)
    }

    /// Returns the number at a key of the shared memory; an absent key counts as 0.
    ///
    /// # Errors
    /// The value is no number.
    pub fn number(&self, key: &str) -> Result<f64, PopulationError> {
        Ok(self.shared(key)?.unwrap_or(0.0))
    }

    /// Returns all keys of the shared memory that begin with a prefix, ascending, with their values.
    ///
    /// # Errors
    /// A value is of another type.
    pub fn values<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, PopulationError> {
        let mut found = Vec::new();
        for entry in self.memory.scan(prefix.as_bytes()) {
            let key = String::from_utf8_lossy(entry.key()).into_owned();
            match serde_json::from_slice(&entry.value) {
                Ok(value) => found.push((key, value)),
                Err(error) => {
                    let message = error.to_string();
                    return Err(TransactionError::Decode { key, message }.into());
                }
            }
        }
        Ok(found)
    }

    /// Returns the sum of the numbers at all keys that begin with a prefix.
    ///
    /// # Errors
    /// A value is no number.
    pub fn sum(&self, prefix: &str) -> Result<f64, PopulationError> {
        Ok(self.values::<f64>(prefix)?.iter().map(|(_, number)| number).sum())
    }
}
