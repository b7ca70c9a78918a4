//! Carries the input or output of a task: one JSON text.
//!
//! JSON because inputs are composed from the outputs of earlier tasks without knowing their
//! types, and because a person reads it in `guild memory` and in the event stream. A short text lies in the payload
//! itself: most inputs and outputs are numbers and small objects, and an allocation for each costs more than they do.

use std::cell::Cell;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use smol_str::SmolStr;

/// One JSON text; cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(SmolStr);

impl Payload {
    /// The JSON text `null`: what a task without input gets.
    pub const NULL: Self = Self(SmolStr::new_static("null"));

    /// Serialises a value.
    ///
    /// # Errors
    /// The value has no JSON form (a map with keys that are no strings, say).
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        let kept = with_json(value, |text| str::from_utf8(text).map(Self::from_json))?;
        kept.map_err(serde_json::Error::custom)
    }

    /// Deserialises the value.
    ///
    /// # Errors
    /// The text is not of this type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// Wraps what is known to be one JSON text.
    pub fn from_json(text: impl AsRef<str>) -> Self {
        Self(SmolStr::new(text))
    }

    /// Returns the bytes of the JSON text.
    pub fn as_json(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Returns the JSON text.
    pub fn as_str(&self) -> &str {
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

/// A thread keeps no more room than this for texts that are being made.
const ROOM_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Room for the text of a value.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Serialises a value and hands its JSON text on. Whoever keeps it takes one piece of memory of the right
/// size, instead of one that grows until it is large enough.
///
/// # Errors
/// The value has no JSON form.
pub fn with_json<T: Serialize + ?Sized, R>(
    value: &T,
    keep: impl FnOnce(&[u8]) -> R,
) -> Result<R, serde_json::Error> {
    let mut room = ROOM.take();
    room.clear();
    let kept = serde_json::to_writer(&mut room, value).map(|()| keep(&room));
    if room.capacity() <= ROOM_BYTES_MAX {
        ROOM.set(room);
    }
    kept
}
