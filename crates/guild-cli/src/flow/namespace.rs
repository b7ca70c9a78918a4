//! Reads the rules for parts of the memory: `[namespaces."PREFIX"]`.

use guild::{Namespace, OnConflict, Rights};

use crate::flow::file::Reading;
use crate::flow::problem::suggest;
use crate::flow::reader::{Located, Raw, Section};
use crate::flow::{FLOW_ROLE, Role, quantity};

const RIGHTS: [&str; 4] = ["read", "write", "merge", "watch"];

/// What a flow file may say about conflicts; merge functions are code.
const POLICIES: [(&str, OnConflict); 4] = [
    ("retry", OnConflict::Retry),
    ("last-writer-wins", OnConflict::LastWriterWins),
    ("keep-both", OnConflict::KeepBoth),
    ("escalate", OnConflict::Escalate),
];

/// Reads all namespaces.
pub(crate) fn namespaces(
    reading: &Reading<'_>,
    section: Option<Section<'_, '_>>,
    roles: &[(Located<String>, Role)],
) -> Vec<Namespace> {
    let Some(section) = section else {
        return Vec::new();
    };
    let read = |(prefix, raw): (Located<String>, Raw<'_, '_>)| {
        let table = section.as_section(&raw)?;
        let namespace = namespace(reading, &prefix, &table, roles);
        table.finish();
        Some(namespace)
    };
    section.entries().into_iter().filter_map(read).collect()
}

fn namespace(
    reading: &Reading<'_>,
    prefix: &Located<String>,
    table: &Section<'_, '_>,
    roles: &[(Located<String>, Role)],
) -> Namespace {
    let bytes_max = reading.limits.key_bytes_max;
    if prefix.value.len() > bytes_max {
        reading.wrong(prefix, format!("is longer than a key may be ({bytes_max} bytes)"));
    }
    let mut namespace = Namespace::new(&prefix.value);
    if let Some(others) = table.raw("others") {
        namespace = namespace.others(rights(reading, table, &others));
    }
    if let Some(allow) = table.section("allow") {
        // The tasks that expand maps and make the result belong to Guild.
        namespace = namespace.allow(FLOW_ROLE, Rights::ALL);
        for (role, raw) in allow.entries() {
            if !roles.iter().any(|(known, _)| known.value == role.value) {
                let hint = suggest(&role.value, roles.iter().map(|(name, _)| name.value.as_str()));
                reading.wrong(&role, format!("unknown role `{}`{hint}", role.value));
                continue;
            }
            namespace = namespace.allow(&role.value, rights(reading, &allow, &raw));
        }
    }
    let size = |text: &str| match quantity::bytes(text)? {
        0 => Err("must be above zero; use rights to close a namespace".to_owned()),
        bytes => Ok(bytes as u64),
    };
    if let Some(bytes) = table.quantity("bytes_max", size) {
        namespace = namespace.bytes_max(bytes.value);
    }
    if let Some(rows) = table.integer("rows_max", 1..=i64::MAX) {
        namespace = namespace.rows_max(rows.value.unsigned_abs());
    }
    if let Some(policy) = table.text("on_conflict")
        && let Some(policy) =
            reading.choice(&policy, &POLICIES, |word| format!("unknown policy `{word}`"))
    {
        namespace = namespace.on_conflict(policy.clone());
    }
    namespace
}

fn rights(reading: &Reading<'_>, table: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Rights {
    let names = table.as_list(raw).unwrap_or_default();
    let names: Vec<_> = names.iter().filter_map(|name| table.as_text(name)).collect();
    let known = names.iter().filter(|name| {
        let is_known = RIGHTS.contains(&name.value.as_str());
        if !is_known {
            let hint = suggest(&name.value, RIGHTS);
            reading.wrong(name, format!("unknown right `{}`{hint}", name.value));
        }
        is_known
    });
    Rights::from_names(known.map(|name| name.value.as_str())).unwrap_or(Rights::NONE)
}
