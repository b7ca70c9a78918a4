//! Carries the input or output of a task: one JSON text.
//!
//! JSON because inputs are composed from the outputs of earlier tasks without knowing their
//! types, and because a person reads it in `guild memory` and in the event stream.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// One JSON text; cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(Bytes);

impl Payload {
    /// The JSON text `null`: what a task without input gets.
    pub const NULL: Self = Self(Bytes::from_static(b"null"));

    /// Serialises a value.
    ///
    /// # Errors
    /// The value has no JSON form (a map with keys that are no strings, say).
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_vec(value)?;
        Ok(if text == b"null" { Self::NULL } else { Self(text.into()) })
    }

    /// Deserialises the value.
    ///
    /// # Errors
    /// The text is not of this type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// Wraps bytes that are known to be one JSON text.
    pub fn from_json(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// Returns the JSON text.
    pub fn as_json(&self) -> &[u8] {
        &self.0
    }

    /// Returns the length of the text in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::NULL
    }
}
