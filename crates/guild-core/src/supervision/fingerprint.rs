//! Tells which deaths have one cause.
//!
//! Where the place in the source is known it decides; where it is not, the message does, without its
//! numbers: `no answer from 10.0.0.7` and `no answer from 10.0.0.8` are one cause.

use crate::digest::Digest;
use crate::event::Cause;

/// Returns the fingerprint of a death: the XXH64 hash over what makes it the same.
pub fn fingerprint(cause: Cause, location: Option<&str>, message: &str) -> u64 {
    let mut hash = Digest::default();
    hash.update(&[cause as u8]);
    match location {
        Some(location) => hash.update(location.as_bytes()),
        None => message
            .split(|letter: char| letter.is_ascii_digit())
            .for_each(|part| hash.update(part.as_bytes())),
    }
    hash.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_message_make_no_other_cause_but_another_place_does() {
        let of = |message, location| fingerprint(Cause::Panic, location, message);

        assert_eq!(of("injected crash 7", None), of("injected crash 12", None));
        assert_ne!(of("no bread", None), of("no butter", None));
        assert_eq!(of("no bread", Some("a.rs:1:1")), of("no butter", Some("a.rs:1:1")));
        assert_ne!(of("no bread", Some("a.rs:1:1")), of("no bread", Some("a.rs:2:1")));
        assert_ne!(fingerprint(Cause::Error, None, "x"), fingerprint(Cause::Panic, None, "x"));
    }
}
