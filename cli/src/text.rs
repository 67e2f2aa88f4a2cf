//! Numbers, paths and bytes as people and programs read them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use highwater::{ReadBatch, Record};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// Returns `word` with its plural `s` unless `count` is 1.
pub(crate) fn counted(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// Returns a number of bytes with the decimal unit that fits.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (unit, name) in units {
        if count >= unit {
            let tenths = count / (unit / 10);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// Returns `path` as it can be pasted into a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:=@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns this program as it was called, so that what it proposes can be pasted.
pub(crate) fn program() -> String {
    let name = std::env::args_os().next().unwrap_or_else(|| "highwater".into());
    shell_word(Path::new(&name))
}

/// A record as JSON: `offset`, `timestamp_ms`, `key`, `value`, and `headers` if it has any. Bytes
/// that are not UTF-8 stand as base64 under the name with `_base64` behind it.
#[derive(Debug)]
pub(crate) struct JsonRecord<'a>(pub(crate) &'a Record<'a>);

impl Serialize for JsonRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offset", &record.offset.0)?;
        map.serialize_entry("timestamp_ms", &record.timestamp_ms)?;
        put_bytes(&mut map, ["key", "key_base64"], record.key)?;
        put_bytes(&mut map, ["value", "value_base64"], record.value)?;
        let headers = record.headers();
        if !headers.is_empty() {
            map.serialize_entry("headers", &JsonHeaders(&headers))?;
        }
        map.end()
    }
}

/// The records of a batch as JSON, in an array; one that is not well formed ends it as
/// `{"fault":..}`.
#[derive(Debug)]
pub(crate) struct JsonBatchRecords<'a>(pub(crate) &'a ReadBatch);

impl Serialize for JsonBatchRecords<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for record in self.0.records() {
            match record {
                Ok(record) => sequence.serialize_element(&JsonRecord(&record))?,
                Err(error) => sequence.serialize_element(&Fault { fault: error.to_string() })?,
            }
        }
        sequence.end()
    }
}

#[derive(Serialize)]
struct Fault {
    fault: String,
}

/// A number that is not for calculating: its hexadecimal digits, so many of them, as a string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hexadecimal(pub(crate) u128, pub(crate) usize);

impl Serialize for Hexadecimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Hexadecimal(number, digits) = *self;
        serializer.collect_str(&format_args!("{number:0digits$x}"))
    }
}

/// Returns bytes in quotes with everything escaped that is not printable ASCII.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

struct JsonHeaders<'a>(&'a [(&'a [u8], Option<&'a [u8]>)]);

impl Serialize for JsonHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for header in self.0 {
            sequence.serialize_element(&JsonHeader(header))?;
        }
        sequence.end()
    }
}

struct JsonHeader<'a>(&'a (&'a [u8], Option<&'a [u8]>));

impl Serialize for JsonHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        put_bytes(&mut map, ["key", "key_base64"], Some(self.0.0))?;
        put_bytes(&mut map, ["value", "value_base64"], self.0.1)?;
        map.end()
    }
}

fn put_bytes<M: SerializeMap>(
    map: &mut M,
    [text_name, base64_name]: [&str; 2],
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    let Some(bytes) = bytes else { return map.serialize_entry(text_name, &()) };
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(text_name, text),
        Err(_) => map.serialize_entry(base64_name, &STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_carry_their_unit() {
        let shown: Vec<_> = [0, 999, 1_000, 1_999, 12_345_678, 3_000_000_000].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.9 kB", "12.3 MB", "3.0 GB"]);
    }

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(shell_word(Path::new("./data")), "./data");
        assert_eq!(shell_word(Path::new("it's here")), r"'it'\''s here'");
        assert_eq!(shell_word(Path::new("")), "''");
    }

    #[test]
    fn bytes_that_are_not_text_are_base64_and_null_is_not_empty() {
        let mut builder = highwater::RecordBatch::builder();
        builder.push(Some(7), None, Some(b"a\n\0"), &[]);
        builder.push(Some(8), Some(b""), None, &[(b"h", Some(&[0xff])), (b"i", None)]);
        builder.push(Some(9), Some(&[0xff, 0]), Some(b""), &[]);
        let batch = builder.build().expect("it fits");
        let shown: Vec<_> = batch
            .records(highwater::Offset(3))
            .map(|record| serde_json::to_string(&JsonRecord(&record.expect("well formed"))))
            .collect::<Result<_, _>>()
            .expect("strings");
        assert_eq!(
            shown,
            [
                r#"{"offset":3,"timestamp_ms":7,"key":null,"value":"a\n\u0000"}"#,
                r#"{"offset":4,"timestamp_ms":8,"key":"","value":null,"headers":[{"key":"h","value_base64":"/w=="},{"key":"i","value":null}]}"#,
                r#"{"offset":5,"timestamp_ms":9,"key_base64":"/wA=","value":""}"#,
            ]
        );
    }
}
