//! Applies a JSON merge patch (RFC 7386) to the text of a value.
//!
//! Works on texts, not on numbers and strings: what the patch does not name stays as it was written,
//! digit by digit, and so does what it puts in.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

type Members = BTreeMap<String, Box<RawValue>>;

/// Returns the text of the target after the patch.
pub(super) fn patched(target: Option<&RawValue>, patch: &RawValue) -> String {
    let Some(changes) = members(patch) else {
        return patch.get().to_owned();
    };
    let mut members = target.and_then(members).unwrap_or_default();
    for (name, change) in changes {
        if change.get() == "null" {
            members.remove(&name);
            continue;
        }
        let text = patched(members.get(&name).map(|member| &**member), &change);
        let member = RawValue::from_string(text).expect("a patched text is one JSON text");
        members.insert(name, member);
    }
    serde_json::to_string(&members).expect("members of an object are JSON")
}

/// Returns the members of an object; none: it is no object.
fn members(value: &RawValue) -> Option<Members> {
    let is_object = value.get().starts_with('{');
    is_object.then(|| serde_json::from_str(value.get()).expect("a raw object is an object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(target: &str, patch: &str) -> String {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        patched(Some(&raw(target)), &raw(patch))
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, change, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(patch(target, change), expected, "{target} {change}");
        }
    }

    #[test]
    fn what_is_not_named_stays_digit_by_digit() {
        let large = r#"{"n":123456789012345678901234567890,"z":1.50}"#;
        assert_eq!(
            patch(large, r#"{"a":98765432109876543210}"#),
            r#"{"a":98765432109876543210,"n":123456789012345678901234567890,"z":1.50}"#,
        );
    }
}
