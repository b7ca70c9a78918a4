//! Finds the filters and tests that a template calls.
//!
//! The engine looks them up when it meets them, so a misspelt one would fail its task in the middle
//! of a run. The engine keeps its syntax tree to itself, but a filter is the name behind a `|` and a
//! test the name behind an `is` wherever they stand in `{{ }}` or `{% %}`, so tokens are enough.

use std::fmt;

/// What a template calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    Filter,
    Test,
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Test => "test",
        })
    }
}

/// Returns the filters and tests of a template that compiles.
pub(crate) fn called_names(source: &str) -> Vec<(Called, &str)> {
    let mut called = Vec::new();
    let mut rest = source;
    while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|mark| rest.find(mark)).min() {
        let (mark, inside) = rest[at..].split_at(2);
        if mark == "{#" {
            rest = behind(inside, "#}");
            continue;
        }
        let mut tag = Tag { text: inside, at: 0, is_block: mark == "{%" };
        let first = tag.read(&mut called);
        rest = inside.get(tag.at..).unwrap_or_default();
        if tag.is_block && first == "raw" {
            rest = behind(rest, "endraw");
        }
    }
    called
}

fn behind<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or("", |(_, rest)| rest)
}

/// What the token before a name makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Pipe,
    Is,
    Dot,
}

/// `{{ }}` or `{% %}`, from behind its opening mark on.
struct Tag<'a> {
    text: &'a str,
    at: usize,
    is_block: bool,
}

impl<'a> Tag<'a> {
    /// Reads to the end of the tag; returns its first name.
    fn read(&mut self, called: &mut Vec<(Called, &'a str)>) -> &'a str {
        let bytes = self.text.as_bytes();
        let (mut depth, mut before, mut first) = (0_usize, Before::Nothing, "");
        while let Some(byte) = bytes.get(self.at).copied() {
            if depth == 0 && matches!(byte, b'}' | b'%') && bytes.get(self.at + 1) == Some(&b'}') {
                self.at += 2;
                break;
            }
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                let name = self.name();
                before = match (before, name) {
                    (Before::Pipe, _) => push(called, Called::Filter, name),
                    (Before::Is, "not") | (Before::Nothing, "is") => Before::Is,
                    (Before::Is, _) => push(called, Called::Test, name),
                    (Before::Nothing, "filter") if self.is_block && first.is_empty() => {
                        Before::Pipe
                    }
                    (Before::Nothing | Before::Dot, _) => Before::Nothing,
                };
                first = if first.is_empty() { name } else { first };
                continue;
            }
            match byte {
                b'"' | b'\'' => self.skip_text(byte),
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            before = match byte {
                b'|' => Before::Pipe,
                b'.' => Before::Dot,
                byte if byte.is_ascii_whitespace() => before,
                _ => Before::Nothing,
            };
            self.at += 1;
        }
        first
    }

    fn name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        self.at += name.len();
        name
    }

    /// Moves on to the quote that ends a text.
    fn skip_text(&mut self, quote: u8) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while bytes.get(self.at).is_some_and(|byte| *byte != quote) {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
    }
}

fn push<'a>(called: &mut Vec<(Called, &'a str)>, what: Called, name: &'a str) -> Before {
    called.push((what, name));
    Before::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        called_names(source).into_iter().map(|(what, name)| format!("{what} {name}")).collect()
    }

    #[test]
    fn filters_and_tests_are_found_wherever_they_are_called() {
        assert_eq!(names("{{ x | a }} {{ y|b(1) | c }}"), ["filter a", "filter b", "filter c"]);
        assert_eq!(names("{% if x is a and y is not b %}{% endif %}"), ["test a", "test b"]);
        assert_eq!(names("{%- filter a -%}x{% endfilter %}"), ["filter a"]);
        assert_eq!(names("{% for x in y | a %}{{ x }}{% endfor %}"), ["filter a"]);
        assert_eq!(names("{{ {'k': {'l': x | a}} | b }}"), ["filter a", "filter b"]);
    }

    #[test]
    fn what_only_looks_like_a_call_is_none() {
        assert_eq!(names("a | b is c"), [""; 0]);
        assert_eq!(names("{{ '| a' ~ \"it\\\" is b\" }} | c"), [""; 0]);
        assert_eq!(names("{# x | a #}{% raw %}{{ x | b }}{% endraw %}{{ x | c }}"), ["filter c"]);
        assert_eq!(names("{{ x.is.y }}{{ x.filter }}{{ grün }}"), [""; 0]);
    }
}
