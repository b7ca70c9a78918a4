//! Makes a JSON value of what a task wrote, and file names of what a template rendered.
//!
//! File names are bytes, JSON texts are Unicode: a name travels as text in which `%`, and bytes
//! that are not UTF-8, are percent-encoded. The way back restores every name exactly.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// How the output of a task is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Parse {
    /// One text, without the line end at its end.
    #[default]
    Text,
    /// A list of lines.
    Lines,
    /// One JSON value.
    Json,
    /// A list of file names that are ended by NUL bytes.
    Paths,
}

impl Parse {
    /// All of them, with their names in a flow file.
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("text", Self::Text),
        ("lines", Self::Lines),
        ("json", Self::Json),
        ("paths", Self::Paths),
    ];

    /// Reads an output.
    pub(crate) fn read(self, output: Vec<u8>) -> Result<Value, String> {
        match self {
            Self::Text => Ok(Value::String(strip_line_end(utf8(output)?))),
            Self::Lines => Ok(utf8(output)?.lines().map(Value::from).collect()),
            Self::Json => serde_json::from_slice(&output)
                .map_err(|error| format!("the output is not one JSON value: {error}")),
            Self::Paths => Ok(paths(&output)),
        }
    }
}

/// Returns the bytes that a percent-encoded path stands for.
pub(crate) fn decode_path(text: &str) -> OsString {
    OsString::from_vec(percent_decode_str(text).collect())
}

fn encode_path(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    text
}

fn paths(output: &[u8]) -> Value {
    let output = output.strip_suffix(b"\0").unwrap_or(output);
    if output.is_empty() {
        return Value::Array(Vec::new());
    }
    output.split(|byte| *byte == 0).map(|path| Value::from(encode_path(path))).collect()
}

fn utf8(output: Vec<u8>) -> Result<String, String> {
    String::from_utf8(output).map_err(|error| {
        format!(
            "the output is not UTF-8 (byte {}); let the command write UTF-8, or use \
             parse = \"paths\" for file names",
            error.utf8_error().valid_up_to() + 1
        )
    })
}

fn strip_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_file_name_survives_the_way_there_and_back() {
        let every_byte: Vec<u8> = (1..=255).collect();
        let names: [&[u8]; 6] =
            [b"plain", b"with space\nand line", b"100%", b"%41", &every_byte, "grün".as_bytes()];

        for name in names {
            assert_eq!(decode_path(&encode_path(name)).as_bytes(), name);
        }
    }

    #[test]
    fn each_kind_of_output_becomes_its_value() {
        let read = |parse: Parse, text: &[u8]| parse.read(text.to_vec());

        assert_eq!(read(Parse::Text, b"a\nb\n"), Ok(json!("a\nb")));
        assert_eq!(read(Parse::Text, b""), Ok(json!("")));
        assert_eq!(read(Parse::Lines, b"a\n\nb\r\n"), Ok(json!(["a", "", "b"])));
        assert_eq!(read(Parse::Json, b" {\"a\": [1]} "), Ok(json!({"a": [1]})));
        assert_eq!(read(Parse::Paths, b"a b\0c%\xff\0"), Ok(json!(["a b", "c%25%FF"])));
        assert_eq!(read(Parse::Paths, b""), Ok(json!([])));
    }

    #[test]
    fn output_that_is_no_utf8_or_json_says_where() {
        let text = Parse::Text.read(b"ab\xffc".to_vec()).unwrap_err();
        let json = Parse::Json.read(b"{\"a\":".to_vec()).unwrap_err();

        assert!(text.contains("not UTF-8 (byte 3)"), "{text}");
        assert!(json.contains("line 1 column 5"), "{json}");
    }
}
