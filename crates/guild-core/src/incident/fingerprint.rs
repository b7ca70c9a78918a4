//! Tells which incidents are the same mistake.
//!
//! Two incidents belong together when kind, reason, role and place agree. Where the place in the
//! source is not known the message stands for it, without its numbers: `no answer from 10.0.0.7`
//! and `no answer from 10.0.0.8` are one mistake.

use super::Report;
use crate::digest::Digest;

/// Characters of a message that count.
const PATTERN_CHARS_MAX: usize = 200;

/// Returns the fingerprint of a failure: the XXH64 hash over what makes it the same.
pub(super) fn fingerprint(report: &Report) -> u64 {
    let role = report.agent.map(|(agent, _)| agent.role.0.to_le_bytes());
    let place = match &report.location {
        Some(location) => location.to_string(),
        None => pattern(report.message.lines().next().unwrap_or_default()),
    };
    let parts: [&[u8]; 4] = [
        report.kind.name().as_bytes(),
        report.reason.name().as_bytes(),
        role.as_ref().map_or(&[], |role| role),
        place.as_bytes(),
    ];
    let mut hash = Digest::default();
    for part in parts {
        hash.update(part);
        // A byte that is in no text keeps the parts apart.
        hash.update(&[0xff]);
    }
    hash.value()
}

/// Returns a text with each run of digits replaced by `*`, cut to 200 characters: what `count[17]`
/// and `count[18]` have in common.
pub fn pattern(text: &str) -> String {
    let mut pattern = String::new();
    let mut in_digits = false;
    for c in text.chars().take(PATTERN_CHARS_MAX) {
        let is_digit = c.is_ascii_digit();
        if !is_digit {
            pattern.push(c);
        } else if !in_digits {
            pattern.push('*');
        }
        in_digits = is_digit;
    }
    pattern
}
